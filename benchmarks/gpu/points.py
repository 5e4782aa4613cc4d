"""A bundle's TensorRT engines at all points with a reference: rows of agreement and time, without PyTorch."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import numpy as np

from pcaseg.arguments import Parser, some_path
from pcaseg.benchmarks import timing
from pcaseg.benchmarks.gpu.references import FRAME, POINTS, GpuPoint, Reference, read_reference
from pcaseg.benchmarks.intervals import noise_of
from pcaseg.benchmarks.rows import BenchRow, EngineFacts, Point, Timing, append_rows, read_rows
from pcaseg.class_lists import first_names
from pcaseg.environment import flat_environment
from pcaseg.errors import PcasegError, reported
from pcaseg.evaluation.accuracy import Output, compare
from pcaseg.evaluation.gates import default_gate, gate_failures
from pcaseg.export.tensorrt.refit import open_tensorrt
from pcaseg.images import read_image
from pcaseg.paths import exists
from pcaseg.runtime.bundle import Bundle
from pcaseg.runtime.result import Result
from pcaseg.runtime.segmenter import Segmenter
from pcaseg.runtime.tensorrt_backend import TensorRTBackend
from pcaseg.runtime.vocabulary import Vocabulary

ROUNDS, CALLS = 5, 50


class PointRun:
    """Measures one bundle."""

    def __init__(self, bundle: Bundle, backend: TensorRTBackend, references: Path) -> None:
        self.bundle, self.backend, self.references = bundle, backend, references
        manifest, gpu = bundle.manifest, backend.machine
        self.frame = read_image(references / FRAME)
        inside = backend.engine_in_use(1).sidecar.key.plugins
        named = f"TensorRT {gpu.tensorrt}, {manifest.precision}, graph of {manifest.graph}"
        self.template = BenchRow(
            run=f"{datetime.now(timezone.utc):%Y%m%dT%H%M%SZ}-{uuid.uuid4().hex[:6]}",
            created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            preset=manifest.preset,
            aggregation=manifest.aggregation,
            weights=manifest.weights.kind,
            bundle_sha256=bundle.sha256,
            engine_sha256=None,
            backend="tensorrt",
            runs=f"{named}, plugins {inside.partition('-')[0]}" if inside else named,
            computation="folded",
            precision=manifest.precision,
            point=Point(1, "single", 1, manifest.precision, 1, 1, *self.frame.shape[:2]),
            status="ok",
            gate=default_gate(manifest.precision, manifest.weights.kind),
            environment=flat_environment()
            | {"gpu": str(gpu.gpu), "compute capability": str(gpu.compute_capability), "tensorrt": gpu.tensorrt},
        )

    def rows(self, points: Sequence[GpuPoint]) -> Iterator[BenchRow]:
        """A row for each point; one that cannot run is a failed one with its reason."""
        for point in points:
            row = replace(self.template, point=self._at(point))
            try:
                yield self._row(row, point, read_reference(self.references / point.file))
            except PcasegError as error:
                yield replace(row, status="failed", reason=str(error))

    def key(self, point: GpuPoint) -> tuple[str, Point]:
        """Values that a row of this point has in common with any other of the same engine."""
        return self.backend.engine_in_use(point.classes).sidecar.sha256, self._at(point)

    def _at(self, point: GpuPoint) -> Point:
        return replace(self.template.point, classes=point.classes, strategy=point.strategy, images=point.images)

    def _row(self, row: BenchRow, point: GpuPoint, reference: Reference) -> BenchRow:
        images = self.frame[None] if self.bundle.manifest.graph == "labels" else reference.windows
        segment = self._segment(point, reference) if point.images == 1 else None
        accuracy = compare(
            self._output(images, reference.text, segment and segment()),
            expected_output(reference, self.bundle.manifest.graph),
            first_names(point.classes),
        )
        misses = gate_failures(accuracy, row.gate)
        sidecar = self.backend.engine_in_use(point.classes).sidecar
        self.backend.engine_times_ms(images, reference.text, calls=10)  # warm
        engine = timing.latency(self._engine(images, reference.text), images=point.images)
        return replace(
            row,
            engine_sha256=sidecar.sha256,
            status="failed" if misses else "ok",
            reason=misses,
            noise=noise_of(engine, None),
            engine=Timing(engine, None),
            end_to_end=segment and Timing(timing.latency(end_to_end(segment)), None),
            accuracy=accuracy,
            engine_facts=EngineFacts.of(sidecar),
        )

    def _segment(self, point: GpuPoint, reference: Reference) -> Callable[[], Result]:
        """From the image file to the label map."""
        segmenter = Segmenter(self.backend, strategy=point.strategy)
        encoder = self.bundle.manifest.text.encoder_sha256
        segmenter.set_vocabulary(Vocabulary(first_names(point.classes), reference.text, encoder))
        return lambda: segmenter(self.references / FRAME)

    def _output(self, images: np.ndarray, text: np.ndarray, result: Result | None) -> Output:
        logits = None if self.bundle.manifest.graph == "labels" else self.backend.logits(images, text)
        if result is not None:
            return Output(result.labels, result.confidence, logits)
        assert logits is not None  # a graph of labels runs one image
        return of_logits(logits)

    def _engine(self, images: np.ndarray, text: np.ndarray) -> list[timing.Round]:
        rounds = [self.backend.engine_times_ms(images, text, calls=CALLS) for _ in range(ROUNDS)]
        return [timing.Round(samples, sum(samples)) for samples in rounds]


def end_to_end(segment: Callable[[], object]) -> list[timing.Round]:
    """Whole calls by the processor's clock."""
    rounds = [[timing.perf_timer(segment) for _ in range(CALLS)] for _ in range(ROUNDS)]
    return [timing.Round(samples, sum(samples)) for samples in rounds]


