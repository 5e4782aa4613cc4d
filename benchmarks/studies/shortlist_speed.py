"""A shortlist's speed by vocabulary: `python -m pcaseg.benchmarks.studies.shortlist_speed --out rows.json`.

From pixels to logits of one window: the eager model as published, on all names (256 at most), beside the folded model
in PyTorch and the graph in ONNX Runtime and, where it is installed, in OpenVINO, all three with a shortlist, in turn on
the same inputs and threads; in bfloat16 too where the processor multiplies in it. They are held against the eager
model with that shortlist first. Preparing the vocabulary is not timed. A product of two square matrices in each round
shows what the machine can do at all, and ONNX Runtime's profile what the time goes to.
"""

from __future__ import annotations

import importlib.util
import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

import pcaseg
from pcaseg.arguments import CORES, Parser, rows_file, up_to
from pcaseg.benchmarks.flops import counted_macs
from pcaseg.benchmarks.intervals import check_pairs
from pcaseg.benchmarks.studies.folding import MATMUL_SIDE, cpu_session
from pcaseg.benchmarks.studies.operators import operator_seconds
from pcaseg.configs import ADVISED_SHORTLIST, MAX_CLASSES
from pcaseg.environment import multiplies_bfloat16, write_rows
from pcaseg.errors import PcasegError, reported
from pcaseg.evaluation.agreement import timed
from pcaseg.export.bundle import write_bundle
from pcaseg.export.options import ExportOptions
from pcaseg.model.network import PCASeg
from pcaseg.runtime.backends import ShortlistBackend, open_backend
from pcaseg.runtime.bundle import SEGMENTER_NAME, Bundle

CLASSES = (32, 150, 847, 4096)

Call = Callable[[], "Sequence[Tensor | np.ndarray]"]


@dataclass
class ShortlistSpeedRow:
    """One backend with one vocabulary.

    Attributes:
        classes: T; 0 for `matmul`.
        backend: `eager`, on all classes; `folded` (PyTorch), `onnxruntime` and `openvino`, with the shortlist; and
            `matmul`, a product of two square matrices in PyTorch. With `-bfloat16` behind it, in that.
        gmac: 10^9 multiply-adds of a call; None for `eager`.
        relative_error: largest difference of a logit that both kept from the eager model's with the same shortlist,
            over its largest; None for `eager` and `matmul`.
        kept: share of the eager model's shortlist that this one kept too, 1 in float32; None as there.
        seconds: of each round.
        operators: seconds by operator of one call more, of `onnxruntime` alone.
    """

    classes: int
    backend: str
    gmac: float | None
    relative_error: float | None = None
    kept: float | None = None
    seconds: list[float] = field(default_factory=list)
    operators: dict[str, float] = field(default_factory=dict)


def backend_names() -> tuple[str, ...]:
    """Backends that are held against the eager model on this machine."""
    names = ("folded", "onnxruntime", *(("openvino",) if importlib.util.find_spec("openvino") else ()))
    return names + tuple(f"{name}-bfloat16" for name in names if multiplies_bfloat16() and name != "onnxruntime")


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
        PcasegError: fewer than two rounds; or a backend keeps other classes in float32 than the eager model.
    """
    check_pairs("rounds", rounds)
    preset, generator = model.preset, torch.Generator().manual_seed(0)
    image = torch.rand(1, 3, preset.image_px, preset.image_px, generator=generator) * 255
    texts = F.normalize(torch.randn(max(classes), 1, preset.embed_dim, generator=generator), dim=-1)
    prepare = {name: _backend(name, model, bundle, shortlist) for name in backend_names()}
    squares = {"matmul": torch.ones(MATMUL_SIDE, MATMUL_SIDE)}
    if multiplies_bfloat16():
        squares["matmul-bfloat16"] = squares["matmul"].bfloat16()
    products = [ShortlistSpeedRow(0, name, MATMUL_SIDE**3 / 1e9) for name in squares]
    rows = []
    for T in tqdm(classes, desc="shortlist", unit="size", disable=not progress):
        text = texts[:T]
        calls = {name: prepared(image, text) for name, prepared in prepare.items()}
        gmac = counted_macs(calls["folded"]) / 1e9
        expected = model.kept_logits(image, text, shortlist=shortlist)
        block = [ShortlistSpeedRow(T, "eager", None)]
        block += [ShortlistSpeedRow(T, name, gmac, *_compared(name, call(), expected)) for name, call in calls.items()]
        calls["eager"] = partial(model.kept_logits, image, text, shortlist=MAX_CLASSES)
        for _ in range(rounds):
            for row in block:
                row.seconds.append(timed(calls[row.backend])[0])
            for row in products:
                square = squares[row.backend]
                row.seconds.append(timed(partial(torch.matmul, square, square))[0])
        profiled = next(row for row in block if row.backend == "onnxruntime")
        profiled.operators = _profile(bundle, {"image": image.numpy(), "text": text[:, 0].numpy()})
        rows += block
    return [*rows, *products]


def _backend(name: str, model: PCASeg, bundle: Path, shortlist: int) -> Callable[[Tensor, Tensor], Call]:
    """Maker of calls from an image and text (T, 1, D), which prepares what hangs on the vocabulary alone."""
    runtime, _, precision = name.partition("-")
    if runtime == "folded":
        folded = pcaseg.fold(model, dtype=torch.bfloat16 if precision else None, shortlist=shortlist)
        dtype = folded.aggregator.dtype
        return lambda image, text: partial(folded.kept_logits, image, folded.prepare_vocabulary(text.to(dtype)))
    options = {"precision_hint": precision} if precision else {}
    backend = open_backend(runtime, Bundle(bundle), threads=torch.get_num_threads(), options=options)
    assert isinstance(backend, ShortlistBackend)
    return lambda image, text: partial(backend.kept_logits, image.numpy(), text[:, 0].numpy())


def _profile(bundle: Path, feeds: dict[str, np.ndarray]) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        path = bundle / SEGMENTER_NAME
        return operator_seconds(cpu_session(path, torch.get_num_threads(), profile=Path(folder) / "profile"), feeds)


def _compared(name: str, found: Sequence[Tensor | np.ndarray], expected: Sequence[Tensor]) -> tuple[float, float]:
    """Largest relative error of the logits that both kept, and the share of the expected that were kept."""
    logits, right = (torch.as_tensor(one[0]).float().numpy()[0] for one in (found, expected))
    kept, classes = (np.asarray(one[1])[0] for one in (found, expected))
    both, here, there = np.intersect1d(kept, classes, return_indices=True)
    if not (np.array_equal(kept, classes) or name.endswith("-bfloat16")):
        raise PcasegError(f"{name}: its shortlist kept other classes than the eager model's")
    return float(np.abs(logits[here] - right[there]).max() / np.abs(right).max()), len(both) / len(classes)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and writes the rows; returns 0."""
    parser = Parser(prog="python -m pcaseg.benchmarks.studies.shortlist_speed", description=__doc__)
    parser.add_argument("--out", type=rows_file, required=True, help="JSON file of rows")
    parser.add_argument("--preset", default="eva-b-384")
    parser.add_argument("--shortlist", type=up_to(MAX_CLASSES), default=ADVISED_SHORTLIST)
    parser.add_argument("--rounds", type=up_to(1000, least=2), default=3)
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
