"""One backend at one point: what is called again and again, and what its first call gave."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from pcaseg.benchmarks.device import captured, rotation
from pcaseg.benchmarks.implementations import FoldedBackend, Implementation
from pcaseg.benchmarks.stages import STAGES, StageClock, stage_methods
from pcaseg.benchmarks.timing import OwnTime
from pcaseg.configs import Strategy
from pcaseg.errors import first_line
from pcaseg.evaluation.accuracy import Output
from pcaseg.evaluation.reference import RecordingBackend
from pcaseg.export.torch_backend import TorchBackend
from pcaseg.images import read_image
from pcaseg.runtime.manifest import Manifest
from pcaseg.runtime.segmenter import Segmenter
from pcaseg.runtime.tensorrt_backend import TensorRTBackend
from pcaseg.runtime.windows import prepare_windows, sigmoid

_LAPS = {"read": "decode", "prepare": "preprocess", "network": "engine", "labels": "label map"}
"""The runtime's stages by the benchmark's names."""


class TimedCall(Protocol):
    """One implementation at one point, as the benchmark drives it."""

    runs: str
    """Text that says what really runs."""

    def first(self) -> Output:
        """The first call, with its result."""
        ...

    def __call__(self, index: int) -> object:
        """One call; inputs take turns by `index`."""
        ...


class ImageCall:
    """From an image file to its label map, by the runtime's `Segmenter`.

    Attributes:
        engine_ms: of each call, the part between network inputs and logits.
        stages: of each call, by the names of `pcaseg.benchmarks.stages.STAGES`.
    """

    def __init__(
        self,
        implementation: Implementation,
        names: Sequence[str],
        strategy: Strategy,
        images: Sequence[Path],
        *,
        watch: bool,
    ) -> None:
        """Opens what runs.

        Args:
            implementation: what runs.
            names: the vocabulary.
            images: files, all of one size; they take turns.
            watch: whether to time the parts of the model within its calls.
        """
        self.runs, self.images = implementation.runs, list(images)
        self._recorder = RecordingBackend(implementation.backend)
        self._segmenter = Segmenter(self._recorder, strategy=strategy)
        self._segmenter.set_vocabulary(names)
        self._methods = stage_methods(implementation.backend) if watch else []
        self.engine_ms: list[float] = []
        self.stages: list[dict[str, float]] = []

    def first(self) -> Output:
        """As `TimedCall.first`, of the first image."""
        return self._recorder.output(self._segmenter(self.images[0]))

    def __call__(self, index: int) -> None:
        """As `TimedCall.__call__`."""
        clock = StageClock()
        with clock.watching(self._methods) if self._methods else nullcontext():
            result = self._segmenter(self.images[index % len(self.images)])
        laps = {_LAPS[lap]: ms for lap, ms in result.timings_ms.items() if lap in _LAPS}
        inner = clock.take()
        self.engine_ms.append(laps["engine"])
        rest = laps["engine"] - sum(inner.values())
        stages = laps | inner | {"engine": inner.get("engine", 0.0) + rest}
        self.stages.append(stages)

    def forget(self) -> None:
        """Drops what the warm-up left."""
        self.engine_ms.clear()
        self.stages.clear()

    def stages_ms(self) -> dict[str, float]:
        """Medians by stage, in the order of `STAGES`."""
        found = [stage for stage in STAGES if self.stages and stage in self.stages[0]]
        return {stage: float(f"{statistics.median(call[stage] for call in self.stages):.5g}") for stage in found}


class NetworkCall:
    """From network inputs to logits, several images at a time.

    On a GPU PyTorch's inputs lie there already and the call is the replay of a CUDA graph where it can be captured;
    ONNX Runtime takes and gives host memory. TensorRT's inputs are copied in and run once, then the engine alone runs
    again between events; where several calls run at the same time it takes and gives host memory.

    Attributes:
        executions: of the network in one call.
    """

    def __init__(
        self, implementation: Implementation, names: Sequence[str], batches: Sequence[np.ndarray], *, streams: int = 1
    ) -> None:
        """Opens what runs for such batches, of `network_batches`, which take turns, and so many calls at a time."""
        backend = implementation.backend
        self._alone = backend if isinstance(backend, TensorRTBackend) and streams == 1 else None
        self.executions = 1 if self._alone is None else 2
        self.runs = implementation.runs
        self._backend, self._text = backend, backend.encode_text(names)
        self._batches = batches
        self._device_call: Callable[[int], object] | None = None
        if isinstance(backend, TorchBackend) and backend.name == "torch-cuda":
            self._device_call, how = _on_device(backend, self._batches, self._text)
            self.runs = f"{self.runs}, {how}"

    def first(self) -> Output:
        """As `TimedCall.first`."""
        return output_of(self._backend.logits(self._batches[0], self._text))

    def __call__(self, index: int) -> object:
        """As `TimedCall.__call__`."""
        if self._alone is not None:
            batch = self._batches[index % len(self._batches)]
            return OwnTime(*self._alone.engine_times_ms(batch, self._text, calls=1))
        if self._device_call is not None:
            return self._device_call(index)
        return self._backend.logits(self._batches[index % len(self._batches)], self._text)


def output_of(logits: np.ndarray) -> Output:
    """Logits (N, T, h, w) as an output: labels are those of logit pixels, all windows below each other."""
    side = logits.shape[-1]
    labels, best = logits.argmax(axis=1).reshape(-1, side), logits.max(axis=1).reshape(-1, side)
    return Output(labels, sigmoid(best), logits)


def network_batches(manifest: Manifest, strategy: Strategy, images: Sequence[Path], count: int) -> list[np.ndarray]:
    """Network inputs (N, 3, R, R) float32 of `count` images each, as many as it takes to be beyond the caches.

    They are photographs, shifted so that no two batches are alike.
    """
    pixels = [read_image(path) for path in images]

    def batch(number: int) -> np.ndarray:
        shifted = (np.roll(pixels[i % len(pixels)], i, axis=1) for i in range(number * count, (number + 1) * count))
        px, sliding = manifest.image.size_px, manifest.sliding
        return np.concatenate([prepare_windows(image, strategy, image_px=px, sliding=sliding) for image in shifted])

    first = batch(0)
    return [first, *(batch(number) for number in range(1, rotation(first.nbytes)))]


@torch.no_grad()
def _on_device(
    backend: TorchBackend, batches: Sequence[np.ndarray], text: np.ndarray
) -> tuple[Callable[[int], object], str]:
    """A call on resident tensors, and how it runs."""
    inputs, words = [backend.upload(batch) for batch in batches], backend.upload(text)[:, None]
    if isinstance(backend, FoldedBackend):
        backend.network(inputs[0], words)  # prepares the vocabulary
    fixed = inputs[0].clone()
    try:
        replay = captured(lambda: backend.network(fixed, words))
    except RuntimeError as error:
        reason = first_line(error)

        def plain(index: int) -> object:
            with torch.no_grad():
                return backend.network(inputs[index % len(inputs)], words)

        return plain, f"no CUDA graph ({reason})"

    def replayed(index: int) -> object:
        fixed.copy_(inputs[index % len(inputs)])
        return replay()

    return replayed, "CUDA graph"
