"""Label map: logits of windows to the best class of every pixel and its score, without scores of all classes in memory.

The chain of `pcaseg.model.inference`, for each class. `single`: sigmoid of the h x w logits, resized to the image.
`sliding`: the logits of every window resized to the window, sigmoid, averaged where windows overlap on the canvas; the
same of the whole image, resized to the canvas; the mean of both, resized to the image. Then the maximum over classes.

Tiling. A program makes PIXELS x PIXELS labels at most, those whose scores need no more than CELLS x CELLS cells of the
map before the last resize (the canvas, or the logits for `single`). It goes through the classes with the best score and
its class in registers, and for each class

- computes its cells: from the logits for `single`; for `sliding` from the windows that touch the tile, and from the
  whole image, of which it makes CELLS x CELLS scores at the window's size first. Every score is computed once, but at
  the rim of tiles; neighbouring programs read the same logits from the caches;
- takes four neighbours of every pixel from the cells, along rows and then along columns, within one warp's registers.

Where a resize reads is computed in integers, so weights have no rounding error but that of their quotient.

Cost for images of H x W: every logit read once from device memory and 8 bytes written for each pixel (`bytes_moved`);
9 operations for a bilinear value and 4 for a sigmoid (`operations`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pcaseg.configs import Sliding
from pcaseg.errors import PcasegError
from pcaseg.kernels.registry import check_tensor, operator
from pcaseg.kernels.tuning import TuningPoint

NAME = "label_map"
BILINEAR, SIGMOID = 9, 4  # operations


def label_map_reference(logits: Tensor, size: Sequence[int], sliding: Sequence[int]) -> tuple[Tensor, Tensor]:
    """The definition, for 16-bit logits in float32.

    Args:
        logits: (N, T, h, w) float.
        size: height and width of the images.
        sliding: nothing, or the canvas, the window and the stride of windows.
    """
    logits = logits if logits.dtype == torch.float64 else logits.float()
    scores = _merge(logits, Sliding(*sliding)) if sliding else logits.sigmoid()
    scores = _resize(scores, size)
    return scores.argmax(dim=1).to(torch.int32), scores.amax(dim=1)


def _merge(logits: Tensor, sliding: Sliding) -> Tensor:
    """(windows * N, T, h, w) -> scores of the canvas (N, T, S, S)."""
    side, window, origins = sliding.image_px, sliding.window_px, sliding.origins()
    scores = _resize(logits, (window, window)).sigmoid().unflatten(0, (len(origins) + 1, -1))
    total = scores.new_zeros(*scores.shape[1:3], side, side)
    count = scores.new_zeros(side, side)
    for (top, left), score in zip(origins, scores, strict=False):
        total[..., top : top + window, left : left + window] += score
        count[top : top + window, left : left + window] += 1
    return (total / count + _resize(scores[-1], (side, side))) / 2


def _resize(maps: Tensor, size: Sequence[int]) -> Tensor:
    return F.interpolate(maps, size=list(size), mode="bilinear", align_corners=False)


def constexprs_for(sliding: Sequence[int], point: TuningPoint) -> dict[str, Any]:
    """All constexprs of the kernel.

    Raises:
        PcasegError: the kernel does not take such windows.
    """
    canvas, window, stride = sliding or (0, 0, 0)
    cells = point.constexprs["CELLS"]
    if sliding and window * (cells - 1) > canvas * (cells - 2):
        raise PcasegError(f"windows of {window} on a canvas of {canvas}: the kernel takes smaller windows")
    side = (canvas - window) // stride + 1 if sliding else 0
    return {"CANVAS": canvas, "WINDOW": window, "STRIDE": stride, "SIDE": side, **point.constexprs}


def windows_of(sliding: Sequence[int]) -> int:
    """The number of windows of an image, with the whole image where they slide."""
    return len(Sliding(*sliding).origins()) + 1 if sliding else 1


def _compute(logits: Tensor, size: Sequence[int], sliding: Sequence[int]) -> tuple[Tensor, Tensor]:
    from pcaseg.kernels.triton.label_map import launch

    labels, confidence = _empty(logits, size, sliding)
    launch(logits, size, sliding, labels, confidence)
    return labels, confidence


def _empty(logits: Tensor, size: Sequence[int], sliding: Sequence[int]) -> tuple[Tensor, Tensor]:
    shape = (logits.shape[0] // windows_of(sliding), *size)
    score = torch.float64 if logits.dtype == torch.float64 else torch.float32
    return logits.new_empty(shape, dtype=torch.int32), logits.new_empty(shape, dtype=score)


_operator = operator(NAME, reference=label_map_reference, kernel=_compute, fake=_empty)


def label_map(logits: Tensor, size: tuple[int, int], *, sliding: Sliding | None = None) -> tuple[Tensor, Tensor]:
    """The best class of every pixel and its score.

    Args:
        logits: (N, T, h, w) float; with `sliding` (windows * N, T, h, w), the first window of every image first and the
            whole images last.
        size: height and width of the images.
        sliding: the windows; None for one window that is the whole image.

    Returns:
        labels (N, *size) int32, of equal scores the lowest; confidence (N, *size) float32 (of float64 float64) in 0..1.
        Where a logit is NaN the pixels that read it have the confidence NaN.

    Raises:
        PcasegError: the shape does not fit, or the logits are not contiguous.
        MissingDependencyError: logits on a GPU without Triton.
    """
    check_tensor("logits", logits, (None,) * 4)
    windows = () if sliding is None else (sliding.image_px, sliding.window_px, sliding.stride_px)
    if logits.shape[0] % windows_of(windows):
        raise PcasegError(f"logits has shape {tuple(logits.shape)}; give {windows_of(windows)} windows of each image")
    if min(size) < 1 or max(size) > 2**16:
        raise PcasegError(f"size={tuple(size)}: give the images' height and width, up to {2**16}")
    return _operator(logits, list(size), list(windows))


def bytes_moved(N: int, T: int, h: int, w: int, H: int, W: int, *, windows: int, itemsize: int) -> int:
    """Least traffic to device memory for N images: every logit once, labels and confidences once."""
    return N * (windows * T * h * w * itemsize + 8 * H * W)


def operations(N: int, T: int, h: int, w: int, H: int, W: int, *, sliding: Sliding | None = None) -> int:
    """Floating-point operations for N images, every score once."""
    if sliding is None:
        return N * T * (h * w * SIGMOID + H * W * (BILINEAR + 1))
    windows = (len(sliding.origins()) + 1) * sliding.window_px**2 * (BILINEAR + SIGMOID + 1)
    return N * T * (windows + sliding.image_px**2 * (BILINEAR + 3) + H * W * (BILINEAR + 1))
