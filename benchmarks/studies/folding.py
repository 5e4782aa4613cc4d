"""Gain of folding on this machine: `python -m pcaseg.benchmarks.studies.folding --out rows.json`.

At each size the eager model, which computes as published, the folded model in PyTorch and the folded graph in ONNX
Runtime run in turn, round after round, on the same inputs and threads, so that drift hits all alike. Each is held
against the eager result first. Preparing the vocabulary is not timed; it runs once per vocabulary.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import onnxruntime
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

import pcaseg
from pcaseg.arguments import CORES, Parser, rows_file, up_to
from pcaseg.benchmarks.flops import folded_macs, published_macs
from pcaseg.configs import Preset
from pcaseg.deploy.aggregator import FoldedAggregator
from pcaseg.deploy.folded import FoldedPCASeg
from pcaseg.environment import write_rows
from pcaseg.errors import reported
from pcaseg.evaluation.agreement import timed
from pcaseg.export.graphs import Signature, export_graph, export_segmenter, text_spec
from pcaseg.model.network import PCASeg
from pcaseg.runtime.manifest import TensorSpec

Part = Literal["aggregator", "image", "matmul"]
CLASS_COUNTS: dict[Part, tuple[int, ...]] = {"aggregator": (1, 5, 20, 59, 150, 256), "image": (5, 20, 150)}
MATMUL_SIDE = 2048

CHUNK = 8
"""Classes at a time of the folded model in PyTorch."""


@dataclass
class FoldingRow:
    """One backend on one part of the model.

    Attributes:
        part: `aggregator`, the whole `image` (network input to logits), or `matmul`: a float32 product of two square
            matrices, as the measure of what the machine can do at all.
        classes: T; 0 for `matmul`.
        backend: `eager`, `folded` (PyTorch), `onnxruntime` (folded graph); `torch` for `matmul`.
        gmac: 10^9 multiply-adds of a call; None for whole images.
        relative_error: largest difference of a logit from eager's over the largest eager logit.
        seconds: of each round.
    """

    part: Part
    classes: int
    backend: str
    gmac: float | None
    relative_error: float | None
    seconds: list[float] = field(default_factory=list)

    @property
    def median_s(self) -> float:
        return statistics.median(self.seconds)


Call = Callable[[], "Tensor | np.ndarray"]


class AggregatorGraph(nn.Module):
    """The folded aggregator alone, as a graph."""

    def __init__(self, aggregator: FoldedAggregator) -> None:
        super().__init__()
        self.aggregator = aggregator

    def forward(self, features: Tensor, first: Tensor, second: Tensor, text: Tensor) -> Tensor:
        """Features, both taps and text (T, D) -> logits; the features are the spatial guidance too."""
        vocabulary = self.aggregator.prepare_vocabulary(text[:, None])
        return self.aggregator.aggregate_best(features, vocabulary, (features, first, second))


class FoldingBackends:
    """The three backends of a preset with seeded weights, and their inputs."""

    def __init__(self, preset: str | Preset, folder: Path, *, threads: int) -> None:
        torch.set_num_threads(threads)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.eager: PCASeg = pcaseg.load_model(preset)
        self.folded: FoldedPCASeg = pcaseg.fold(self.eager)
        self.preset = self.eager.preset
        generator = torch.Generator().manual_seed(0)
        R = self.preset.image_px
        self.image = torch.rand(1, 3, R, R, generator=generator) * 255
        self.text = F.normalize(torch.randn(256, 1, self.preset.embed_dim, generator=generator), dim=-1)
        with torch.no_grad():
            self.features, self.guidance = self.eager.encode_image(self.image)
        export_segmenter(self.eager, folder / "image.onnx")
        self._export_aggregator(folder / "aggregator.onnx")
        self.folder, self.threads = folder, threads

    def calls(self, part: Part, T: int) -> dict[str, Call]:
        """Calls to time, by backend."""
        text = self.text[:T]
        vocabulary = self.folded.prepare_vocabulary(text)
        session = self.session(part)
        feeds = self.feeds(part, T)
        if part == "image":
            return {
                "eager": lambda: self.eager(self.image, text),
                "folded": lambda: self.folded(self.image, vocabulary, chunk=CHUNK),
                "onnxruntime": lambda: session.run(None, feeds)[0],
            }
        return {
            "eager": lambda: self.eager.aggregator(self.features, text, self.guidance),
            "folded": lambda: self.folded.aggregator(self.features, vocabulary, self.guidance, chunk=CHUNK),
            "onnxruntime": lambda: session.run(None, feeds)[0],
        }

    def session(self, part: Part, *, profile: bool = False) -> onnxruntime.InferenceSession:
        """A new session of a part's graph: what an older one keeps in its arena would crowd the memory."""
        return cpu_session(self.folder / f"{part}.onnx", self.threads, profile=self.folder / part if profile else None)

    def feeds(self, part: Part, T: int) -> dict[str, np.ndarray]:
        """Inputs of a part's graph."""
        text = {"text": self.text[:T, 0].numpy()}
        if part == "image":
            return {"image": self.image.numpy()} | text
        return {name: tensor.numpy() for name, tensor in self._of_the_image().items()} | text

    def _of_the_image(self) -> dict[str, Tensor]:
        """Inputs of the aggregator's graph beside the text; the features are the spatial guidance too."""
        return dict(zip(("features", "first", "second"), (self.features, *self.guidance[1:]), strict=True))

    def _export_aggregator(self, path: Path) -> None:
        inputs = {
            name: TensorSpec(("N", *tensor.shape[1:]), "float32", "of the image tower")
            for name, tensor in self._of_the_image().items()
        }
        side = 4 * self.preset.grid
        logits = TensorSpec(("N", "T", side, side), "float32", "before the sigmoid")
        signature = Signature(inputs | {"text": text_spec(self.preset)}, {"logits": logits})
        export_graph(AggregatorGraph(self.folded.aggregator), path, signature)


