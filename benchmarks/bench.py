"""`pcaseg bench`: every backend against eager float32, row by row.

The eager reference computes as published, so its time is the published model's. Everything else is held against its
result and against its time.
"""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime, timezone

from tqdm import tqdm

from pcaseg.benchmarks import timing
from pcaseg.benchmarks.cold import cold_start
from pcaseg.benchmarks.device import describe_gpu, machine_rates
from pcaseg.benchmarks.flops import encoder_macs, folded_macs, published_macs
from pcaseg.benchmarks.implementations import (
    Implementation,
    Setting,
    SkippedError,
    computation_of,
    open_implementation,
    weight_bytes,
)
from pcaseg.benchmarks.intervals import noise_of, paired_ratio
from pcaseg.benchmarks.measurement import Measured, Mious, PointMeasurement, steps_of
from pcaseg.benchmarks.plan import BenchOptions, Progress, Target
from pcaseg.benchmarks.rows import BenchRow, Cold, EngineFacts, Point, Timing
from pcaseg.configs import most_kept
from pcaseg.environment import flat_environment
from pcaseg.evaluation.gates import default_gate, gate_failures, labelled_gate
from pcaseg.images import read_image
from pcaseg.runtime.engines import EngineSidecar
from pcaseg.runtime.tensorrt_backend import TensorRTBackend


def bench(target: Target, options: BenchOptions, *, progress: bool = False) -> Iterator[BenchRow]:
    """Measures all points, one after the other.

    Args:
        target: what is measured.
        options: how.
        progress: show a progress bar on standard error.

    Yields:
        A row for each backend at each point as soon as the point is done, skipped backends too.

    Raises:
        PcasegError: a cold start fails, or a labelled image cannot be used.
    """
    groups = len(options.precisions) * len(options.thread_counts)
    points = len(options.classes) * len(options.images) * len(options.strategies) * len(options.streams)
    names = options.names
    total = 1 + groups * (len(names) * (1 + options.cold) + points * steps_of(names))
    with tqdm(total=total, desc="bench", unit="step", disable=not progress) as bar:
        yield from _Run(target, options, Progress(bar)).rows()
        bar.update(total - bar.n)


