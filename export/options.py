"""Options of `pcaseg export`, checked before a model is loaded for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from pcaseg.configs import (
    LARGEST_SIDE_PX,
    OPSET,
    OPSETS,
    GraphKind,
    LayerNormForm,
    Precision,
    Strategy,
    check_choice,
    most_kept,
)
from pcaseg.errors import PcasegError

PluginGraph = Literal["without", "with"]


@dataclass(frozen=True)
class ExportOptions:
    """Options of a segmenter graph; what it computes is the same up to rounding.

    Attributes:
        graph: `logits` of windows, for any strategy, or `labels` of whole images, all steps in the graph.
        strategy: what a label graph holds, None for `single`; not for logits.
        image_size: (height, width) in pixels that a label graph is fixed to; None for any; not for logits.
        precision: of weights and tensors; inputs and outputs are float32 in either, and so are the regions of
            `pcaseg.export.translations`.
        opset: one of `OPSETS`.
        layer_norm: `operator`, or `decomposed` for parsers that lack LayerNormalization.
        shortlist: classes of each window that are aggregated at most, 1 to 256; the graph then has maps of these alone.
            None for the published 256, with a map for every class.
        plugins: `with` writes, beside it, a graph in which the kernels are nodes for TensorRT's plugins.

    Raises:
        PcasegError: an unknown choice, a strategy or a size for a graph of logits, plugins for one of labels, or a side
            or a shortlist out of range.
    """

    graph: GraphKind = "logits"
    strategy: Strategy | None = None
    image_size: tuple[int, int] | None = None
    precision: Precision = "float32"
    opset: int = OPSET
    layer_norm: LayerNormForm = "operator"
    shortlist: int | None = None
    plugins: PluginGraph = "without"

    def __post_init__(self) -> None:
        check_choice(self.graph, GraphKind, what="graph")
        check_choice(self.precision, Precision, what="precision")
        check_choice(self.layer_norm, LayerNormForm, what="layer_norm")
        check_choice(self.plugins, PluginGraph, what="plugins")
        if self.plugins == "with" and self.graph != "logits":
            raise PcasegError(f"plugins: a graph of {self.graph} is written without them; export logits")
        most_kept(self.shortlist)
        if self.opset not in OPSETS:
            raise PcasegError(f"opset={self.opset}: choose one from {OPSETS[0]} to {OPSETS[-1]}")
        if self.graph == "labels":
            self._check_labels()
        elif self.strategy is not None:
            raise PcasegError(f"strategy={self.strategy!r}: a graph of logits runs any; leave it out or ask for labels")
        elif self.image_size is not None:
            raise PcasegError(
                f"image_size={self.image_size}: a graph of logits takes any; leave it out or ask for labels"
            )

    def _check_labels(self) -> None:
        if self.strategy is None:
            object.__setattr__(self, "strategy", "single")
        check_choice(self.strategy or "", Strategy, what="strategy")
        if self.image_size is not None and not all(1 <= side <= LARGEST_SIDE_PX for side in self.image_size):
            raise PcasegError(
                f"image_size={self.image_size}: give a height and a width from 1 to {LARGEST_SIDE_PX} pixels"
            )

    @property
    def dtype(self) -> torch.dtype:
        """The type of the folded model's weights."""
        return torch.float32 if self.precision == "float32" else torch.float16


DEFAULTS = ExportOptions()
