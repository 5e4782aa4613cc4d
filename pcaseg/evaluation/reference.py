"""The eager float32 model from image to labels, and what any other backend gives for the same image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from pcaseg.configs import Strategy
from pcaseg.evaluation.accuracy import Output
from pcaseg.model.inference import image_tensor, segment_image
from pcaseg.model.network import PCASeg
from pcaseg.runtime.backends import Backend, ShortlistBackend
from pcaseg.runtime.result import Result
from pcaseg.runtime.shortlist import all_logits


class EagerRun:
    """The eager model with its own tokenizer, resizing and merging: none of the runtime's code."""

    def __init__(
        self, model: PCASeg, names: Sequence[str], strategy: Strategy, *, shortlist: int | None = None
    ) -> None:
        """Embeds the names; `shortlist` is that of what is held against it, None for the model's own."""
        self.model, self.strategy, self.shortlist = model, strategy, shortlist
        self.text = model.encode_text(names)
        self._logits: list[np.ndarray] = []

    @torch.no_grad()
    def __call__(self, image: np.ndarray) -> Output:
        """Segments (H, W, 3) uint8."""
        self._logits = []
        pixels = image_tensor(image).to(self.text)
        scores = segment_image(pixels, self._network, self.model.preset, self.strategy).cpu()
        return Output(scores.argmax(dim=0).numpy(), scores.amax(dim=0).numpy(), np.concatenate(self._logits))

    @torch.no_grad()
    def logits(self, windows: np.ndarray) -> np.ndarray:
        """Network inputs (N, 3, R, R) float32 in 0..255 -> (N, T, h, w), one after the other."""
        inputs = torch.tensor(windows).to(self.text)
        return np.concatenate(
            [self.model(one[None], self.text, shortlist=self.shortlist).cpu().numpy() for one in inputs]
        )

    def _network(self, windows: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.model(windows, self.text, shortlist=self.shortlist)
        self._logits.append(logits.cpu().numpy())
        return logits


class RecordingBackend:
    """A backend that keeps the logits it passes on, while `recorded` is a list."""

    def __init__(self, backend: Backend) -> None:
        self.backend, self.name, self.manifest = backend, backend.name, backend.manifest
        self.encode_text, self.labels = backend.encode_text, backend.labels
        self.recorded: list[np.ndarray] | None = []

    def logits(self, images: np.ndarray, text: np.ndarray) -> np.ndarray:
        """As `Backend.logits`."""
        logits = self.backend.logits(images, text)
        if self.recorded is not None:
            self.recorded.append(logits)
        return logits

    def kept_logits(self, images: np.ndarray, text: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """As `ShortlistBackend.kept_logits`; kept with -100 for the dropped classes."""
        assert isinstance(self.backend, ShortlistBackend)  # others have no manifest with a shortlist
        logits, classes = self.backend.kept_logits(images, text)
        if self.recorded is not None:
            self.recorded.append(all_logits(logits, classes, len(text)))
        return logits, classes

    def output(self, result: Result) -> Output:
        """A result with the logits behind it; from then on nothing is kept."""
        logits = np.concatenate(self.recorded) if self.recorded else None
        self.recorded = None
        return Output(result.labels, result.confidence, logits)
