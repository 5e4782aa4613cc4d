"""All backends at one point: first whether right, then, taking turns, how fast."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from pcaseg.benchmarks import timing
from pcaseg.benchmarks.accuracy import Output, compare
from pcaseg.benchmarks.check import timed
from pcaseg.benchmarks.contenders import Contender
from pcaseg.benchmarks.device import energy_of, timer_of
from pcaseg.benchmarks.labelled import labelled_miou
from pcaseg.benchmarks.lanes import ImageLane, Lane, WindowLane, network_batches, output_of
from pcaseg.benchmarks.plan import Options, Progress, Subject
from pcaseg.benchmarks.reference import EagerRun
from pcaseg.benchmarks.rows import Accuracy, Point
from pcaseg.benchmarks.vocabulary import first_names
from pcaseg.configs import Strategy
from pcaseg.errors import PcasegError
from pcaseg.images import read_image
from pcaseg.runtime.segmenter import Segmenter

TIMING_STEPS = 10
"""Of the progress bar, while calls take turns."""

FAILURES = (PcasegError, RuntimeError, MemoryError)
"""What a backend may raise that cannot do what it is asked to; torch's and ONNX Runtime's errors are RuntimeErrors."""


@dataclass
class Measured:
    """What is known of one backend at one point."""

    runs: str
    accuracy: Accuracy | None = None
    failure: str = ""
    engine: list[timing.Round] = field(default_factory=list)
    end_to_end: list[timing.Round] = field(default_factory=list)
    stages_ms: dict[str, float] = field(default_factory=dict)
    energy_j: float | None = None


class Mious:
    """Mean intersection over union with the labelled set, in percent, each computed once."""

    def __init__(self, subject: Subject, options: Options) -> None:
        self._subject, self._labelled = subject, options.labelled
        self._known: dict[tuple[str, Strategy], float] = {}

    def __call__(self, contender: Contender | None, strategy: Strategy) -> float | None:
        """Of a contender, or of the eager reference; None without a labelled set."""
        if self._labelled is None:
            return None
        key = (contender.runs if contender else "", strategy)
        if key not in self._known:
            labelled = self._labelled
            segment: EagerRun | Segmenter
            if contender is None:
                segment = EagerRun(self._subject.model, labelled.names, strategy)
            else:
                segment = Segmenter(contender.backend, strategy=strategy)
                segment.set_vocabulary(labelled.names)
            self._known[key] = labelled_miou(lambda image: segment(image).labels, labelled)
        return self._known[key]


class Comparison:
    """One point."""

    def __init__(self, subject: Subject, options: Options, point: Point, mious: Mious, progress: Progress) -> None:
        self.subject, self.options, self.point = subject, options, point
        self._mious, self._progress = mious, progress
        self._names = first_names(point.classes)

    def run(self, contenders: Mapping[str, Contender]) -> dict[str, Measured]:
        """Measures all; a backend that fails is left out of the timing and says why."""
        point = self.point
        measured = {name: Measured(contender.runs) for name, contender in contenders.items()}
        self._progress.step(f"{point.classes} classes: the reference")
        reference = self._reference()
        lanes: dict[str, Lane] = {}
        expected: dict[str, float] = {}
        for name, contender in contenders.items():
            self._progress.step(f"{point.classes} classes: {name}")
            try:
                lane = self._lane(contender)
                first_s, output = timed(lane.first)
                measured[name].accuracy = self._accuracy(contender, output, reference)
                expected[name] = timing.warm_up(lane, 1e3 * first_s, self._timer(lane))[-1]
            except FAILURES as error:
                measured[name].failure = str(error).partition("\n")[0] or type(error).__name__
                continue
            lanes[name], measured[name].runs = lane, lane.runs
        if lanes:
            self._time(lanes, expected, measured)
        logits = self.subject.bundle(point.precision).manifest.graph == "logits"
        if self.options.device == "cuda" and point.images == 1 and logits:
            self._time_engines({name: contenders[name] for name in lanes}, measured)
        return measured

    def _reference(self) -> Output:
        """The eager model's result of the first call's input: an image, or the network inputs of several."""
        point, images = self.point, self.subject.images
        eager = EagerRun(self.subject.model, self._names, point.strategy)
        if point.images == 1:
            return eager(read_image(images[0]))
        return output_of(eager.logits(self._batches[0]))

    @cached_property
    def _batches(self) -> list[np.ndarray]:
        """What all lanes of the engine alone run on."""
        manifest = self.subject.bundle(self.point.precision).manifest
        return network_batches(manifest, self.point.strategy, self.subject.images, self.point.images)

    def _accuracy(self, contender: Contender, output: Output, reference: Output) -> Accuracy:
        strategy = self.point.strategy
        miou, of_reference = self._mious(contender, strategy), self._mious(None, strategy)
        return compare(output, reference, self._names, miou=miou, reference_miou=of_reference)

    def _lane(self, contender: Contender) -> Lane:
        point, images = self.point, self.subject.images
        if point.images > 1:
            return WindowLane(contender, self._names, self._batches, streams=point.streams)
        return ImageLane(contender, self._names, point.strategy, images, watch=point.streams == 1)

    def _timer(self, lane: Lane) -> timing.Timer:
        """Events where only the GPU works; a whole image ends in host memory."""
        return timing.unless_own(timer_of(self.options.device)) if isinstance(lane, WindowLane) else timing.perf_timer

    def _time(
        self,
        lanes: Mapping[str, Lane],
        expected: Mapping[str, float],
        measured: Mapping[str, Measured],
    ) -> None:
        """Takes turns, and sorts what was measured."""
        for lane in lanes.values():
            if isinstance(lane, ImageLane):
                lane.forget()
        rounds = self._take_turns(lanes, expected)
        for name, lane in lanes.items():
            if isinstance(lane, ImageLane):
                measured[name].end_to_end = rounds[name]
                measured[name].engine = timing.regrouped(rounds[name], lane.engine_ms)
                measured[name].stages_ms = lane.stages_ms()
            elif isinstance(lane, WindowLane):
                measured[name].engine = rounds[name]
                energy_j = energy_of(lambda: lane(0), self.options.device)  # noqa: B023 - called at once
                measured[name].energy_j = energy_j and energy_j / lane.executions

    def _time_engines(self, contenders: Mapping[str, Contender], measured: Mapping[str, Measured]) -> None:
        """On a GPU the engine is timed alone, on inputs that lie there."""
        streams = self.point.streams
        lanes = {name: WindowLane(one, self._names, self._batches, streams=streams) for name, one in contenders.items()}
        expected = {name: timing.warm_up(lane, 0.0, self._timer(lane))[-1] for name, lane in lanes.items()}
        self._time(lanes, expected, measured)
        for name, lane in lanes.items():
            measured[name].runs = lane.runs

    def _take_turns(self, lanes: Mapping[str, Lane], expected: Mapping[str, float]) -> dict[str, list[timing.Round]]:
        with self._progress.part(f"{self.point.classes} classes: taking turns", TIMING_STEPS) as done:
            return timing.interleave(
                lanes,
                expected,
                seconds=self.options.seconds,
                streams=self.point.streams,
                timer=self._timer(next(iter(lanes.values()))),
                progress=done,
            )


def steps_of(names: Sequence[str]) -> int:
    """Steps of the progress bar for one point."""
    return 1 + len(names) + TIMING_STEPS
