"""The published augmentation: short side, random crop, SSD's colours, flips."""

from __future__ import annotations

import numpy as np
from PIL import Image

BRIGHTNESS = 32.0
"""Largest addition to all channels, of 255."""

CONTRAST = SATURATION = (0.5, 1.5)
"""Smallest and largest factor."""

HUE = 18 / 180
"""Largest turn, as a share of the circle."""

_HUE_STEPS = 256
"""Steps of hue in Pillow's HSV."""


def augmented(
    image: np.ndarray, labels: np.ndarray, rng: np.random.Generator, *, short_px: int, crop_px: int, unlabelled: int
) -> tuple[np.ndarray, np.ndarray]:
    """Resizes, crops, changes colours and flips, in this order.

    Args:
        image: (H, W, 3) uint8 RGB.
        labels: (H, W) int.
        rng: decides everything.
        short_px: the short side after resizing (bilinear; labels by nearest neighbour).
        crop_px: side of the crop; what an image lacks is black and unlabelled.
        unlabelled: the label of that.

    Returns:
        (crop, crop, 3) uint8 and (crop, crop) int32.
    """
    image, labels = resized(image, labels, short_px)
    image, labels = _cropped(image, labels, rng, crop_px, unlabelled)
    image = ssd_colours(image, rng)
    if rng.random() < 0.5:
        image, labels = image[:, ::-1], labels[:, ::-1]
    return np.ascontiguousarray(image), np.ascontiguousarray(labels)


def resized(image: np.ndarray, labels: np.ndarray, short_px: int) -> tuple[np.ndarray, np.ndarray]:
    """Image and labels with the short side `short_px` long, the ratio of the sides kept."""
    height, width = labels.shape
    scale = short_px / min(height, width)
    size = (max(short_px, round(width * scale)), max(short_px, round(height * scale)))
    image = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))
    scaled = Image.fromarray(labels.astype(np.int32)).resize(size, Image.Resampling.NEAREST)
    return image, np.asarray(scaled, dtype=np.int32)


def _cropped(
    image: np.ndarray, labels: np.ndarray, rng: np.random.Generator, crop_px: int, unlabelled: int
) -> tuple[np.ndarray, np.ndarray]:
    missing = [(0, max(0, crop_px - side)) for side in labels.shape]
    image = np.pad(image, [*missing, (0, 0)])
    labels = np.pad(labels, missing, constant_values=unlabelled)
    top, left = (int(rng.integers(0, side - crop_px + 1)) for side in labels.shape)
    return image[top : top + crop_px, left : left + crop_px], labels[top : top + crop_px, left : left + crop_px]


def ssd_colours(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """SSD's photometric distortion: brightness, contrast, saturation and hue, each in half of the images.

    Brightness is added and contrast multiplies, which torchvision's `RandomPhotometricDistort` does otherwise.
    Contrast comes before saturation and hue in half of the images, after them in the other half.

    Args:
        image: (H, W, 3) uint8 RGB.
        rng: decides.

    Returns:
        (H, W, 3) uint8.
    """
    values = image.astype(np.float32)
    if rng.random() < 0.5:
        values = (values + rng.uniform(-BRIGHTNESS, BRIGHTNESS)).clip(0, 255)
    early = rng.random() < 0.5
    contrast = rng.uniform(*CONTRAST) if rng.random() < 0.5 else 1.0
    saturation = rng.uniform(*SATURATION) if rng.random() < 0.5 else 1.0
    turn = rng.uniform(-HUE, HUE) if rng.random() < 0.5 else 0.0
    if early:
        values = values * contrast
    values = _turned(values, saturation, turn)
    if not early:
        values = values * contrast
    return _bytes(values)


def _turned(values: np.ndarray, saturation: float, turn: float) -> np.ndarray:
    """Saturation times a factor, hue turned by a share of the circle, by way of Pillow's HSV."""
    if saturation == 1.0 and turn == 0.0:
        return values
    hue, chroma, value = (np.asarray(band) for band in Image.fromarray(_bytes(values)).convert("HSV").split())
    hue = ((hue.astype(np.int32) + round(turn * _HUE_STEPS)) % _HUE_STEPS).astype(np.uint8)
    chroma = _bytes(chroma.astype(np.float32) * saturation)
    turned = Image.merge("HSV", [Image.fromarray(band) for band in (hue, chroma, value)]).convert("RGB")
    return np.asarray(turned).astype(np.float32)


def _bytes(values: np.ndarray) -> np.ndarray:
    return values.round().clip(0, 255).astype(np.uint8)
