"""Colours of class names, and patterns that tell classes of like colour apart.

A name's colour depends on the name alone, so that "sky" looks the same in every vocabulary. A name that holds a colour
word is drawn in a shade of that colour: "blue mug" and "blue car" in two blues. No function of the name alone can keep
the colours of every vocabulary apart. Where a legend shows two that are nearer than `APART`, the later one is therefore
also hatched, in legend and picture: a colour says which name, hatching says which of two alike. Colours never change.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from pcaseg.class_names import first_synonym

APART = 0.08
"""Least distance in OKLab of two colours that one legend shows with the same pattern, as long as patterns last."""

PATTERNS = ("plain", "rising", "falling", "level", "upright", "dots", "crossed")
"""Hatchings, in the order in which they are used."""

_PALETTE = """
    d82430 00ff00 0000ff ffccff 005400 cc00ff 189cc0 60186c d8a800 00fffc 009c00 ff6cc0
    846c3c 6c54cc f0f048 841800 b40090 3ccc90 a890ff 185478 c08484 3018a8 90ccfc ff6c00
    f0cc9c 84486c 849c60 b460c0 0078ff 00846c f00c90 9cd824 8400b4 d8a8cc 900cff ff48ff
    84ff9c 60480c 7878a8 c07800 3cc000 186cb4 ff9c78 007800 a80048 30b4ff 9c60ff 5418e4
