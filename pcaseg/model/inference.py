"""Whole images: from pixels of any size to scores of that size, in one pass or by sliding window.

Every resize is bilinear with align_corners=False and without antialiasing, as in the published evaluation. The
torch-free runtime has its own code for the same steps (`pcaseg.runtime.windows`), which `pcaseg check` holds against
this.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from pcaseg.configs import Preset, Sliding, Strategy
from pcaseg.errors import ImageError
from pcaseg.images import as_rgb, read_image

Logits = Callable[[Tensor], Tensor]
"""Windows (N, 3, R, R) in 0..255 -> logits (N, T, h, w)."""


def image_tensor(image: str | os.PathLike[str] | np.ndarray | Image.Image | Tensor) -> Tensor:
    """An image file, Pillow image, array or tensor as (3, H, W) RGB in 0..255; see `PCASeg.segment` for the kinds.

    Raises:
        ImageError: it cannot be read or has no defined meaning.
    """
    if isinstance(image, (str, os.PathLike)):
        return image_tensor(read_image(image))
    if isinstance(image, Image.Image):
        return torch.tensor(as_rgb(image)).permute(2, 0, 1)
    array = image.cpu().numpy() if isinstance(image, Tensor) else np.asarray(image)
    if array.dtype.kind != "f":
        return torch.tensor(as_rgb(array)).permute(2, 0, 1)
    if array.ndim != 3 or array.shape[-1] != 3 or 0 in array.shape:
        raise ImageError(f"image: float of shape {array.shape}; give (H, W, 3) RGB in 0..255")
    return torch.tensor(array).permute(2, 0, 1)


def segment_image(image: Tensor, logits: Logits, preset: Preset, strategy: Strategy) -> Tensor:
    """Scores of one image.

    Args:
        image: (3, H, W) float RGB in 0..255.
        logits: the network on its own input size.
        preset: gives the input size and the windows.
        strategy: `single` or `sliding`.

    Returns:
        (T, H, W) float in 0..1.
    """
    if strategy == "single":
        scores = logits(resize(image[None], preset.image_px)).sigmoid()
    else:
        scores = sliding_scores(image[None], logits, preset.image_px, preset.sliding)
    return resize(scores, image.shape[-2:])[0]


def sliding_scores(image: Tensor, logits: Logits, input_px: int, sliding: Sliding) -> Tensor:
    """The evaluation protocol: four overlapping windows averaged, then averaged with the whole image.

    Args:
        image: (1, 3, H, W) float RGB in 0..255.

    Returns:
        (1, T, 640, 640) float in 0..1, with the published `sliding`.
    """
    side, window = sliding.image_px, sliding.window_px
    inputs = sliding_inputs(image, input_px, sliding)
    scores = torch.cat([resize(logits(one[None]), window).sigmoid() for one in inputs])
    total = scores.new_zeros(1, scores.shape[1], side, side)
    count = scores.new_zeros(side, side)
    for (top, left), score in zip(sliding.origins(), scores, strict=False):
        total[..., top : top + window, left : left + window] += score
        count[top : top + window, left : left + window] += 1
    return (total / count + resize(scores[-1:], side)) / 2


def sliding_inputs(image: Tensor, input_px: int, sliding: Sliding) -> Tensor:
    """Inputs of the network from (1, 3, H, W): the windows, then the whole image, (windows, 3, R, R)."""
    canvas, window = resize(image, sliding.image_px), sliding.window_px
    crops = [canvas[..., top : top + window, left : left + window] for top, left in sliding.origins()]
    return resize(torch.cat([*crops, resize(image, window)]), input_px)


def resize(images: Tensor, size: int | Sequence[int]) -> Tensor:
    """Bilinear, align_corners=False, no antialiasing: (N, C, H, W) -> (N, C, *size), or a square of side `size`."""
    wanted = [size, size] if isinstance(size, int) else list(size)
    return F.interpolate(images, size=wanted, mode="bilinear", align_corners=False, antialias=False)
