"""Pictures from paints: texture of backgrounds, light, noise and blur.

Grain, ripples, noise and blur belong to the scene, not to the pixels: a larger picture shows the same ones larger, so
that, reduced, it looks like the small one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageFilter

GAINS = (0.8, 1.12)
COLOUR_CAST = 0.06
"""Largest change of one channel by coloured light."""

GRADIENT = 0.18
"""Largest change of light from the middle of the scene to its side."""

FIELD = 96
"""Side of the fields of random numbers, in pixels of which ripples and blur are measured too."""

NOISE = (1.0, 7.0)
"""Standard deviation of the noise, of 255."""

BLUR_SHARE = 0.3
TEXTURES = {"grass": (16.0, 0.0), "water": (3.0, 13.0), "road": (7.0, 0.0), "sand": (9.0, 3.0), "sky": (0.0, 2.0)}
"""Grain and waves of a background, of 255; objects have neither."""


def light(
    paints: np.ndarray, palette: np.ndarray, backgrounds: Sequence[str | None], rng: np.random.Generator
) -> np.ndarray:
    """A picture of a map of paints.

    Args:
        paints: (4 S, 4 S) uint8.
        palette: (paints, 3) float32, 0..255.
        backgrounds: the background of each paint, None of an object's.
        rng: what decides.

    Returns:
        (S, S, 3) uint8.
    """
    side = len(paints) // 4
    image = _averaged(paints, palette)
    texture = np.array([TEXTURES[name] if name else (0.0, 0.0) for name in backgrounds], np.float32)
    grain, waves = texture[paints[2::4, 2::4]].transpose(2, 0, 1)
    noise = rng.standard_normal((FIELD, FIELD), np.float32)
    image += (grain * _enlarged(noise, side) + waves * _waves(side, rng))[..., None]
    image *= (rng.uniform(*GAINS) * (1 + rng.uniform(-COLOUR_CAST, COLOUR_CAST, 3))).astype(np.float32)
    across = np.linspace(-1, 1, side, dtype=np.float32)
    slope = rng.uniform(-GRADIENT, GRADIENT, 2).astype(np.float32)
    image *= (1 + slope[0] * across[:, None] + slope[1] * across)[..., None]
    image += np.float32(rng.uniform(*NOISE)) * _enlarged(rng.standard_normal((FIELD, FIELD, 3), np.float32), side)
    picture = np.clip(np.rint(image), 0, 255).astype(np.uint8)
    if rng.random() < BLUR_SHARE:
        radius = rng.uniform(0.3, 0.7) * side / FIELD
        picture = np.asarray(Image.fromarray(picture).filter(ImageFilter.GaussianBlur(radius)))
    return picture


def _averaged(paints: np.ndarray, palette: np.ndarray) -> np.ndarray:
    """The mean paint of every 4 x 4 samples: (S, S, 3) float32."""
    colours = Image.fromarray(paints, "P")
    colours.putpalette(np.clip(np.rint(palette), 0, 255).astype(np.uint8).tobytes())
    return np.array(colours.convert("RGB").reduce(4), np.float32)


def _enlarged(field: np.ndarray, side: int) -> np.ndarray:
    """A field of random numbers, (96, 96) or (96, 96, 3) float32, at (S, S) or (S, S, 3); at 96 the field itself."""
    if field.ndim == 3:
        return np.stack([_enlarged(channel, side) for channel in np.moveaxis(field, 2, 0)], axis=2)
    return np.asarray(Image.fromarray(field).resize((side, side), Image.Resampling.BICUBIC))


def _waves(side: int, rng: np.random.Generator) -> np.ndarray:
    """Long ripples, nearly level: (S, S) float32 in -1..1."""
    rows = (np.arange(side, dtype=np.float32) + np.float32(0.5)) * np.float32(FIELD / side) - np.float32(0.5)
    bend = rng.uniform(0.05, 0.12) * rows[None, :] + rng.uniform(0, 6.3)
    return np.sin(rng.uniform(0.7, 1.1) * rows[:, None] + np.sin(bend)).astype(np.float32)
