"""A shortlist's speed by vocabulary: `python -m pcaseg.benchmarks.studies.shortlist_speed --out rows.json`.

From pixels to logits of one window: the eager model as published, on all names (256 at most), beside the folded model
in PyTorch and the graph in ONNX Runtime, both with a shortlist, in turn on the same inputs and threads. The two are
held against the eager model with that shortlist first. Preparing the vocabulary is not timed.
"""

from __future__ import annotations

import argparse
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
from pcaseg.configs import ADVISED_SHORTLIST, MAX_CLASSES
from pcaseg.environment import write_rows
from pcaseg.errors import PcasegError, reported
from pcaseg.evaluation.agreement import timed
from pcaseg.export.graphs import export_segmenter
from pcaseg.export.options import ExportOptions
from pcaseg.model.network import PCASeg

CLASSES = (32, 150, 847, 4096)


@dataclass
class ShortlistSpeedRow:
    """One backend with one vocabulary.

    Attributes:
        classes: T.
        backend: `eager`, on all classes; `folded` (PyTorch) and `onnxruntime`, with the shortlist.
        relative_error: largest difference of a kept logit from the eager model's with the same shortlist, over its
            largest; None for `eager`.
        seconds: of each round.
    """

    classes: int
    backend: str
    relative_error: float | None
    seconds: list[float] = field(default_factory=list)


@torch.no_grad()
def measure(
    model: PCASeg, graph: Path, *, shortlist: int, rounds: int, classes: Sequence[int] = CLASSES, progress: bool = False
) -> list[ShortlistSpeedRow]:
    """Times every size, after one call of each backend that warms up and compares.

    Args:
        graph: of the model with this shortlist.

    Raises:
        PcasegError: fewer than two rounds; or a backend keeps other classes than the eager model.
    """
    if rounds < 2:
        raise PcasegError(f"rounds={rounds}: give 2 or more; an interval needs them")
    preset, generator = model.preset, torch.Generator().manual_seed(0)
    image = torch.rand(1, 3, preset.image_px, preset.image_px, generator=generator) * 255
    texts = F.normalize(torch.randn(max(classes), 1, preset.embed_dim, generator=generator), dim=-1)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    folded = pcaseg.fold(model, shortlist=shortlist)
    rows = []
    for T in tqdm(classes, desc="shortlist", unit="size", disable=not progress):
        text = texts[:T]
        vocabulary = folded.prepare_vocabulary(text)
        feeds = {"image": image.numpy(), "text": text[:, 0].numpy()}
        calls: dict[str, Callable[[], Sequence[Tensor | np.ndarray]]] = {
            "folded": partial(folded.kept_logits, image, vocabulary),
            "onnxruntime": partial(session.run, ["logits", "classes"], feeds),
        }
        expected = model.kept_logits(image, text, shortlist=shortlist)
        block = [ShortlistSpeedRow(T, "eager", None)]
        block += [ShortlistSpeedRow(T, name, _error(call(), expected)) for name, call in calls.items()]
        calls["eager"] = partial(model.kept_logits, image, text, shortlist=MAX_CLASSES)
        for _ in range(rounds):
            for row in block:
                row.seconds.append(timed(calls[row.backend])[0])
        rows += block
    return rows


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
        graph = Path(folder) / "image.onnx"
        export_segmenter(model, graph, options=ExportOptions(shortlist=options.shortlist))
        rows = measure(model, graph, shortlist=options.shortlist, rounds=options.rounds, progress=True)
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
