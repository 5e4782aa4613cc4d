"""ONNX graphs for a camera: from uint8 images of any size to a label and a confidence per pixel, all in the graph.

The steps are those of `pcaseg.model.inference.segment_image`, for a batch of images that share a vocabulary.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import onnx
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pcaseg.configs import DROPPED_LOGIT, MOST_INDEXED, Preset, Sliding, Strategy
from pcaseg.export.graphs import Signature, export_graph, logit_module, text_spec
from pcaseg.export.options import ExportOptions
from pcaseg.model.cost_volume import take_classes
from pcaseg.runtime.manifest import TensorSpec

if TYPE_CHECKING:
    from pcaseg.model.network import PCASeg

PERMITTED_OPS = frozenset({"Resize"})
"""Of the forbidden operators: here pixels and scores are resized; position tables still never are."""


class LabelGraph(nn.Module):
    """Images and class embeddings in, labels and confidence out, for any number of either."""

    overlap: Tensor

    def __init__(self, logits: nn.Module, preset: Preset, *, strategy: Strategy, shortlist: int | None = None) -> None:
        """Wraps a logit graph.

        Args:
            logits: windows (N, 3, R, R) float in 0..255 and text -> (N, T, h, w); with a shortlist
                (N, min(T, K), h, w) and their classes (N, min(T, K)) int64.
            preset: gives R and the windows.
            strategy: `single` or `sliding`.
            shortlist: K; None where the logits are of all classes.
        """
        super().__init__()
        windows = 1 if strategy == "single" else len(preset.sliding.origins()) + 1
        self.shared = None if shortlist is None else SharedClasses(windows, shortlist)
        self.logits, self.strategy = logits, strategy
        self.input_px, self.sliding = preset.image_px, preset.sliding
        ones = torch.ones(len(self.sliding.origins()), self.sliding.window_px, self.sliding.window_px)
        self.register_buffer("overlap", join_windows(ones, self.sliding), persistent=False)

    def forward(self, image: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        """Labels a batch of images.

        Args:
            image: (N, H, W, 3) uint8 RGB.
            text: (T, D) float, unit norm.

        Returns:
            labels (N, H, W) int32, of equal scores the lowest; confidence (N, H, W) float in 0..1, their scores, or NaN
            throughout an image of which a logit is not finite.
        """
        pixels = image.to(text.dtype).permute(0, 3, 1, 2)
        logits, classes = self.logits(self._windows(pixels), text), None
        if self.shared is not None:
            logits, classes = self.shared(*logits, text)
        scores = resize(self._merge(logits), pixels.shape[-2:])
        unsound = self._by_window((logits - logits).sum(dim=(1, 2, 3))).sum(dim=0)  # 0, or NaN; a maximum may hide it
        labels = scores.argmax(dim=1)
        if classes is not None:
            labels = classes.gather(1, labels.flatten(1)).reshape(labels.shape)
        return labels.to(torch.int32), scores.amax(dim=1) + unsound[:, None, None]

    def _windows(self, pixels: Tensor) -> Tensor:
        """(N, 3, H, W) -> (windows * N, 3, R, R), the first window of every image first and the whole images last."""
        R = _square(self.input_px)
        if self.strategy == "single":
            return resize(pixels, R)
        side = self.sliding.window_px
        canvas = resize(pixels, _square(self.sliding.image_px))
        crops = [canvas[..., top : top + side, left : left + side] for top, left in self.sliding.origins()]
        return resize(torch.cat([*crops, resize(pixels, _square(side))]), R)

    def _merge(self, logits: Tensor) -> Tensor:
        """(windows * N, T, h, w) -> scores (N, T, s, s): h x w for `single`, the canvas for `sliding`."""
        if self.strategy == "single":
            return logits.sigmoid()
        parts = self._by_window(resize(logits, _square(self.sliding.window_px)).sigmoid())
        canvas = join_windows(parts[:-1], self.sliding) / self.overlap
        return (canvas + resize(parts[-1], _square(self.sliding.image_px))) / 2

    def _by_window(self, tensor: Tensor) -> Tensor:
        """(windows * N, ...) -> (windows, N, ...)."""
        windows = 1 if self.strategy == "single" else len(self.sliding.origins()) + 1
        return tensor.unflatten(0, (windows, -1))


class SharedClasses(nn.Module):
    """Logits of windows that kept different classes, on classes that all windows of an image share.

    `pcaseg.model.cost_volume.join_kept` for a batch, with shapes that follow T alone: the min(T, windows * K + 1)
    classes that most windows kept, so all that any did, and where there are others the first of them for all.
    """

    indices: Tensor

    def __init__(self, windows: int, shortlist: int) -> None:
        super().__init__()
        self.windows, self.most = windows, windows * shortlist + 1
        self.register_buffer("indices", torch.arange(MOST_INDEXED), persistent=False)

    def forward(self, logits: Tensor, classes: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        """Brings the windows of each image to shared classes.

        Args:
            logits: (windows * N, K, h, w) float.
            classes: (windows * N, K) int64, ascending.
            text: (T, D) or (T, P, D); at most 4,096 names.

        Returns:
            logits (windows * N, U, h, w), -100 where a window dropped the class; classes (N, U) int64, ascending.
        """
        T, K = text.shape[0], classes.shape[1]
        by_window = classes.unflatten(0, (self.windows, -1))
        votes = (by_window[..., None] == self.indices[:T]).to(torch.float32).sum(dim=(0, 2))
        order = votes.sort(dim=1, descending=True, stable=True).indices
        shared = order.narrow(1, 0, torch.sym_min(T, self.most)).sort(dim=1).values
        same = classes[:, None, :] == shared.repeat(self.windows, 1)[:, :, None]
        place = K + (same.to(torch.int64) * (self.indices[:K] - K)).sum(dim=2)  # K, which is dropped, where none is
        dropped = torch.full_like(logits[:, :1], DROPPED_LOGIT)
        return take_classes(torch.cat([logits, dropped], dim=1), place), shared


def join_windows(parts: Tensor, sliding: Sliding) -> Tensor:
    """The sum of all windows, each at its place on the canvas: (windows, ..., w, w) -> (..., S, S).

    Row by row and then the rows, by slices, which any parser takes, and not by writing in place, which exports as
    `ScatterND`.
    """
    starts = sorted({left for _, left in sliding.origins()})
    rows = [_overlap_add(row.unbind(), starts, dim=-1) for row in parts.unflatten(0, (len(starts), -1)).unbind()]
    return _overlap_add(rows, starts, dim=-2)


def _overlap_add(parts: Sequence[Tensor], starts: Sequence[int], *, dim: int) -> Tensor:
    """Parts of equal length that begin at `starts` of one axis: those that cover a stretch of it are added there."""
    length = parts[0].shape[dim]
    cuts = sorted({*starts, *(start + length for start in starts)})
    stretches = []
    for low, high in itertools.pairwise(cuts):
        first, *others = (
            part.narrow(dim, low - start, high - low)
            for part, start in zip(parts, starts, strict=True)
            if start <= low and high <= start + length
        )
        stretches.append(sum(others, start=first))
    return torch.cat(stretches, dim=dim)


def resize(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Bilinear, align_corners=False, no antialiasing: (N, C, H, W) -> (N, C, *size); nothing where that is its size."""
    known = all(type(length) is int for length in (*maps.shape[-2:], *size))  # while tracing, dynamic ones are not
    if known and tuple(maps.shape[-2:]) == tuple(size):
        return maps
    return F.interpolate(maps, size=tuple(size), mode="bilinear", align_corners=False, antialias=False)