def cpu_session(path: Path, threads: int, *, profile: Path | None = None) -> onnxruntime.InferenceSession:
    """A session of a graph on the CPU; `profile` is what the name of its profile begins with, None for no profile."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    if profile is not None:
        options.enable_profiling, options.profile_file_prefix = True, str(profile)
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


@torch.no_grad()
def measure(backends: FoldingBackends, *, rounds: int) -> list[FoldingRow]:
    """Size by size, all backends in turn, `rounds` times after one call of each that warms up and compares."""
    rows: list[FoldingRow] = []
    sizes = [(part, T) for part, counts in CLASS_COUNTS.items() for T in counts]
    matmul, square = FoldingRow("matmul", 0, "torch", MATMUL_SIDE**3 / 1e9, None), torch.ones(MATMUL_SIDE, MATMUL_SIDE)
    for part, T in tqdm(sizes, desc="folding", unit="size"):
        calls = backends.calls(part, T)
        logits = {backend: np.asarray(call()) for backend, call in calls.items()}
        largest = np.abs(logits["eager"]).max()
        errors = {
            backend: float(np.abs(values - logits["eager"]).max() / largest) for backend, values in logits.items()
        }
        block = {
            backend: FoldingRow(part, T, backend, _gmac(backends, part, T, backend), errors[backend])
            for backend in calls
        }
        for _ in range(rounds):
            for backend, call in calls.items():
                block[backend].seconds.append(timed(call)[0])
            matmul.seconds.append(timed(lambda: square @ square)[0])
        rows += block.values()
    return [*rows, matmul]


def _gmac(backends: FoldingBackends, part: Part, T: int, backend: str) -> float | None:
    if part != "aggregator":
        return None
    return (published_macs if backend == "eager" else folded_macs)(backends.preset, T) / 1e9


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and writes the rows."""
    parser = Parser(prog="python -m pcaseg.benchmarks.studies.folding", description=__doc__)
    parser.add_argument("--out", type=rows_file, required=True, help="JSON file to write")
    parser.add_argument("--preset", default="eva-b-384")
    parser.add_argument("--rounds", type=up_to(1000, least=2), default=3)
    parser.add_argument("--threads", type=up_to(CORES), default=2)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(FoldingBackends(options.preset, Path(folder), threads=options.threads), rounds=options.rounds)
    subject = {"preset": options.preset, "weights": "seeded", "threads": options.threads, "chunk": CHUNK}
    write_rows(options.out, rows, **subject)
    for row in rows:
        print(f"{row.part:10} {row.classes:4} {row.backend:12} {row.median_s:8.3f} s")
    return 0


if __name__ == "__main__":
    sys.exit(reported(main))
