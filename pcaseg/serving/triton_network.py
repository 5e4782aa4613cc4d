"""A backend whose network is another model of the same Triton Inference Server; names are embedded here, on the CPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from pcaseg.runtime.bundle import Bundle
from pcaseg.runtime.onnxruntime_backend import OnnxRuntimeBackend

Ask = Callable[[Sequence[str], Mapping[str, np.ndarray]], list[np.ndarray]]
"""Names of outputs, and inputs by name, to the outputs."""


class TritonNetwork(OnnxRuntimeBackend):
    """A `Backend` that asks a model for what the bundle's segmenter gives; the bundle may lack the segmenter."""

    def __init__(self, bundle: Bundle, ask: Ask, *, threads: int | None = None) -> None:
        """Keeps how to ask.

        Args:
            bundle: with text encoder and tokenizer.
            ask: runs the segmenter's graph.
            threads: CPU threads of the text encoder.
        """
        self._ask = ask
        super().__init__(bundle, threads=threads)

    @property
    def name(self) -> str:
        """`triton`: the server, whose configuration says what runs the network."""
        return "triton"

    def _load_segmenter(self) -> None:
        """Nothing: the server has it."""

    def _segment(self, outputs: tuple[str, ...], images: np.ndarray, text: np.ndarray) -> list[np.ndarray]:
        return self._ask(outputs, {"image": images, "text": text})
