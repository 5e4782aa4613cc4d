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
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pcaseg.configs import Sliding
from pcaseg.errors import PcasegError
from pcaseg.kernels.aot import Variant
from pcaseg.kernels.registry import architecture, check_tensor, dtype_name, helper, kernel, operator
from pcaseg.kernels.tuning import TuningPoint, tuning_point

if TYPE_CHECKING:
    import triton.language as tl

NAME = "label_map"
BILINEAR, SIGMOID = 9, 4  # operations


def label_map_reference(logits: Tensor, size: Sequence[int], sliding: Sequence[int]) -> tuple[Tensor, Tensor]:
    """What `label_map` computes, in PyTorch, for 16-bit logits in float32.

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


@helper
def _source(position, length, new_length):
    """Where a resize from length to new_length reads for a position: two places, and the weight of the second."""
    numerator = tl.maximum((2 * position + 1) * length - new_length, 0)
    first = tl.minimum(numerator // (2 * new_length), length - 1)
    weight = (numerator - first * 2 * new_length).to(tl.float32) / (2 * new_length)
    return first, tl.minimum(first + 1, length - 1), weight


@helper
def _within(source, start, CELLS: tl.constexpr):
    """The same in a tile of CELLS places that begins at `start`; what lies beyond it is not used."""
    return tl.minimum(source[0] - start, CELLS - 1), tl.minimum(source[1] - start, CELLS - 1), source[2]


@helper
def _blend(cells, rows, columns):
    """Bilinear values of a tile (Y, X) at the sources rows (H,) and columns (W,): (H, W)."""
    SHAPE: tl.constexpr = (cells.shape[0], columns[0].shape[0])
    left = tl.gather(cells, tl.broadcast_to(columns[0][None, :], SHAPE), axis=1)
    right = tl.gather(cells, tl.broadcast_to(columns[1][None, :], SHAPE), axis=1)
    across = left * (1.0 - columns[2])[None, :] + right * columns[2][None, :]
    NEW_SHAPE: tl.constexpr = (rows[0].shape[0], columns[0].shape[0])
    above = tl.gather(across, tl.broadcast_to(rows[0][:, None], NEW_SHAPE), axis=0)
    below = tl.gather(across, tl.broadcast_to(rows[1][:, None], NEW_SHAPE), axis=0)
    return above * (1.0 - rows[2])[:, None] + below * rows[2][:, None]


@helper
def _window_scores(map_ptr, y, x, height, width, WINDOW: tl.constexpr):
    """Sigmoid of a logit map (height, width) resized to WINDOW x WINDOW, at y (Y,) and x (X,); edges go on."""
    above, below, down = _source(y, height, WINDOW)
    left, right, along = _source(x, width, WINDOW)
    above_ptr = map_ptr + (above * width)[:, None]
    below_ptr = map_ptr + (below * width)[:, None]
    keep, along, down = (1.0 - along)[None, :], along[None, :], down[:, None]
    upper = tl.load(above_ptr + left[None, :]).to(tl.float32) * keep
    upper += tl.load(above_ptr + right[None, :]).to(tl.float32) * along
    lower = tl.load(below_ptr + left[None, :]).to(tl.float32) * keep
    lower += tl.load(below_ptr + right[None, :]).to(tl.float32) * along
    return tl.sigmoid(upper * (1.0 - down) + lower * down)


@helper
def _overlap(place, start, window: tl.constexpr):
    return (place >= start) & (place < start + window)


@helper
def _first_window(place, WINDOW: tl.constexpr, STRIDE: tl.constexpr):
    """The first of the windows along a side that ends after `place`."""
    return tl.maximum(place - WINDOW + STRIDE, 0) // STRIDE


@helper
def _canvas_scores(
    map_ptr,  # of the first window
    window_step,  # from one window's map to the next
    first_y,
    first_x,
    height,
    width,
    CANVAS: tl.constexpr,
    WINDOW: tl.constexpr,
    STRIDE: tl.constexpr,
    SIDE: tl.constexpr,
    CELLS: tl.constexpr,
):
    """A tile of the canvas: the mean of the windows there, then of that and the whole image."""
    cell = tl.arange(0, CELLS)
    y, x = tl.minimum(first_y + cell, CANVAS - 1), tl.minimum(first_x + cell, CANVAS - 1)
    total = tl.zeros((CELLS, CELLS), tl.float32)
    covered_y, covered_x = tl.zeros((CELLS,), tl.float32), tl.zeros((CELLS,), tl.float32)
    for i in tl.static_range(SIDE):
        covered_y += _overlap(y, i * STRIDE, WINDOW).to(tl.float32)
        covered_x += _overlap(x, i * STRIDE, WINDOW).to(tl.float32)
    for i in range(_first_window(first_y, WINDOW, STRIDE), tl.minimum((first_y + CELLS - 1) // STRIDE + 1, SIDE)):
        for j in range(_first_window(first_x, WINDOW, STRIDE), tl.minimum((first_x + CELLS - 1) // STRIDE + 1, SIDE)):
            there = _overlap(y, i * STRIDE, WINDOW)[:, None] & _overlap(x, j * STRIDE, WINDOW)[None, :]
            window_ptr = map_ptr + (i * SIDE + j) * window_step
            score = _window_scores(window_ptr, y - i * STRIDE, x - j * STRIDE, height, width, WINDOW)
            total += tl.where(there, score, 0.0)
    rows, columns = _source(y, WINDOW, CANVAS), _source(x, WINDOW, CANVAS)
    whole_y, whole_x = _source(first_y, WINDOW, CANVAS)[0], _source(first_x, WINDOW, CANVAS)[0]
    at_y, at_x = tl.minimum(whole_y + cell, WINDOW - 1), tl.minimum(whole_x + cell, WINDOW - 1)
    whole = _window_scores(map_ptr + SIDE * SIDE * window_step, at_y, at_x, height, width, WINDOW)
    whole = _blend(whole, _within(rows, whole_y, CELLS), _within(columns, whole_x, CELLS))
    return (total / (covered_y[:, None] * covered_x[None, :]) + whole) / 2.0


@kernel
def _label_map_kernel(
    logits_ptr,  # (windows, images, classes, height, width)
    images,
    classes,
    height,
    width,
    new_height,
    new_width,
    tile_height,
    tile_width,
    labels_ptr,  # (images, new_height, new_width) int32
    confidence_ptr,  # (images, new_height, new_width) float32
    CANVAS: tl.constexpr,  # 0 for `single`
    WINDOW: tl.constexpr,
    STRIDE: tl.constexpr,
    SIDE: tl.constexpr,  # windows along a side
    CELLS: tl.constexpr,
    PIXELS: tl.constexpr,
):
    tiles = tl.cdiv(new_width, tile_width)
    top, left = (tl.program_id(0) // tiles) * tile_height, (tl.program_id(0) % tiles) * tile_width
    image = tl.program_id(1).to(tl.int64)
    cells_height = CANVAS if CANVAS > 0 else height
    cells_width = CANVAS if CANVAS > 0 else width
    pixel, cell = tl.arange(0, PIXELS), tl.arange(0, CELLS)
    first_y, first_x = _source(top, cells_height, new_height)[0], _source(left, cells_width, new_width)[0]
    rows = _within(_source(top + pixel, cells_height, new_height), first_y, CELLS)
    columns = _within(_source(left + pixel, cells_width, new_width), first_x, CELLS)
    area = height * width
    step = images.to(tl.int64) * classes * area
    map_ptr = logits_ptr + image * classes * area

    best = tl.full((PIXELS, PIXELS), -1.0, tl.float32)
    label = tl.zeros((PIXELS, PIXELS), tl.int32)
    for t in range(classes):
        if CANVAS > 0:
            cells = _canvas_scores(map_ptr, step, first_y, first_x, height, width, CANVAS, WINDOW, STRIDE, SIDE, CELLS)
        else:
            y, x = tl.minimum(first_y + cell, height - 1), tl.minimum(first_x + cell, width - 1)
            cells = tl.sigmoid(tl.load(map_ptr + (y * width)[:, None] + x[None, :]).to(tl.float32))
        score = _blend(cells, rows, columns)
        better = (score > best) | ((score != score) & (best == best))  # NaN wins and stays
        best = tl.where(better, score, best)
        label = tl.where(better, t, label)
        map_ptr += area

    y, x = top + pixel, left + pixel
    inside = ((pixel < tile_height) & (y < new_height))[:, None] & ((pixel < tile_width) & (x < new_width))[None, :]
    place = (image * new_height + y)[:, None] * new_width + x[None, :]
    tl.store(labels_ptr + place, label, mask=inside)
    tl.store(confidence_ptr + place, best, mask=inside)


def launch(logits: Tensor, size: Sequence[int], sliding: Sequence[int], labels: Tensor, confidence: Tensor) -> None:
    """Fills labels and confidence, contiguous, with the kernel; arguments as `label_map` checked them."""
    windows, (H, W), (_, T, h, w) = _windows(sliding), size, logits.shape
    point = tuning_point(NAME, architecture(logits), dtype_name(logits))
    settings = _constexprs(sliding, point)
    cells_h, cells_w = (settings["CANVAS"], settings["CANVAS"]) if sliding else (h, w)
    tile_h, tile_w = _tile(cells_h, H, settings), _tile(cells_w, W, settings)
    images = logits.shape[0] // windows
    grid = (-(-H // tile_h) * -(-W // tile_w), images)
    scalars = (images, T, h, w, H, W, tile_h, tile_w)
    _label_map_kernel[grid](logits, *scalars, labels, confidence, **settings, **point.options)


def _tile(length: int, new_length: int, settings: dict[str, int]) -> int:
    """How many of new_length pixels in a row read no more than CELLS of `length` cells, wherever they lie."""
    return min(settings["PIXELS"], (settings["CELLS"] - 2) * new_length // length + 1)


def _constexprs(sliding: Sequence[int], point: TuningPoint) -> dict[str, Any]:
    canvas, window, stride = sliding or (0, 0, 0)
    cells = point.constexprs["CELLS"]
    if sliding and window * (cells - 1) > canvas * (cells - 2):
        raise PcasegError(f"windows of {window} on a canvas of {canvas}: the kernel takes smaller windows")
    side = (canvas - window) // stride + 1 if sliding else 0
    return {"CANVAS": canvas, "WINDOW": window, "STRIDE": stride, "SIDE": side, **point.constexprs}


def _windows(sliding: Sequence[int]) -> int:
    return len(Sliding(*sliding).origins()) + 1 if sliding else 1


def _compute(logits: Tensor, size: Sequence[int], sliding: Sequence[int]) -> tuple[Tensor, Tensor]:
    labels, confidence = _empty(logits, size, sliding)
    launch(logits, size, sliding, labels, confidence)
    return labels, confidence


def _empty(logits: Tensor, size: Sequence[int], sliding: Sequence[int]) -> tuple[Tensor, Tensor]:
    shape = (logits.shape[0] // _windows(sliding), *size)
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
    if logits.shape[0] % _windows(windows):
        raise PcasegError(f"logits has shape {tuple(logits.shape)}; give {_windows(windows)} windows of each image")
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


def variants(dtype: str, point: TuningPoint) -> list[Variant]:
    """What is compiled ahead of time: one window, and the published sliding windows, of any size and number."""
    published = Sliding()
    kinds = {"single": (), "sliding": (published.image_px, published.window_px, published.stride_px)}
    types = {"logits_ptr": f"*{dtype}", "labels_ptr": "*i32", "confidence_ptr": "*fp32"}
    signature = {name: types.get(name, "i32") for name in _label_map_kernel.arguments}
    grid = "cdiv(new_height, tile_height) * cdiv(new_width, tile_width), images"
    return [
        Variant(f"{NAME}_{kind}_{dtype}", _label_map_kernel, signature, _constexprs(windows, point), grid, point)
        for kind, windows in kinds.items()
    ]