class _Run:
    """One run: what all its rows have in common."""

    def __init__(self, target: Target, options: BenchOptions, progress: Progress) -> None:
        self.target, self.options, self.progress = target, options, progress
        self.progress.step("the machine")
        height, width = read_image(target.images[0]).shape[:2]
        first = Point(1, "single", 1, "float32", 1, 1, height, width, target.model.shortlist)
        self.mious = Mious(target, options)
        self.encoder_macs = encoder_macs(target.model)
        self.template = BenchRow(
            run=f"{datetime.now(timezone.utc):%Y%m%dT%H%M%SZ}-{uuid.uuid4().hex[:6]}",
            created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            preset=target.model.preset.name,
            aggregation=target.model.aggregation,
            weights=target.model.source.kind,
            bundle_sha256=None,
            engine_sha256=None,
            backend="",
            runs="",
            computation="folded",
            precision="float32",
            point=first,
            status="skipped",
            machine=machine_rates(options.device),
            environment=flat_environment() | describe_gpu(options.device),
        )

    def rows(self) -> Iterator[BenchRow]:
        options = self.options
        for precision, threads in itertools.product(options.precisions, options.thread_counts):
            with timing.pinned(threads):
                yield from self._group(precision, threads)

    def _group(self, precision: str, threads: int) -> Iterator[BenchRow]:
        """All points that share opened backends."""
        options = self.options
        bundle = self.target.bundle(precision)
        setting = Setting(self.target.model, bundle, precision, options.device, threads)
        opened = {name: self._open(name, setting) for name in options.names}
        implementations = {name: one for name, one in opened.items() if isinstance(one, Implementation)}
        sweep = itertools.product(options.strategies, sorted(options.classes), options.images, options.streams)
        cold: dict[str, Cold] = {}
        for index, (strategy, classes, images, streams) in enumerate(sweep):
            point = replace(
                self.template.point,
                classes=classes,
                strategy=strategy,
                images=images,
                precision=precision,
                threads=threads,
                streams=streams,
            )
            cold = self._cold(implementations, point) if index == 0 and options.cold else {}
            measured = PointMeasurement(self.target, options, point, self.mious, self.progress).run(implementations)
            for name, one in opened.items():
                if isinstance(one, Implementation):
                    yield self._row(one, point, measured, cold.get(name))
                else:
                    skipped = replace(self.template, backend=name, point=point, precision=precision, reason=one)
                    yield replace(skipped, computation=computation_of(name))

    def _open(self, name: str, setting: Setting) -> Implementation | str:
        """The implementation, or why it does not take part."""
        self.progress.step(f"opening {name}")
        try:
            return self.options.why_not(name) or open_implementation(name, setting)
        except SkippedError as error:
            return str(error)

    def _cold(self, implementations: Mapping[str, Implementation], point: Point) -> dict[str, Cold]:
        """Cold starts, one process after the other."""
        found = {}
        for name in implementations:
            self.progress.step(f"cold start of {name}")
            if name == "eager-autocast":  # starts as eager does
                continue
            found[name] = cold_start(
                name,
                self.target.bundle(point.precision).path,
                self.target.images[0],
                classes=point.classes,
                precision=point.precision,
                device=self.options.device,
                threads=point.threads,
                model=self.target.model_path,
            )
        return found

    def _row(
        self, implementation: Implementation, point: Point, measured: Mapping[str, Measured], cold: Cold | None
    ) -> BenchRow:
        one, eager = measured[implementation.name], measured.get("eager")
        weights = self.template.weights
        measured_miou = labelled_gate(implementation.precision, weights) if self.options.labelled else {}
        gate = default_gate(implementation.precision, weights) | measured_miou | dict(self.options.gate)
        misses = one.failure or (gate_failures(one.accuracy, gate) if one.accuracy else "")
        engine = self._timing(one.engine, eager.engine if eager else [], point)
        exported = implementation.name.startswith(("onnxruntime", "tensorrt"))
        sidecar = None if one.failure else engine_of(implementation, point.classes)
        return replace(
            self.template,
            bundle_sha256=self.target.bundle(point.precision).sha256 if exported else None,
            engine_sha256=sidecar and sidecar.sha256,
            backend=implementation.name,
            runs=one.runs,
            computation=implementation.computation,
            precision=implementation.precision,
            point=point,
            status="failed" if misses else "ok",
            reason=misses,
            noise=noise_of(engine.latency, engine.ratio) if engine else "",
            engine=engine,
            end_to_end=self._timing(one.end_to_end, eager.end_to_end if eager else [], point),
            stages_ms=one.stages_ms,
            cold=cold,
            energy_j=one.energy_j,
            accuracy=one.accuracy,
            gate=gate,
            gmac=self._gmac(implementation, point),
            least_mb=self._least_mb(implementation, point),
            engine_facts=sidecar and EngineFacts.of(sidecar),
        )

    def _timing(self, rounds: list[timing.Round], base: list[timing.Round], point: Point) -> Timing | None:
        if not rounds:
            return None
        latency = timing.latency(rounds, images=point.images, streams=point.streams)
        return Timing(latency, paired_ratio(timing.latency(base), latency) if base else None)

    def _windows(self, point: Point) -> int:
        """Network inputs of one call."""
        sliding = self.target.model.preset.sliding
        return point.images * (1 + len(sliding.origins()) if point.strategy == "sliding" else 1)

    def _gmac(self, implementation: Implementation, point: Point) -> float | None:
        """None for serial aggregation, which has no formula."""
        if self.template.aggregation != "parallel":
            return None
        formula = published_macs if implementation.computation == "published" else folded_macs
        macs = self.encoder_macs + formula(self.target.model.preset, min(point.classes, most_kept(point.shortlist)))
        return float(f"{self._windows(point) * macs / 1e9:.5g}")

    def _least_mb(self, implementation: Implementation, point: Point) -> float:
        """Weights once; network inputs, vocabulary and logits in float32."""
        preset = self.target.model.preset
        maps = point.classes if point.shortlist is None else min(point.classes, point.shortlist)
        numbers = self._windows(point) * (3 * preset.image_px**2 + maps * (4 * preset.grid) ** 2)
        numbers += point.classes * preset.prompts * preset.embed_dim
        return float(f"{(weight_bytes(self.target.model, implementation.precision) + 4 * numbers) / 1e6:.5g}")


def engine_of(implementation: Implementation, classes: int) -> EngineSidecar | None:
    """Facts of the TensorRT engine that runs so many classes; None of other backends."""
    backend = implementation.backend
    return backend.engine_in_use(classes).sidecar if isinstance(backend, TensorRTBackend) else None
