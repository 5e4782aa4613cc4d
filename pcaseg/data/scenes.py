"""Scenes that the project renders itself: objects with colours and named parts before backgrounds, with exact labels.

A scene is drawn four times larger than its image as a map of *paints*. Each paint belongs to one object and part or to
one background, so that the area of any name in any cell of any grid is a count of paints.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw

from pcaseg.data.scene_layout import Layout, Placed, draw_layout
from pcaseg.data.scene_light import light
from pcaseg.data.scene_names import HELD_OUT, Meaning, NameKind, meaning_of, names_covering, names_of
from pcaseg.data.scene_shapes import Rgb, object_shapes

SCENE_PX = 96
"""Side of the scenes that `tiny` is trained and measured on."""

SHOWN_PX, LARGEST_PX = 384, 2048
"""Side of the scenes that people look at, and the largest that a command renders."""

MOST_SCENES = 100_000
"""Scenes that one command renders: a mistyped number must not fill a disk."""

SUPERSAMPLING = 4

Split = Literal["training", "evaluation", "held-out"]
"""Kind of scenes: `training` and `evaluation` show seen pairs only, `held-out` one held-out pair at least."""

_SPLITS: dict[Split, int] = {"training": 0, "evaluation": 1, "held-out": 2}


@dataclass(frozen=True)
class Scene:
    """A rendered scene.

    Attributes:
        image: (S, S, 3) uint8 RGB.
        paints: (4 S, 4 S) uint8: the paint of each sample.
        meanings: what each paint is.
    """

    image: np.ndarray
    paints: np.ndarray
    meanings: tuple[Meaning, ...]

    def areas(self, names: Sequence[str], grid: int) -> np.ndarray:
        """The share of each cell that a name covers.

        Args:
            names: any that `pcaseg.data.scene_names` knows.
            grid: cells per side, a divisor of 4 S.

        Returns:
            (T, grid, grid) float32 in 0..1. Names that cover each other ("car", "red car") share samples.

        Raises:
            VocabularyError: scenes do not know a name.
        """
        counts, share = self._counts(grid), np.float32((grid / len(self.paints)) ** 2)
        areas = np.stack([counts[self._covered_by(name)].sum(axis=0) for name in names])
        return areas.reshape(len(names), grid, grid) * share

    def labels(self, names: Sequence[str], grid: int | None = None) -> np.ndarray:
        """The name that covers most of each cell: (grid, grid) int64, -1 where none covers half.

        Args:
            names: any that `pcaseg.data.scene_names` knows.
            grid: cells per side; left out, the image's pixels.

        Raises:
            VocabularyError: scenes do not know a name.
        """
        areas = self.areas(names, len(self.image) if grid is None else grid)
        return np.where(areas.max(axis=0) >= 0.5, areas.argmax(axis=0), -1)

    def present(self, kind: NameKind) -> tuple[str, ...]:
        """The names of a kind that cover at least one cell of a 48 x 48 grid, all cells together."""
        names, least = names_of(kind), (len(self.paints) // 48) ** 2
        return tuple(name for name in names if self._covered_by(name) @ self._samples >= least)

    @cached_property
    def painted(self) -> frozenset[str]:
        """All names that hold for something that was painted, though it may be hidden."""
        return frozenset().union(*(names_covering(paint) for paint in self.meanings))

    @cached_property
    def _samples(self) -> np.ndarray:
        """(paints,): how many samples each paint has."""
        return np.array(Image.fromarray(self.paints).histogram()[: len(self.meanings)])

    def _covered_by(self, name: str) -> np.ndarray:
        """(paints,) bool: those that a name covers."""
        meaning_of(name)
        return np.array([name in names_covering(paint) for paint in self.meanings])

    def _counts(self, grid: int) -> np.ndarray:
        """(paints, grid * grid) float32: samples of each paint in each cell."""
        side, kinds = len(self.paints) // grid, len(self.meanings)
        cells = self.paints.reshape(grid, side, grid, side).transpose(0, 2, 1, 3).reshape(grid * grid, -1)
        flat = cells + (np.arange(grid * grid, dtype=np.int64) * kinds)[:, None]
        counts = np.bincount(flat.ravel(), minlength=grid * grid * kinds).reshape(-1, kinds)
        return np.ascontiguousarray(counts.T, np.float32)


def render_scene(index: int, *, seed: int = 0, split: Split = "training", side: int = SCENE_PX) -> Scene:
    """Scene `index` of the endless stream of a seed: the same on every machine and in any order.

    Args:
        index: from 0.
        seed: from 0; streams of different seeds or splits share no scene.
        split: see `Split`.
        side: S, pixels per side. Another size shows the same scene; `tiny` is trained with 96.
    """
    rng = scene_random(index, seed=seed, split=split)
    return render_layout(draw_layout(rng, held_out=HELD_OUT if split == "held-out" else ()), rng, side=side)


def scene_random(index: int, *, seed: int, split: Split) -> np.random.Generator:
    """The random numbers that decide a scene."""
    return np.random.default_rng(np.random.SeedSequence([seed, _SPLITS[split], index]))


def render_layout(layout: Layout, rng: np.random.Generator, *, side: int = SCENE_PX) -> Scene:
    """Paints a layout and lights it; `rng` decides shapes, texture, light and noise."""
    canvas = _Canvas(side * SUPERSAMPLING)
    for background in layout.backgrounds:
        canvas.paint(Meaning(background=background.name), background.rgb, background.points)
    for placed in layout.objects:
        _draw_object(canvas, placed, rng)
    paints, palette = canvas.finish()
    image = light(paints, palette, [meaning.background for meaning in canvas.meanings], rng)
    return Scene(image, paints, tuple(canvas.meanings))


def _draw_object(canvas: _Canvas, placed: Placed, rng: np.random.Generator) -> None:
    for shape in object_shapes(placed.kind, placed.rgb, rng):
        canvas.paint(Meaning(placed.kind, placed.colour, shape.part), shape.rgb, placed.to_scene(shape.points))


class _Canvas:
    """A map of paints under the brush."""

    def __init__(self, side: int) -> None:
        self.meanings: list[Meaning] = []
        self._palette: list[Rgb] = []
        self._image = Image.new("L", (side, side))
        self._draw = ImageDraw.Draw(self._image)

    def paint(self, meaning: Meaning, rgb: Rgb, points: np.ndarray) -> None:
        """Fills a polygon, (N, 2) x and y in 0..1 of the scene."""
        corners = np.rint(points * self._image.width).astype(int)
        self._draw.polygon(list(map(tuple, corners.tolist())), fill=len(self.meanings))
        self.meanings.append(meaning)
        self._palette.append(rgb)

    def finish(self) -> tuple[np.ndarray, np.ndarray]:
        """paints (4 S, 4 S) uint8; palette (paints, 3) float32."""
        return np.asarray(self._image), np.array(self._palette, np.float32)
