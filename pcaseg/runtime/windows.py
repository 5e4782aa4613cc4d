"""The two ways from an image to network inputs and from the network's logits back to one label per pixel.

`single`: the whole image resized to the network's input. `sliding`: the published evaluation protocol, four
overlapping windows and the whole image, averaged. Plain NumPy; every resize is `pcaseg.runtime.resize`.
"""

from __future__ import annotations

import math

import numpy as np

from pcaseg.class_names import check_class_count
from pcaseg.configs import Sliding, Strategy, check_choice
from pcaseg.runtime.resize import Taps, bilinear_taps, resize_bilinear, resize_image

LABEL_BUDGET_BYTES = 64 << 20
"""Memory that `label_map` may use beside its input and output."""

_LARGEST_TILE_PX = 96  # beyond it fewer classes can be ruled out, below it Python's overhead grows


def prepare_windows(image: np.ndarray, strategy: Strategy, *, image_px: int, sliding: Sliding) -> np.ndarray:
    """Cuts an image into the network's inputs. They are not normalised: the network does that itself.

    Args:
        image: `(H, W, 3)` uint8 RGB.
        strategy: `single` or `sliding`.
        image_px: side R of the network's input.
        sliding: the protocol's sizes; unused for `single`.

    Returns:
        `(N, 3, R, R)` float32, 0..255. N is 1 for `single`; for `sliding` the windows row by row, then the whole
        image.

    Raises:
        PcasegError: an unknown strategy.
    """
    check_choice(strategy, Strategy, what="strategy")
    side = (image_px, image_px)
    if strategy == "single":
        return resize_image(image, side)[None]
    window = sliding.window_px
    canvas = resize_image(image, (sliding.image_px, sliding.image_px))
    crops = [canvas[:, top : top + window, left : left + window] for top, left in sliding.origins()]
    return np.stack([resize_bilinear(crop, side) for crop in [*crops, resize_image(image, (window, window))]])


def merge_windows(logits: np.ndarray, strategy: Strategy, sliding: Sliding) -> np.ndarray:
    """Turns the logits of one image's windows into one square map of scores per class.

    Args:
        logits: `(N, T, h, w)` float32, windows as `prepare_windows` orders them.
        strategy: `single` or `sliding`.
        sliding: the protocol's sizes; unused for `single`.

    Returns:
        `(T, s1, s2)` float32 scores in 0..1: `h x w` for `single`, `image_px` squared for `sliding`.

    Raises:
        PcasegError: an unknown strategy.
        ValueError: N does not fit the strategy.
    """
    check_choice(strategy, Strategy, what="strategy")
    expected = 1 if strategy == "single" else len(sliding.origins()) + 1
    if len(logits) != expected:
        raise ValueError(f"strategy {strategy!r} expects the logits of {expected} windows, got {len(logits)}")
    if strategy == "single":
        return sigmoid(logits[0])
    side, window = sliding.image_px, sliding.window_px
    scores = np.zeros((logits.shape[1], side, side), np.float32)
    overlap = np.zeros((side, side), np.float32)
    for top, left in sliding.origins():
        overlap[top : top + window, left : left + window] += 1
    for index, merged in enumerate(scores):  # class by class: the temporaries stay in the cache
        parts = sigmoid(resize_bilinear(logits[:, index], (window, window)))
        for (top, left), part in zip(sliding.origins(), parts, strict=False):
            merged[top : top + window, left : left + window] += part
        merged /= overlap
        merged += resize_bilinear(parts[-1], (side, side))
        merged *= 0.5
    return scores


def label_map(scores: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Resizes scores bilinearly to the image's size and takes the best class of every pixel.

    Works tile by tile, so that `(T, H, W)` never exists, and leaves out of a tile the classes that cannot win in it;
    the result is that of the whole array all the same.

    Args:
        scores: `(T, s1, s2)` float32.
        size: (H, W) of the image.

    Returns:
        labels `(H, W)` uint16 (of equal scores the lowest index) and confidence `(H, W)` float32, their scores.

    Raises:
        VocabularyError: more classes than labels can tell apart.
    """
    check_class_count(len(scores), source="scores")
    all_rows, all_columns = (bilinear_taps(n_in, n_out) for n_in, n_out in zip(scores.shape[1:], size, strict=True))
    labels, confidence = np.empty(size, np.uint16), np.empty(size, np.float32)
    # A class of a tile needs at most 8 times the tile: twice the rows while its columns are blended, two operands,
    # four bytes each, and as much again for the tile's own scores.
    side = max(1, min(_LARGEST_TILE_PX, math.isqrt(LABEL_BUDGET_BYTES // (32 * len(scores)))))
    for top in range(0, size[0], side):
        used_rows, rows = all_rows.part(top, top + side).compact()
        band = _take(scores, used_rows, axis=1)
        for left in range(0, size[1], side):
            used_columns, columns = all_columns.part(left, left + side).compact()
            tile = slice(top, top + side), slice(left, left + side)
            labels[tile], confidence[tile] = _label_tile(_take(band, used_columns, axis=2), rows, columns)
    return labels, confidence


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """`1 / (1 + exp(-x))` in float32, without overflow warnings; a new array of the same shape."""
    out = np.negative(logits, dtype=np.float32)
    np.minimum(out, 87, out=out)  # exp(88) is the last that float32 holds
    np.exp(out, out=out)
    out += 1
    result: np.ndarray = np.reciprocal(out, out=out)
    return result


def _take(array: np.ndarray, used: np.ndarray, *, axis: int) -> np.ndarray:
    """The positions `used` (sorted) of an axis: a view where they are consecutive."""
    if used[-1] - used[0] + 1 == len(used):
        return array[(slice(None),) * axis + (slice(int(used[0]), int(used[-1]) + 1),)]
    return array.take(used, axis=axis)


def _label_tile(scores: np.ndarray, rows: Taps, columns: Taps) -> tuple[np.ndarray, np.ndarray]:
    """`label_map` of one tile; `scores` `(T, r, c)` holds just the points that the taps read."""
    candidates = np.arange(len(scores))
    if 4 * scores[0].size <= len(rows.low) * len(columns.low):  # else finding them costs more than it saves
        candidates = _candidates(scores)
        scores = scores[candidates]
    values = rows.blend(columns.blend(scores, axis=2), axis=1)
    best = values[0]
    winner = np.zeros(best.shape, np.intp)
    for index, value in enumerate(values[1:], start=1):
        better = value > best  # strictly: of equals the lowest index stays
        np.copyto(best, value, where=better)
        np.copyto(winner, index, where=better)
    return candidates[winner], best


def _candidates(scores: np.ndarray) -> np.ndarray:
    """Indices of the classes that may be the best somewhere between the grid points of `scores` `(T, r, c)`.

    Within a cell of four points a blended score lies between the least and the greatest of the four, so a class
    whose greatest is below another's least loses everywhere in it.
    """
    least, greatest = scores, scores
    for axis in (1, 2):
        if scores.shape[axis] > 1:
            first = (slice(None),) * axis + (slice(None, -1),)
            second = (slice(None),) * axis + (slice(1, None),)
            least = np.minimum(least[first], least[second])
            greatest = np.maximum(greatest[first], greatest[second])
    rounding = 1e-6 * np.abs(scores).max()
    return np.flatnonzero((greatest >= least.max(axis=0) - rounding).any(axis=(1, 2)))
