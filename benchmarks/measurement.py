"""All backends at one point: first whether right, then, taking turns, how fast."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from pcaseg.benchmarks import timing
from pcaseg.benchmarks.device import energy_of, timer_of
from pcaseg.benchmarks.implementations import Implementation
from pcaseg.benchmarks.plan import BenchOptions, Progress, Target
from pcaseg.benchmarks.rows import Point
from pcaseg.benchmarks.timed_calls import ImageCall, NetworkCall, TimedCall, network_batches, output_of
from pcaseg.class_lists import first_names
from pcaseg.class_syntax import ClassTree
from pcaseg.configs import Strategy
from pcaseg.errors import PcasegError, first_line
from pcaseg.evaluation.accuracy import Accuracy, Output, compare
from pcaseg.evaluation.agreement import timed
from pcaseg.evaluation.labelled import labelled_miou
from pcaseg.evaluation.reference import EagerRun
from pcaseg.images import read_image
from pcaseg.runtime.segmenter import Segmenter

TIMING_STEPS = 10
"""Steps of the progress bar, while calls take turns."""

FAILURES = (PcasegError, RuntimeError, MemoryError)
"""Errors of a backend that cannot do what it is asked to; torch's and ONNX Runtime's errors are RuntimeErrors."""


@dataclass
class Measured:
    """Results of one backend at one point."""

    runs: str
    accuracy: Accuracy | None = None
    failure: str = ""
    engine: list[timing.Round] = field(default_factory=list)
    end_to_end: list[timing.Round] = field(default_factory=list)
    stages_ms: dict[str, float] = field(default_factory=dict)
    energy_j: float | None = None


class Mious:
    """Mean intersection over union with the labelled set, in percent, each computed once."""

    def __init__(self, target: Target, options: BenchOptions) -> None:
        self._target, self._labelled = target, options.labelled
        self._known: dict[tuple[str, Strategy], float] = {}

    def __call__(self, implementation: Implementation | None, strategy: Strategy) -> float | None:
        """mIoU of an implementation, or of the eager reference; None without a labelled set."""
        if self._labelled is None:
            return None
        key = (implementation.runs if implementation else "", strategy)
        if key not in self._known:
            labelled = self._labelled
            segment: EagerRun | Segmenter
            if implementation is None:
                segment = EagerRun(self._target.model, labelled.names, strategy)
            else:
                segment = Segmenter(implementation.backend, strategy=strategy)
                segment.set_vocabulary(ClassTree.plain(labelled.names))
            self._known[key] = labelled_miou(lambda image: segment(image).labels, labelled)
        return self._known[key]


class PointMeasurement:
    """One point."""

    def __init__(self, target: Target, options: BenchOptions, point: Point, mious: Mious, progress: Progress) -> None:
        self.target, self.options, self.point = target, options, point
        self._mious, self._progress = mious, progress
        self._names = first_names(point.classes)

    def run(self, implementations: Mapping[str, Implementation]) -> dict[str, Measured]:
        """Measures all; a backend that fails is left out of the timing and says why."""
        point = self.point
        measured = {name: Measured(implementation.runs) for name, implementation in implementations.items()}
        self._progress.step(f"{point.classes} classes: the reference")
        reference = self._reference()
        calls: dict[str, TimedCall] = {}
        expected: dict[str, float] = {}
        for name, implementation in implementations.items():
            self._progress.step(f"{point.classes} classes: {name}")
            try:
                call = self._call_of(implementation)
                first_s, output = timed(call.first)
                measured[name].accuracy = self._accuracy(implementation, output, reference)
                expected[name] = timing.warm_up(call, 1e3 * first_s, self._timer(call))[-1]
            except FAILURES as error:
                measured[name].failure = first_line(error) or type(error).__name__
                continue
            calls[name], measured[name].runs = call, call.runs
        if calls:
            self._time(calls, expected, measured)
        logits = self.target.bundle(point.precision).manifest.graph == "logits"
        if self.options.device == "cuda" and point.images == 1 and logits:
            self._time_engines({name: implementations[name] for name in calls}, measured)
        return measured

    def _reference(self) -> Output:
        """The eager model's result of the first call's input: an image, or the network inputs of several."""
        point, images = self.point, self.target.images
        eager = EagerRun(self.target.model, self._names, point.strategy)
        if point.images == 1:
            return eager(read_image(images[0]))
        return output_of(eager.logits(self._batches[0]))

    @cached_property
    def _batches(self) -> list[np.ndarray]:
        """Inputs that all calls of the engine alone share."""
        manifest = self.target.bundle(self.point.precision).manifest
        return network_batches(manifest, self.point.strategy, self.target.images, self.point.images)

    def _accuracy(self, implementation: Implementation, output: Output, reference: Output) -> Accuracy:
        strategy = self.point.strategy
        miou, of_reference = self._mious(implementation, strategy), self._mious(None, strategy)
        return compare(output, reference, self._names, miou=miou, reference_miou=of_reference)

    def _call_of(self, implementation: Implementation) -> TimedCall:
        point, images = self.point, self.target.images
        if point.images > 1:
            return NetworkCall(implementation, self._names, self._batches, streams=point.streams)
        return ImageCall(implementation, self._names, point.strategy, images, watch=point.streams == 1)

    def _timer(self, call: TimedCall) -> timing.Timer:
        """Events where only the GPU works; a whole image ends in host memory."""
        return timing.unless_own(timer_of(self.options.device)) if isinstance(call, NetworkCall) else timing.perf_timer

    def _time(
        self,
        calls: Mapping[str, TimedCall],
        expected: Mapping[str, float],
        measured: Mapping[str, Measured],
    ) -> None:
        """Takes turns, and sorts what was measured."""
        for call in calls.values():
            if isinstance(call, ImageCall):
                call.forget()
        rounds = self._take_turns(calls, expected)
        for name, call in calls.items():
            if isinstance(call, ImageCall):
                measured[name].end_to_end = rounds[name]
                measured[name].engine = timing.regrouped(rounds[name], call.engine_ms)
                measured[name].stages_ms = call.stages_ms()
            elif isinstance(call, NetworkCall):
                measured[name].engine = rounds[name]
                energy_j = energy_of(lambda: call(0), self.options.device)  # noqa: B023 - called at once
                measured[name].energy_j = energy_j and energy_j / call.executions

    def _time_engines(self, implementations: Mapping[str, Implementation], measured: Mapping[str, Measured]) -> None:
        """On a GPU the engine is timed alone, on inputs that lie there."""
        streams = self.point.streams
        calls = {
            name: NetworkCall(one, self._names, self._batches, streams=streams) for name, one in implementations.items()
        }
        expected = {name: timing.warm_up(call, 0.0, self._timer(call))[-1] for name, call in calls.items()}
        self._time(calls, expected, measured)
        for name, call in calls.items():
            measured[name].runs = call.runs

    def _take_turns(
        self, calls: Mapping[str, TimedCall], expected: Mapping[str, float]
    ) -> dict[str, list[timing.Round]]:
        with self._progress.part(f"{self.point.classes} classes: taking turns", TIMING_STEPS) as done:
            return timing.interleave(
                calls,
                expected,
                seconds=self.options.seconds,
                streams=self.point.streams,
                timer=self._timer(next(iter(calls.values()))),
                progress=done,
            )


def steps_of(names: Sequence[str]) -> int:
    """Steps of the progress bar for one point."""
    return 1 + len(names) + TIMING_STEPS
