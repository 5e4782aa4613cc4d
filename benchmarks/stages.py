"""Time of a call by parts of the model, found by wrapping their methods while a measurement runs.

A stage's time is its own: that of stages within it is theirs. On a GPU every boundary waits for the device, so stages
are then timed in a pass of their own; on a CPU the wrapping costs microseconds and they come from the timed calls.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from torch import nn

from pcaseg.deploy.aggregator import FoldedAggregator
from pcaseg.deploy.folded import FoldedPCASeg
from pcaseg.export.torch_backend import TorchBackend
from pcaseg.model.aggregator import ParallelLayer
from pcaseg.model.network import PCASeg

STAGES = (
    "decode",
    "preprocess",
    "copy in",
    "encoder",
    "cost volume",
    "guidance",
    "spatial stream",
    "semantic stream",
    "EPL",
    "decoder",
    "engine",
    "copy out",
    "label map",
)
"""In the order in which they run; `engine` is what a graph does not divide."""

StageMethod = tuple[Any, str, str]
"""An object, one of its methods, and the stage that the method is."""


class StageClock:
    """Own milliseconds by stage, summed over the calls since the last `take`."""

    def __init__(self, synchronise: Callable[[], object] = lambda: None) -> None:
        self._synchronise = synchronise
        self._ms: defaultdict[str, float] = defaultdict(float)
        self._within: list[float] = []

    def watching(self, methods: list[StageMethod]) -> AbstractContextManager[None]:
        """Times those methods within a block."""
        return _replaced(methods, self._timed)

    def take(self) -> dict[str, float]:
        """Returns what has been summed, and begins anew."""
        taken = {stage: self._ms[stage] for stage in STAGES if stage in self._ms}
        self._ms.clear()
        return taken

    def _timed(self, method: Callable[..., Any], stage: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            self._within.append(0.0)
            self._synchronise()
            start = time.perf_counter()
            try:
                return method(*args, **kwargs)
            finally:
                self._synchronise()
                total = (time.perf_counter() - start) * 1e3
                self._ms[stage] += total - self._within.pop()
                if self._within:
                    self._within[-1] += total

        return call


def first_calls(methods: list[StageMethod], run: Callable[[], object]) -> dict[str, Callable[[], Any]]:
    """First calls of a run at each stage, with their arguments, to be called alone: all of the stage that is within."""
    calls: dict[str, Callable[[], Any]] = {}

    def kept(method: Callable[..., Any], stage: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            calls.setdefault(stage, lambda: method(*args, **kwargs))
            return method(*args, **kwargs)

        return call

    with _replaced(methods, kept):
        run()
    return calls


@contextmanager
def _replaced(
    methods: list[StageMethod], wrap: Callable[[Callable[..., Any], str], Callable[..., Any]]
) -> Iterator[None]:
    """Wraps the methods, and in the end gives each object its own back."""
    for owner, method, stage in methods:
        setattr(owner, method, wrap(getattr(owner, method), stage))
    try:
        yield
    finally:
        for owner, method, _ in methods:
            delattr(owner, method)  # the class's method shows again


def stage_methods(backend: object) -> list[StageMethod]:
    """Stages that can be told apart within a backend: nothing but the engine where it runs a graph."""
    model = getattr(backend, "model", None)
    if not isinstance(backend, TorchBackend) or not isinstance(model, (PCASeg, FoldedPCASeg)):
        return []
    aggregator = model.aggregator
    methods: list[StageMethod] = [
        (backend, "upload", "copy in"),
        (backend, "network", "engine"),
        (backend, "kept_network", "engine"),
        (backend, "download", "copy out"),
        (model, "encode_image", "encoder"),
        (aggregator, "forward", "cost volume"),
        (aggregator, "aggregate_kept", "cost volume"),
        (aggregator, "aggregate", "guidance"),
        (aggregator, "embed", "cost volume"),
        (aggregator.decoder, "forward", "decoder"),
    ]
    return methods + (
        _folded_methods(aggregator) if isinstance(aggregator, FoldedAggregator) else _eager_methods(aggregator)
    )


def _eager_methods(aggregator: nn.Module) -> list[StageMethod]:
    methods: list[StageMethod] = []
    for layer in aggregator.layers:  # type: ignore[union-attr]
        halves = ("_first", "_second") if isinstance(layer, ParallelLayer) else ("",)
        for half in halves:
            methods += [
                (getattr(layer, f"spatial{half}"), "forward", "spatial stream"),
                (getattr(layer, f"semantic{half}"), "forward", "semantic stream"),
            ]
            if half:
                methods.append((getattr(layer, f"epl{half}"), "forward", "EPL"))
    return methods


def _folded_methods(aggregator: FoldedAggregator) -> list[StageMethod]:
    methods: list[StageMethod] = []
    for step in aggregator.steps:
        methods += [
            (step.spatial, "forward", "spatial stream"),
            (step.semantic, "forward", "semantic stream"),
            (step.semantic, "sums", "semantic stream"),
            (step.semantic, "attend", "semantic stream"),
        ]
        if hasattr(step, "epl"):
            methods.append((step.epl, "forward", "EPL"))
    return methods
