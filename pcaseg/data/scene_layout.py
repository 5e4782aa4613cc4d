"""Layouts of scenes: backgrounds, and objects with their colours, places and sizes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pcaseg.data.scene_names import COLOURS, HELD_OUT, OBJECTS
from pcaseg.data.scene_shapes import Rgb

COLOUR_RGB: dict[str, Rgb] = {
    "red": (205, 32, 34), "orange": (242, 130, 24), "yellow": (244, 216, 40), "green": (32, 150, 62),
    "blue": (38, 74, 205), "purple": (132, 48, 168), "white": (242, 242, 240), "black": (22, 22, 26),
}  # fmt: skip
BACKGROUND_RGB: dict[str, Rgb] = {
    "sky": (160, 203, 238), "grass": (112, 146, 58), "water": (38, 112, 148), "road": (118, 116, 116),
    "sand": (212, 188, 142),
}  # fmt: skip
GROUNDS = ("grass", "water", "road", "sand")

MOST_OBJECTS = 5
SIZES = (0.34, 0.66)
"""Sides of objects' squares, in scenes."""

MOST_OVERLAP = 0.3
"""Largest overlap of two objects' squares, over the smaller; what stands behind stays to be recognised."""

_TRIES = 12
_ASPECTS = {"car": (1.25, 0.8), "house": (1.0, 0.95), "tree": (0.85, 1.15), "boat": (1.1, 1.05), "ball": (0.72, 0.72)}
"""Width and height of a kind in its square's sides; of others (1, 0.9)."""


@dataclass(frozen=True)
class Background:
    """A background's polygon, (N, 2) in 0..1 of the scene."""

    name: str
    rgb: Rgb
    points: np.ndarray


@dataclass(frozen=True)
class Placed:
    """An object in the scene; lengths in 0..1 of it, y down.

    Attributes:
        kind, colour: of `OBJECTS` and `COLOURS`.
        rgb: this object's own shade of its colour.
        centre, size: x and y, width and height.
        turn: radians.
        mirrored: 1 or -1, what x is multiplied with.
    """

    kind: str
    colour: str
    rgb: Rgb
    centre: tuple[float, float]
    size: tuple[float, float]
    turn: float
    mirrored: int

    def to_scene(self, points: np.ndarray) -> np.ndarray:
        """(N, 2) of the object's unit square, to the scene's."""
        x, y = ((points - 0.5) * self.size).T
        x = x * self.mirrored
        cos, sin = np.cos(self.turn), np.sin(self.turn)
        return np.stack([self.centre[0] + cos * x - sin * y, self.centre[1] + sin * x + cos * y], axis=1)


@dataclass(frozen=True)
class Layout:
    """Backgrounds and objects, back to front."""

    backgrounds: tuple[Background, ...]
    objects: tuple[Placed, ...]


def draw_layout(rng: np.random.Generator, *, held_out: Sequence[str] = ()) -> Layout:
    """Draws a layout.

    Args:
        rng: what decides.
        held_out: pairs of which at least one shall occur, and others may; elsewhere no held-out pair does.
    """
    horizon = 0.0 if rng.random() < 0.12 else float(rng.uniform(0.18, 0.5))
    objects: list[Placed] = []
    count = int(rng.integers(2, MOST_OBJECTS + 1))
    for number in range(count):
        kind, colour = _draw_pair(rng, held_out, first=number == 0)
        for _ in range(_TRIES):
            placed = _place(kind, colour, horizon, rng)
            if all(_overlap(placed, other) <= MOST_OVERLAP for other in objects):
                objects.append(placed)
                break
    objects.sort(key=lambda placed: placed.centre[1] + placed.size[1] / 2)
    return Layout(_draw_backgrounds(horizon, rng), tuple(objects))


def _draw_pair(rng: np.random.Generator, held_out: Sequence[str], *, first: bool) -> tuple[str, str]:
    if held_out and (first or rng.random() < 0.25):
        colour, kind = held_out[int(rng.integers(len(held_out)))].split(" ")
        return kind, colour
    while True:
        kind, colour = OBJECTS[rng.integers(len(OBJECTS))], COLOURS[rng.integers(len(COLOURS))]
        if f"{colour} {kind}" not in HELD_OUT:
            return kind, colour


def _place(kind: str, colour: str, horizon: float, rng: np.random.Generator) -> Placed:
    side = rng.uniform(*SIZES)
    wide, high = _ASPECTS.get(kind, (1.0, 0.9))
    width, height = wide * side * rng.uniform(0.9, 1.1), high * side * rng.uniform(0.9, 1.1)
    x = rng.uniform(0.35 * width, 1 - 0.35 * width)
    bottom = rng.uniform(max(horizon + 0.08, height - 0.05), 1.04)
    turn = rng.normal(0.0, 0.09) if kind != "ball" else rng.uniform(-0.8, 0.8)
    mirrored = 1 if rng.random() < 0.5 else -1
    return Placed(
        kind, colour, _shade(COLOUR_RGB[colour], rng), (x, bottom - height / 2), (width, height), turn, mirrored
    )


def _shade(rgb: Rgb, rng: np.random.Generator) -> Rgb:
    gain, shift = rng.uniform(0.9, 1.08), rng.uniform(-5, 5, 3)
    r, g, b = (float(gain * channel + step) for channel, step in zip(rgb, shift, strict=True))
    return r, g, b


def _overlap(a: Placed, b: Placed) -> float:
    """Overlap of the squares of two objects, over the smaller."""
    shared = 1.0
    for axis in range(2):
        low = max(a.centre[axis] - a.size[axis] / 2, b.centre[axis] - b.size[axis] / 2)
        high = min(a.centre[axis] + a.size[axis] / 2, b.centre[axis] + b.size[axis] / 2)
        shared *= max(0.0, high - low)
    return shared / min(a.size[0] * a.size[1], b.size[0] * b.size[1])


def _draw_backgrounds(horizon: float, rng: np.random.Generator) -> tuple[Background, ...]:
    """Sky above the horizon, one ground below, and often a second as a band, a corner or a way into the distance."""
    order = rng.permutation(len(GROUNDS))
    first, second = GROUNDS[order[0]], GROUNDS[order[1]]
    everything = [(0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0)]
    chosen: list[tuple[str, list[tuple[float, float]]]] = [(first, everything)]
    form, split, slope = rng.integers(3), rng.uniform(horizon + 0.15, 0.85), rng.uniform(-0.12, 0.12)
    if rng.random() < 0.65:
        if form == 0:
            area = [(0.0, split - slope), (1.0, split + slope), (1.0, 1.0), (0.0, 1.0)]
        elif form == 1:
            edge = rng.uniform(0.35, 0.75)
            area = [(edge + slope, horizon), (1.0, horizon), (1.0, 1.0), (edge - 2 * slope, 1.0)]
        else:
            far, near, half = rng.uniform(0.3, 0.7), rng.uniform(0.25, 0.75), rng.uniform(0.2, 0.4)
            area = [(far - half / 3, horizon), (far + half / 3, horizon), (near + half, 1.0), (near - half, 1.0)]
        chosen.append((second, area))
    if horizon > 0:
        tilt = rng.uniform(-0.03, 0.03)
        chosen.append(("sky", [(0.0, 0.0), (1.0, 0.0), (1.0, horizon + tilt), (0.0, horizon - tilt)]))
    return tuple(Background(name, _shade(BACKGROUND_RGB[name], rng), np.array(area)) for name, area in chosen)