def expected_output(reference: Reference, graph: str) -> Output:
    """Output that a backend's is held against."""
    if reference.labels.size == 0:
        return of_logits(reference.logits)
    return Output(reference.labels, reference.confidence, None if graph == "labels" else reference.logits)


def of_logits(logits: np.ndarray) -> Output:
    """Labels of logit pixels, all windows below each other."""
    side = logits.shape[-1]
    return Output(logits.argmax(axis=1).reshape(-1, side), logits.max(axis=1).reshape(-1, side), logits)


def points_of(bundle: Bundle) -> list[GpuPoint]:
    """The points that a bundle's graph can run."""
    manifest = bundle.manifest
    if manifest.graph == "logits":
        return list(POINTS)
    return [point for point in POINTS if point.images == 1 and point.strategy == manifest.strategy]


def measure(bundle: Bundle, backend: TensorRTBackend, references: Path, out: Path) -> bool:
    """Adds rows of a bundle to a file; points that it holds for these engines already are left out.

    Returns:
        Whether all points ran; a row that ran and is not right counts, and says so.
    """
    held = read_rows([out]) if exists(out) else []
    known = {(row.engine_sha256, row.point) for row in held if row.engine}
    complete, run = True, PointRun(bundle, backend, references)
    for row in run.rows([point for point in points_of(bundle) if run.key(point) not in known]):
        append_rows(out, [row])
        complete &= row.engine is not None
        latency = f"{row.engine.latency.p50_ms:.3f} ms" if row.engine else ""
        print(f"{row.point.classes} {row.point.strategy} {row.point.images}: {row.status} {row.reason} {latency}")
    return complete


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures a bundle; 0 where all points ran, 1 where one could not, 2 where nothing can."""
    parser = Parser(prog="python -m pcaseg.benchmarks.gpu.points", description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--references", type=Path, required=True, help="folder of the prepare step")
    parser.add_argument("--rows", type=some_path, required=True, help="file of rows to add to")
    parser.add_argument("--plugin-library", type=some_path)
    options = parser.parse_args(arguments)

    def work() -> int:
        bundle = Bundle(options.bundle)
        backend = open_tensorrt(bundle, plugin_library=options.plugin_library)
        return 0 if measure(bundle, backend, options.references, options.rows) else 1

    return reported(work)


if __name__ == "__main__":
    sys.exit(main())
