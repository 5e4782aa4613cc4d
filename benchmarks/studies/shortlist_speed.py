"""A shortlist's speed by vocabulary: `python -m pcaseg.benchmarks.studies.shortlist_speed --out rows.json`.

From pixels to logits of one window: the eager model as published, on all names (256 at most), beside the folded model
in PyTorch and the graph in ONNX Runtime and, where it is installed, in OpenVINO, all three with a shortlist, in turn on
the same inputs and threads. They are held against the eager model with that shortlist first. Preparing the vocabulary
is not timed. A product of two square matrices in each round shows what the machine can do at all, and ONNX Runtime's
profile what the time goes to.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

import pcaseg
from pcaseg.arguments import CORES, natural, some_path, up_to
from pcaseg.benchmarks.flops import counted_macs
from pcaseg.benchmarks.studies.folding import MATMUL_SIDE
from pcaseg.benchmarks.studies.operators import operator_seconds
from pcaseg.configs import ADVISED_SHORTLIST, MAX_CLASSES
from pcaseg.environment import write_rows
from pcaseg.errors import PcasegError, reported
from pcaseg.evaluation.agreement import timed
from pcaseg.export.bundle import write_bundle
from pcaseg.export.options import ExportOptions
from pcaseg.model.network import PCASeg
from pcaseg.runtime.backends import ShortlistBackend, open_backend
from pcaseg.runtime.bundle import SEGMENTER_NAME, Bundle

CLASSES = (32, 150, 847, 4096)
RUNTIMES = ("onnxruntime", *(("openvino",) if importlib.util.find_spec("openvino") else ()))


@dataclass
class ShortlistSpeedRow:
    """One backend with one vocabulary.

    Attributes:
        classes: T; 0 for `matmul`.
        backend: `eager`, on all classes; `folded` (PyTorch), `onnxruntime` and `openvino`, with the shortlist; and
            `matmul`, a float32 product of two square matrices in PyTorch.
        gmac: 10^9 multiply-adds of a call; None for `eager`.
        relative_error: largest difference of a kept logit from the eager model's with the same shortlist, over its
            largest; None for `eager` and `matmul`.
        seconds: of each round.
        operators: seconds by operator of one call more, of `onnxruntime` alone.
    """

    classes: int
    backend: str
    gmac: float | None
    relative_error: float | None
    seconds: list[float] = field(default_factory=list)
    operators: dict[str, float] = field(default_factory=dict)


@torch.no_grad()
def measure(
    model: PCASeg,
    bundle: Path,
    *,
    shortlist: int,
    rounds: int,
    classes: Sequence[int] = CLASSES,
    progress: bool = False,
) -> list[ShortlistSpeedRow]:
    """Times every size, after one call of each backend that warms up and compares.

    Args:
        bundle: of the model with this shortlist.

    Raises:
        PcasegError: fewer than two rounds; or a backend keeps other classes than the eager model.
    """
    if rounds < 2:
        raise PcasegError(f"rounds={rounds}: give 2 or more; an interval needs them")
    preset, generator = model.preset, torch.Generator().manual_seed(0)
    image = torch.rand(1, 3, preset.image_px, preset.image_px, generator=generator) * 255
    texts = F.normalize(torch.randn(max(classes), 1, preset.embed_dim, generator=generator), dim=-1)
    runtimes = {name: _opened(name, bundle) for name in RUNTIMES}
    folded = pcaseg.fold(model, shortlist=shortlist)
    matmul = ShortlistSpeedRow(0, "matmul", MATMUL_SIDE**3 / 1e9, None)
    square = torch.ones(MATMUL_SIDE, MATMUL_SIDE)
    rows = []
    for T in tqdm(classes, desc="shortlist", unit="size", disable=not progress):
        text = texts[:T]
        vocabulary = folded.prepare_vocabulary(text)
        feeds = {"image": image.numpy(), "text": text[:, 0].numpy()}
        calls: dict[str, Callable[[], Sequence[Tensor | np.ndarray]]] = {
            "folded": partial(folded.kept_logits, image, vocabulary)
        }
        calls |= {
            name: partial(runtime.kept_logits, feeds["image"], feeds["text"]) for name, runtime in runtimes.items()
        }
        gmac = counted_macs(calls["folded"]) / 1e9
        expected = model.kept_logits(image, text, shortlist=shortlist)
        block = [ShortlistSpeedRow(T, name, gmac, _error(call(), expected)) for name, call in calls.items()]
        block.insert(0, ShortlistSpeedRow(T, "eager", None, None))
        calls["eager"] = partial(model.kept_logits, image, text, shortlist=MAX_CLASSES)
        for _ in range(rounds):
            for row in block:
                row.seconds.append(timed(calls[row.backend])[0])
            matmul.seconds.append(timed(lambda: square @ square)[0])
        next(row for row in block if row.backend == "onnxruntime").operators = _profile(bundle, feeds)
        rows += block
    return [*rows, matmul]


def _opened(name: str, bundle: Path) -> ShortlistBackend:
    backend = open_backend(name, Bundle(bundle), threads=torch.get_num_threads())
    assert isinstance(backend, ShortlistBackend)
    return backend


def _profile(bundle: Path, feeds: dict[str, np.ndarray]) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.enable_profiling, options.profile_file_prefix = True, f"{folder}/profile"
        session = onnxruntime.InferenceSession(bundle / SEGMENTER_NAME, options, providers=["CPUExecutionProvider"])
        return operator_seconds(session, feeds)


def _error(found: Sequence[Tensor | np.ndarray], expected: Sequence[Tensor]) -> float:
    (logits, kept), (right, classes) = (map(np.asarray, found), map(np.asarray, expected))
    if not np.array_equal(kept, classes):
        raise PcasegError("the shortlist kept other classes than the eager model's")
    return float(np.abs(logits - right).max() / np.abs(right).max())


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and writes the rows; returns 0."""
    parser = argparse.ArgumentParser(prog="python -m pcaseg.benchmarks.studies.shortlist_speed", description=__doc__)
    parser.add_argument("--out", type=some_path, required=True, help="JSON file of rows")
    parser.add_argument("--preset", default="eva-b-384")
    parser.add_argument("--shortlist", type=up_to(MAX_CLASSES), default=ADVISED_SHORTLIST)
    parser.add_argument("--rounds", type=natural, default=3)
    parser.add_argument("--threads", type=up_to(CORES), default=2)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = pcaseg.load_model(options.preset)
    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(folder) / "short.pcaseg"
        write_bundle(model, bundle, options=ExportOptions(shortlist=options.shortlist))
        rows = measure(model, bundle, shortlist=options.shortlist, rounds=options.rounds, progress=True)
    subject = {
        "preset": options.preset,
        "weights": "seeded",
        "threads": options.threads,
        "shortlist": options.shortlist,
    }
    write_rows(options.out, rows, **subject)
    print(f"{options.out}: {len(rows)} rows")
    return 0


if __name__ == "__main__":
    sys.exit(reported(main))
