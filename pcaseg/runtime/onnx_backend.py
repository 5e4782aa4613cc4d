"""Ground of the backends that run a bundle's ONNX files as they are: names, tokenizer, checks of what comes back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property

import numpy as np

from pcaseg.errors import BundleError, PcasegError
from pcaseg.runtime.bundle import SEGMENTER_NAME, Bundle
from pcaseg.runtime.manifest import Manifest
from pcaseg.runtime.shortlist import all_logits, check_kept
from pcaseg.runtime.text import embed_names, embed_prompts, open_tokenizer
from pcaseg.runtime.tokenizer import Tokenizer

MOST_THREADS = 1024
"""CPU threads of a backend; inference libraries start what they are asked for, and fall over millions."""

_TEXT_BATCH = 64  # prompts at a time: the encoder's intermediates then stay near 100 MiB


class OnnxBackend(ABC):
    """A `Backend` over a bundle's ONNX files.

    The text encoder and the tokenizer are read at the first `encode_text`: a robot that only uses vocabulary files
    never loads them.
    """

    def __init__(self, bundle: Bundle, *, threads: int | None) -> None:
        """Keeps what all share.

        Raises:
            PcasegError: a thread count below 1 or beyond `MOST_THREADS`.
        """
        if threads is not None and (not isinstance(threads, int) or not 1 <= threads <= MOST_THREADS):
            raise PcasegError(f"threads={threads}: give 1 to {MOST_THREADS}")
        self._bundle, self._threads = bundle, threads

    @property
    @abstractmethod
    def name(self) -> str:
        """Name of what really runs."""

    @abstractmethod
    def _segment(self, outputs: tuple[str, ...], images: np.ndarray, text: np.ndarray) -> list[np.ndarray]:
        """Outputs of the segmenter, by name."""

    @abstractmethod
    def _encode(self, tokens: np.ndarray) -> np.ndarray:
        """Tokens `(t, 77)` int64 to embeddings `(t, D)`."""

    @property
    def manifest(self) -> Manifest:
        """The bundle's manifest."""
        return self._bundle.manifest

    def encode_text(self, names: Sequence[str]) -> np.ndarray:
        """Embeds class names, each in the bundle's prompt.

        Returns:
            `(T, D)` float32, unit norm.

        Raises:
            BundleError: the text encoder or the tokenizer is missing or not usable.
            MissingDependencyError: a name needs ftfy, which is not installed.
        """
        return embed_names(self._bundle, self._tokenizer, names, self._encode, most=_TEXT_BATCH)

    def encode_prompts(self, prompts: Sequence[str]) -> np.ndarray:
        """Embeds whole prompts, see `pcaseg.runtime.backends.PromptBackend`; errors as of `encode_text`."""
        return embed_prompts(self._bundle, self._tokenizer, prompts, self._encode, most=_TEXT_BATCH)

    def logits(self, images: np.ndarray, text: np.ndarray) -> np.ndarray:
        """Segments windows.

        Args:
            images: `(N, 3, R, R)` float32, RGB 0..255.
            text: `(T, D)` float32, unit norm.

        Returns:
            `(N, T, h, w)` float32.

        Raises:
            PcasegError: the bundle's graph ends in labels.
            BundleError: the graph returns another number of windows or classes.
        """
        if self.manifest.shortlist is not None:
            return all_logits(*self.kept_logits(images, text), len(text))
        (logits,) = self._outputs(("logits",), images, text)
        if logits.ndim != 4 or logits.shape[:2] != (len(images), len(text)):
            raise BundleError(
                f"{SEGMENTER_NAME} returned {logits.shape} for {len(images)} windows and {len(text)} classes; "
                "export the bundle anew"
            )
        return logits

    def kept_logits(self, images: np.ndarray, text: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Segments windows through a graph with a shortlist; see `ShortlistBackend.kept_logits`.

        Raises:
            PcasegError: the bundle's graph ends in something else.
            BundleError: the graph returns other sizes, or indices of no class.
        """
        logits, classes = self._outputs(("logits", "classes"), images, text)
        check_kept(logits, classes, windows=len(images), classes_of=len(text), shortlist=self.manifest.shortlist)
        return logits, classes

    def labels(self, images: np.ndarray, text: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Segments whole images.

        Args:
            images: `(N, H, W, 3)` uint8 RGB.
            text: `(T, D)` float32, unit norm.

        Returns:
            labels `(N, H, W)` int32 and confidence `(N, H, W)` float32.

        Raises:
            PcasegError: the bundle's graph ends in logits.
            BundleError: the graph returns other sizes than the images'.
        """
        labels, confidence = self._outputs(("labels", "confidence"), images, text)
        if not labels.shape == confidence.shape == images.shape[:3]:
            raise BundleError(
                f"{SEGMENTER_NAME} returned {labels.shape} and {confidence.shape} for images of {images.shape[:3]}; "
                "export the bundle anew"
            )
        return labels, confidence

    def _outputs(self, outputs: tuple[str, ...], images: np.ndarray, text: np.ndarray) -> list[np.ndarray]:
        self._bundle.check_outputs(outputs)
        return self._segment(outputs, images, text)

    def _check_sizes(self, shapes: dict[str, list[object]]) -> None:
        """The manifest's sizes against the graph's: otherwise a wrong manifest fails deep within the library.

        Args:
            shapes: of the inputs `image` and `text`; a size that is free has any value but a number.
        """
        manifest = self.manifest
        side, width = manifest.image.size_px, manifest.text.embed_dim
        image = [3, side, side] if manifest.graph == "logits" else [*(manifest.image_size or ("H", "W")), 3]
        for name, wanted in (("image", image), ("text", [width])):
            if shapes[name][1:] != wanted:
                raise BundleError(
                    f"{self._bundle.path / SEGMENTER_NAME}: {name} has the shape {shapes[name]}, but the manifest says "
                    f"{wanted} behind the first axis; export the bundle anew"
                )

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        return open_tokenizer(self._bundle)
