"""The shapes of the six objects: polygons in a unit square, each with its part and its paint."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Rgb = tuple[float, float, float]

RUBBER, HUB = (58.0, 58.0, 62.0), (150.0, 150.0, 155.0)
GLASS, FRAME = (105.0, 150.0, 180.0), (225.0, 220.0, 210.0)
WOOD, BARK = (112.0, 70.0, 42.0), (104.0, 74.0, 48.0)
ROOFS = ((128.0, 62.0, 48.0), (84.0, 84.0, 96.0))
CREAM = (236.0, 228.0, 206.0)
WHITE = (245.0, 245.0, 245.0)


@dataclass(frozen=True)
class Shape:
    """One polygon of an object.

    Attributes:
        part: a part's name, None for what belongs to no part.
        rgb: its paint, 0..255.
        points: (N, 2) x and y; the object stands in 0..1, y down.
    """

    part: str | None
    rgb: Rgb
    points: np.ndarray


def object_shapes(kind: str, rgb: Rgb, rng: np.random.Generator) -> list[Shape]:
    """An object of a kind, its own colour `rgb`, back to front; proportions from `rng`."""
    return _MAKERS[kind](rgb, rng)


def _car(rgb: Rgb, rng: np.random.Generator) -> list[Shape]:
    floor, belt, top = 0.82, rng.uniform(0.47, 0.52), rng.uniform(0.14, 0.22)
    front, back = rng.uniform(0.66, 0.74), rng.uniform(0.1, 0.2)
    body = [(0.0, belt + 0.06), (0.04, belt), (0.96, belt + 0.03), (1.0, belt + 0.12), (1.0, floor), (0.0, floor)]
    cabin = [(back, belt + 0.01), (back + 0.08, top), (front, top), (front + 0.12, belt + 0.02)]
    middle = (back + front) / 2 + 0.05
    rear = [(back + 0.07, belt), (back + 0.12, top + 0.06), (middle - 0.025, top + 0.06), (middle - 0.025, belt)]
    fore = [(middle + 0.025, belt), (middle + 0.025, top + 0.06), (front - 0.02, top + 0.06), (front + 0.06, belt)]
    radius = rng.uniform(0.15, 0.175)
    shapes = [_shape("body", rgb, body), _shape("body", rgb, cabin)]
    shapes += [_shape("window", GLASS, rear), _shape("window", GLASS, fore)]
    for x in (0.22, 0.78):
        shapes.append(Shape("wheel", RUBBER, _ellipse(x, floor, radius, radius)))
        shapes.append(Shape("wheel", HUB, _ellipse(x, floor, 0.4 * radius, 0.4 * radius)))
    return shapes


def _house(rgb: Rgb, rng: np.random.Generator) -> list[Shape]:
    eaves, peak = rng.uniform(0.36, 0.44), rng.uniform(0.2, 0.5)
    ridge = [(0.5 - peak / 2, 0.02), (0.5 + peak / 2, 0.02)]
    roof = [(0.0, eaves), *ridge, (1.0, eaves)]
    door_x = rng.choice([0.14, 0.4, 0.62])
    shapes = [_shape("wall", rgb, _box(0.07, eaves, 0.93, 1.0)), _shape("roof", _choice(ROOFS, rng), roof)]
    shapes.append(_shape("door", WOOD, _box(door_x, 0.6, door_x + 0.22, 1.0)))
    wide, high = rng.uniform(0.2, 0.24), rng.uniform(0.22, 0.27)
    for x in (0.13, 0.39, 0.65):
        if abs(x - door_x) > 0.24:
            y = eaves + 0.1
            shapes.append(_shape("window", FRAME, _box(x, y, x + wide, y + high)))
            shapes.append(_shape("window", GLASS, _box(x + 0.035, y + 0.035, x + wide - 0.035, y + high - 0.035)))
    return shapes


def _tree(rgb: Rgb, rng: np.random.Generator) -> list[Shape]:
    half = rng.uniform(0.07, 0.1)
    shapes = [_shape("trunk", BARK, [(0.5 - half, 0.5), (0.5 + half, 0.5), (0.52 + half, 1.0), (0.48 - half, 1.0)])]
    form = rng.integers(3)
    if form == 0:
        crown = [(0.5, 0.0), (0.72, 0.34), (0.64, 0.34), (0.86, 0.68), (0.14, 0.68), (0.36, 0.34), (0.28, 0.34)]
        return [*shapes, _shape("crown", rgb, crown)]
    if form == 1:
        return [*shapes, Shape("crown", rgb, _ellipse(0.5, 0.35, rng.uniform(0.32, 0.42), 0.35))]
    for x, y in ((0.3, 0.42), (0.7, 0.42), (0.5, 0.26)):
        shapes.append(Shape("crown", rgb, _ellipse(x, y, 0.27, 0.25)))
    return shapes


def _boat(rgb: Rgb, rng: np.random.Generator) -> list[Shape]:
    deck, mast = rng.uniform(0.66, 0.72), rng.uniform(0.42, 0.5)
    hull = [(0.0, deck), (1.0, deck), (0.84, 1.0), (0.16, 1.0)]
    sail = _mixed(rgb, CREAM, 0.65)
    fore = [(mast + 0.05, 0.06), (mast + 0.05, deck - 0.06), (0.95, deck - 0.06)]
    aft = [(mast - 0.05, 0.16), (mast - 0.05, deck - 0.06), (0.08, deck - 0.06)]
    shapes = [_shape(None, WOOD, _box(mast - 0.025, 0.0, mast + 0.025, deck)), _shape("sail", sail, fore)]
    if rng.random() < 0.6:
        shapes.append(_shape("sail", sail, aft))
    return [*shapes, _shape("hull", rgb, hull)]


def _ball(rgb: Rgb, rng: np.random.Generator) -> list[Shape]:
    centre, half = rng.uniform(0.38, 0.62), rng.uniform(0.11, 0.15)
    angles = [float(np.arcsin((y - 0.5) / 0.5)) for y in (centre - half, centre + half)]
    right = np.linspace(angles[0], angles[1], 8)
    band = 0.5 + 0.5 * np.stack(
        [np.concatenate([np.cos(right), -np.cos(right[::-1])]), np.concatenate([np.sin(right), np.sin(right[::-1])])],
        axis=1,
    )
    return [Shape(None, rgb, _ellipse(0.5, 0.5, 0.5, 0.5)), Shape("stripe", contrast(rgb), band)]


def _mug(rgb: Rgb, rng: np.random.Generator) -> list[Shape]:
    left, right, taper = 0.04, rng.uniform(0.64, 0.68), rng.uniform(0.0, 0.06)
    turn = np.linspace(-0.62 * np.pi, 0.62 * np.pi, 14)
    centre, high = right - 0.02, rng.uniform(0.27, 0.3)
    outer = np.stack([centre + 0.36 * np.cos(turn), 0.55 + high * np.sin(turn)], axis=1)
    inner = np.stack([centre + 0.2 * np.cos(turn), 0.55 + (high - 0.15) * np.sin(turn)], axis=1)
    body = [(left, 0.17), (right, 0.17), (right - taper, 0.96), (left + taper, 0.96)]
    middle, half = (left + right) / 2, (right - left) / 2
    return [
        Shape("handle", _mixed(rgb, (0.0, 0.0, 0.0), 0.15), np.concatenate([outer, inner[::-1]])),
        _shape("body", rgb, body),
        Shape("body", rgb, _ellipse(middle, 0.95, half - taper, 0.05)),
        Shape("body", rgb, _ellipse(middle, 0.17, half, 0.16)),
        Shape("rim", contrast(rgb), _ellipse(middle, 0.17, half - 0.03, 0.135)),
    ]


_MAKERS: dict[str, Callable[[Rgb, np.random.Generator], list[Shape]]] = {
    "car": _car, "house": _house, "tree": _tree, "boat": _boat, "ball": _ball, "mug": _mug,
}  # fmt: skip


def contrast(rgb: Rgb) -> Rgb:
    """A paint that stands out on `rgb`: darker on light colours, lighter on dark ones."""
    light = 0.3 * rgb[0] + 0.59 * rgb[1] + 0.11 * rgb[2] > 95
    return _mixed(rgb, (0.0, 0.0, 0.0), 0.5) if light else _mixed(rgb, WHITE, 0.5)


def _mixed(rgb: Rgb, other: Rgb, share: float) -> Rgb:
    a, b, c = ((1 - share) * x + share * y for x, y in zip(rgb, other, strict=True))
    return a, b, c


def _choice(paints: tuple[Rgb, ...], rng: np.random.Generator) -> Rgb:
    return paints[rng.integers(len(paints))]


def _shape(part: str | None, rgb: Rgb, points: list[tuple[float, float]]) -> Shape:
    return Shape(part, rgb, np.array(points))


def _box(left: float, top: float, right: float, bottom: float) -> list[tuple[float, float]]:
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


def _ellipse(x: float, y: float, a: float, b: float) -> np.ndarray:
    turn = np.arange(24) * (2 * np.pi / 24)
    return np.stack([x + a * np.cos(turn), y + b * np.sin(turn)], axis=1)