"""
"""Colours of names without a colour word, 0.1 apart: each the farthest from those before it, of sRGB with OKLab
lightness 0.36 to 0.93 and chroma from 0.07."""

_SHADES = {
    "red": "901800 b40030 d82430 cc5460 ff3054 e46c60",
    "orange": "b47818 d8600c f08418 f09c6c ffa800 ffb478",
    "yellow": "d8cc6c f0d830 fce484 f0f060 fcff00 ffff9c",
    "green": "006030 009c48 3cc000 90c078 48e490 6cf000",
    "blue": "0000b4 003c78 2448cc 546cb4 0084ff 6cb4f0",
    "purple": "48246c 6000a8 8430a8 a800ff 9c6cc0 d860fc",
    "white": "d8f0d8 ccf0ff f0e4ff ffe4d8 d8fffc ffffff",
    "black": "000000 0c1c40 3c1010 26262a 30184a 0e3018",
    "grey": "484848 6c6060 848484 909c9c a8b4a8",
    "brown": "48300c 6c3000 784824 846048 9c6000",
    "pink": "ff60c0 d890a8 fc7890 ff9cc0 ffc0cc",
    "cyan": "009c9c 24ccd8 3ce4ff 78fcff",
    "teal": "005454 006c6c 008484",
    "magenta": "c03090 c000d8 f060c0 ff00ff",
    "lime": "9cc03c 90e424 b4ff00 a8ff90",
    "olive": "545418 6c6c30 848400 909054",
    "navy": "0c0c3c 000084 0c0cb4 183c6c",
    "maroon": "480018 600000 602430 840000",
    "beige": "d8cc9c f0d8b4 ffe4b4",
    "gold": "cc9c3c e4b424 f0cc6c",
    "silver": "b4a8a8 c0c0c0 e4d8d8",
    "violet": "543c90 5400cc 7848e4 a890e4",
}
"""Shades of the colour words, dark to light, chosen in the same way within what the word means."""

_SYNONYMS = {
    "gray": "grey", "aqua": "cyan", "turquoise": "cyan", "fuchsia": "magenta", "golden": "gold",
}  # fmt: skip
_DARK, _LIGHT = ("dark", "deep"), ("light", "pale", "bright")

_SALT = 4978525
"""Found by trial: the six objects of the rendered scenes get six shades of each colour, sky and water are blue, grass
is greenish and sand yellow, and few names of the shipped class lists share a colour."""


def class_colours(names: Sequence[str]) -> np.ndarray:
    """The colour of each name, which depends on nothing else.

    Case, spaces and synonyms after the first comma do not count. Of several colour words the first does; "dark" or
    "light" before it chooses among the darker or the lighter shades.

    Returns:
        `(T, 3)` uint8 RGB.

    >>> class_colours(["sky", "Blue  mug", "light blue mug"]).tolist()
    [[48, 180, 255], [0, 132, 255], [0, 132, 255]]
    """
    plain = (" ".join(first_synonym(name).casefold().split()) for name in names)
    return np.array([_colour(name) for name in plain], np.uint8).reshape(-1, 3)


def hex_colours(names: Sequence[str]) -> list[str]:
    """The colour of each name as the web writes it.

    >>> hex_colours(["sky"])
    ['#30b4ff']
    """
    return [f"#{red:02x}{green:02x}{blue:02x}" for red, green, blue in class_colours(names).tolist()]


def class_patterns(colours: np.ndarray) -> list[int]:
    """The pattern of each colour of a legend, as an index into `PATTERNS`.

    Each gets the first pattern whose earlier colours are all `APART`, or, where there is none, the one whose earlier
    colours are farthest.

    Args:
        colours: `(n, 3)` uint8 RGB in the legend's order.

    >>> class_patterns(np.array([[255, 0, 0], [0, 0, 255], [250, 0, 0]], np.uint8))
    [0, 0, 1]
    """
    points, chosen = oklab(colours), np.empty(0, int)
    for point in points:
        distances = np.linalg.norm(points[: len(chosen)] - point, axis=1)
        nearest = [float(distances[chosen == pattern].min(initial=np.inf)) for pattern in range(len(PATTERNS))]
        apart = [pattern for pattern, distance in enumerate(nearest) if distance >= APART]
        chosen = np.append(chosen, apart[0] if apart else int(np.argmax(nearest)))
    return [int(pattern) for pattern in chosen]


def pattern_mask(pattern: int, height: int, width: int, period: int) -> np.ndarray:
    """The pixels that the lines of a pattern cover, `(H, W)` bool.

    Args:
        pattern: index into `PATTERNS`.
        height: H.
        width: W.
        period: pixels from line to line.
    """
    y, x = np.arange(height)[:, None], np.arange(width)
    thick = max(1, round(period / 4))
    rising, falling = (x + y) % period < thick, (x - y) % period < thick
    masks = {
        "plain": np.zeros((height, width), bool),
        "rising": rising,
        "falling": falling,
        "level": (y % period < thick) & (x >= 0),
        "upright": (x % period < thick) & (y >= 0),
        "dots": (x % period < 2 * thick) & (y % period < 2 * thick),
        "crossed": rising | falling,
    }
    return masks[PATTERNS[pattern]]


def line_colours(colours: np.ndarray) -> np.ndarray:
    """Colours of the hatching on each colour: near black on light ones, white on dark ones; `(n, 3)` uint8."""
    light = oklab(colours)[:, :1] > 0.6
    return np.where(light, 20, 255).astype(np.uint8).repeat(3, axis=1)


def oklab(colours: np.ndarray) -> np.ndarray:
    """Lightness 0..1 and two opponent coordinates of sRGB colours, in which distances are about as they look.

    Source: Björn Ottosson, "A perceptual color space for image processing", 2020.

    Args:
        colours: `(n, 3)` uint8.

    Returns:
        `(n, 3)` float64.
    """
    share = colours.reshape(-1, 3) / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    lab: np.ndarray = np.cbrt(linear @ _RGB_TO_CONES.T) @ _CONES_TO_LAB.T
    return lab


_RGB_TO_CONES = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
_CONES_TO_LAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)


@lru_cache(maxsize=4096)
def _colour(name: str) -> tuple[int, ...]:
    words = re.findall(r"[^\W\d_]+", name)
    for place, word in enumerate(words):
        if (shades := _SHADES.get(_SYNONYMS.get(word, word))) is not None:
            modifier = words[place - 1] if place else ""
            chosen, half = shades.split(), len(shades.split()) // 2
            if modifier in _DARK:
                chosen = chosen[:half]
            elif modifier in _LIGHT:
                chosen = chosen[-half:]
            rest = [other for other in words if other not in (word, *_DARK, *_LIGHT)]
            return _pick(" ".join(rest), chosen)
    return _pick(name, _PALETTE.split())


def _pick(text: str, colours: Sequence[str]) -> tuple[int, ...]:
    """One of the colours by a hash, the same on every machine."""
    digest = hashlib.blake2b(f"{_SALT} {text}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return tuple(bytes.fromhex(colours[int.from_bytes(digest, "big") % len(colours)]))