def label_signature(preset: Preset, image_size: tuple[int, int] | None) -> Signature:
    """Signature of a label graph for images of (height, width) `image_size`, or of any size."""
    frame: tuple[int | str, ...] = ("N", *(image_size or ("H", "W")))
    return Signature(
        {"image": TensorSpec((*frame, 3), "uint8", "RGB images"), "text": text_spec(preset)},
        {
            "labels": TensorSpec(frame, "int32", "class of each pixel; of equal scores the lowest"),
            "confidence": TensorSpec(frame, "float32", "score of that class in 0..1"),
        },
    )


def export_label_graph(model: PCASeg, path: Path, *, options: ExportOptions) -> onnx.ModelProto:
    """Writes a label graph of the folded model: `image` (N, H, W, 3) and `text` (T, D) to `labels` and `confidence`.

    Args:
        model: of `pcaseg.load_model`.
        path: the `.onnx` file.
        options: with the graph `labels`. N and T are always dynamic, H and W if no image size is fixed.

    Returns:
        The graph as written.

    Raises:
        PcasegError: of `pcaseg.export.graphs.audit_graph`.
    """
    assert options.strategy is not None  # of every label graph
    logits = logit_module(model, options)
    module = LabelGraph(logits, model.preset, strategy=options.strategy, shortlist=options.shortlist)
    signature = label_signature(model.preset, options.image_size)
    return export_graph(module, path, signature, options=options, permitted=PERMITTED_OPS)


def _square(side: int) -> tuple[int, int]:
    return side, side
