"""Options and targets of `pcaseg bench`."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from pcaseg.benchmarks.implementations import IMPLEMENTATIONS, NOT_BY_DEFAULT, check_names
from pcaseg.configs import Strategy
from pcaseg.data.folders import LabelledFolder
from pcaseg.model.network import PCASeg
from pcaseg.runtime.bundle import Bundle


@dataclass(frozen=True)
class BenchOptions:
    """Options of a run; every combination of the sequences is a point.

    Attributes:
        classes: sizes of the vocabularies.
        images: of one call.
        strategies: `single`, `sliding`.
        precisions: of bundles and of the folded model.
        threads: of one call; empty for all processors that this process may use.
        streams: calls at the same time.
        backends: names of `IMPLEMENTATIONS`; None for all but those of `NOT_BY_DEFAULT`.
        device: `cpu` or `cuda`.
        seconds: of taking turns, for each point.
        gate: thresholds that replace the defaults.
        labelled: labelled images for mIoU.
        cold: whether to measure cold starts, at the first point of each precision and thread count.

    Raises:
        PcasegError: an unknown backend.
    """

    classes: tuple[int, ...] = (20,)
    images: tuple[int, ...] = (1,)
    strategies: tuple[Strategy, ...] = ("single",)
    precisions: tuple[str, ...] = ("float32",)
    threads: tuple[int, ...] = ()
    streams: tuple[int, ...] = (1,)
    backends: tuple[str, ...] | None = None
    device: str = "cpu"
    seconds: float = 30.0
    gate: Mapping[str, float] = field(default_factory=dict)
    labelled: LabelledFolder | None = None
    cold: bool = True

    def __post_init__(self) -> None:
        check_names(self.backends or ())

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all backends that rows are about, skipped ones too."""
        return self.backends or tuple(IMPLEMENTATIONS)

    @property
    def thread_counts(self) -> tuple[int, ...]:
        """`threads`, or the number of processors at hand."""
        if self.threads:
            return self.threads
        return (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,)

    def why_not(self, name: str) -> str:
        """Why a backend is left out by default; empty where it is not."""
        return NOT_BY_DEFAULT.get(name, "") if self.backends is None else ""


@dataclass(frozen=True)
class Target:
    """A model, its bundles and images to measure.

    Attributes:
        model: the eager float32 model.
        bundles: of the same model, by precision.
        images: image files of one size.
        model_path: the model's file, for processes of their own; empty for the bundles' source.
    """

    model: PCASeg
    bundles: Mapping[str, Bundle]
    images: Sequence[Path]
    model_path: str = ""

    def bundle(self, precision: str) -> Bundle:
        """The bundle of a precision, or where there is none any, which then says so itself."""
        return self.bundles.get(precision) or next(iter(self.bundles.values()))


class Progress:
    """A progress bar of named steps."""

    def __init__(self, bar: tqdm) -> None:
        self._bar = bar

    def step(self, what: str) -> None:
        """Begins a step; the one before is done."""
        self._bar.set_postfix_str(what)
        self._bar.update()

    @contextmanager
    def part(self, what: str, steps: int) -> Iterator[_Part]:
        """A part of several steps, whose share that is done is told to what this yields."""
        self._bar.set_postfix_str(what)
        part = _Part(self._bar, steps)
        yield part
        part(1.0)


class _Part:
    def __init__(self, bar: tqdm, steps: int) -> None:
        self._bar, self._steps, self._done = bar, steps, 0

    def __call__(self, share: float) -> None:
        new = int(share * self._steps) - self._done
        if new > 0:
            self._bar.update(new)
            self._done += new
