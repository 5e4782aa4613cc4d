"""Bilinear resizing as the model was trained with it: half-pixel centres, no antialiasing.

The same numbers, to float32 rounding, as `torch.nn.functional.interpolate(mode="bilinear", align_corners=False,
antialias=False)`. Image libraries differ: they blur before they shrink.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Taps(NamedTuple):
    """Pairs of inputs that each output position of one axis blends: `(1 - weight) * x[low] + weight * x[high]`."""

    low: np.ndarray
    high: np.ndarray
    weight: np.ndarray

    def part(self, start: int, stop: int) -> Taps:
        """The taps of output positions `start` to `stop`."""
        return Taps(self.low[start:stop], self.high[start:stop], self.weight[start:stop])

    def compact(self) -> tuple[np.ndarray, Taps]:
        """The input positions that are read at all, `(n,)` sorted, and the same taps counted among those only."""
        used = np.union1d(self.low, self.high)
        return used, Taps(np.searchsorted(used, self.low), np.searchsorted(used, self.high), self.weight)

    def blend(self, array: np.ndarray, *, axis: int) -> np.ndarray:
        """Resamples `array` along `axis`; returns float32."""
        low = array.take(self.low, axis=axis).astype(np.float32, copy=False)
        high = array.take(self.high, axis=axis).astype(np.float32, copy=False)
        weight = self.weight.reshape([-1 if i == axis % array.ndim else 1 for i in range(array.ndim)])
        low *= 1 - weight
        high *= weight
        low += high
        return low


def bilinear_taps(size_in: int, size_out: int) -> Taps:
    """The taps of one axis: source position `size_in / size_out * (i + 0.5) - 0.5`, at least 0, all in float32.

    Float32 on purpose: on long axes its rounding moves the weights visibly, and PyTorch computes in float32. (It has
    a second CPU kernel, which fuses multiply and add and so may differ by one float32 step of the position.)

    >>> bilinear_taps(2, 4).weight.tolist()
    [0.0, 0.25, 0.75, 0.0]

    Raises:
        ValueError: a size below 1.
    """
    if size_in < 1 or size_out < 1:
        raise ValueError(f"cannot resize {size_in} to {size_out} positions: both must be 1 or more")
    if size_in == size_out:
        every = np.arange(size_in)
        return Taps(every, every, np.zeros(size_in, np.float32))
    scale = np.float32(size_in) / np.float32(size_out)
    centre = np.float32(0.5)
    source = np.maximum(scale * (np.arange(size_out, dtype=np.float32) + centre) - centre, np.float32(0))
    low = np.minimum(source.astype(np.int64), size_in - 1)
    high = np.minimum(low + 1, size_in - 1)
    weight = np.where(high > low, np.clip(source - low.astype(np.float32), 0, 1), 0).astype(np.float32)
    return Taps(low, high, weight)


def resize_bilinear(array: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resizes the last two axes.

    Args:
        array: `(..., H, W)` float32.
        size: (height, width) wanted.

    Returns:
        `(..., h, w)` float32, a new array.
    """
    used, rows = bilinear_taps(array.shape[-2], size[0]).compact()
    columns = bilinear_taps(array.shape[-1], size[1])
    if len(used) < array.shape[-2]:
        array = array.take(used, axis=-2)
    return rows.blend(columns.blend(array, axis=-1), axis=-2)


def resize_image(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resizes an image, reading only the rows and columns that the result needs.

    Args:
        image: `(H, W, 3)` uint8.
        size: (height, width) wanted.

    Returns:
        `(3, h, w)` float32, 0..255.
    """
    used, rows = bilinear_taps(image.shape[0], size[0]).compact()
    columns = bilinear_taps(image.shape[1], size[1])
    if len(used) < image.shape[0]:
        image = image.take(used, axis=0)
    resized = rows.blend(columns.blend(image, axis=1), axis=0)
    return np.ascontiguousarray(resized.transpose(2, 0, 1))
