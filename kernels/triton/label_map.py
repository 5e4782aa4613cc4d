"""Kernel and launch of the label map; `pcaseg.kernels.label_map` says what it computes, and how."""

from __future__ import annotations

from collections.abc import Sequence

import triton
import triton.language as tl
from torch import Tensor

from pcaseg.configs import Sliding
from pcaseg.kernels.aot import Variant, arguments_of
from pcaseg.kernels.label_map import NAME, constexprs_for, windows_of
from pcaseg.kernels.registry import architecture, dtype_name
from pcaseg.kernels.tuning import TuningPoint, tuning_point


@triton.jit
def _source(position, length, new_length):
    """Two places that a resize from length to new_length reads for a position, and the weight of the second."""
    numerator = tl.maximum((2 * position + 1) * length - new_length, 0)
    first = tl.minimum(numerator // (2 * new_length), length - 1)
    weight = (numerator - first * 2 * new_length).to(tl.float32) / (2 * new_length)
    return first, tl.minimum(first + 1, length - 1), weight


@triton.jit
def _within(source, start, CELLS: tl.constexpr):
    """A source in a tile of CELLS places that begins at `start`; what lies beyond it is not used."""
    return tl.minimum(source[0] - start, CELLS - 1), tl.minimum(source[1] - start, CELLS - 1), source[2]


@triton.jit
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


@triton.jit
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


@triton.jit
def _overlap(place, start, window: tl.constexpr):
    return (place >= start) & (place < start + window)


@triton.jit
def _first_window(place, WINDOW: tl.constexpr, STRIDE: tl.constexpr):
    """The first of the windows along a side that ends after `place`."""
    return tl.maximum(place - WINDOW + STRIDE, 0) // STRIDE


@triton.jit
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


@triton.jit(
    do_not_specialize=["images", "classes", "height", "width", "new_height", "new_width", "tile_height", "tile_width"]
)
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
    windows, (H, W), (_, T, h, w) = windows_of(sliding), size, logits.shape
    point = tuning_point(NAME, architecture(logits), dtype_name(logits))
    settings = constexprs_for(sliding, point)
    cells_h, cells_w = (settings["CANVAS"], settings["CANVAS"]) if sliding else (h, w)
    tile_h, tile_w = _tile(cells_h, H, settings), _tile(cells_w, W, settings)
    images = logits.shape[0] // windows
    grid = (-(-H // tile_h) * -(-W // tile_w), images)
    scalars = (images, T, h, w, H, W, tile_h, tile_w)
    _label_map_kernel[grid](logits, *scalars, labels, confidence, **settings, **point.options)


def _tile(length: int, new_length: int, settings: dict[str, int]) -> int:
    """The number of new_length pixels in a row that read at most CELLS of `length` cells, wherever they lie."""
    return min(settings["PIXELS"], (settings["CELLS"] - 2) * new_length // length + 1)


def variants(dtype: str, point: TuningPoint) -> list[Variant]:
    """Variants to compile ahead of time: one window, and the published sliding windows, of any size and number."""
    published = Sliding()
    kinds = {"single": (), "sliding": (published.image_px, published.window_px, published.stride_px)}
    types = {"logits_ptr": f"*{dtype}", "labels_ptr": "*i32", "confidence_ptr": "*fp32"}
    signature = {name: types.get(name, "i32") for name in arguments_of(_label_map_kernel)}
    grid = "cdiv(new_height, tile_height) * cdiv(new_width, tile_width), images"
    return [
        Variant(f"{NAME}_{kind}_{dtype}", _label_map_kernel, signature, constexprs_for(windows, point), grid, point)
        for kind, windows in kinds.items()
    ]
