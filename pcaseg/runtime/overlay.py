"""Draws labels over an image: class colours, outlines, and a legend of the classes present."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pcaseg.errors import PcasegError
from pcaseg.runtime.palette import class_colours, class_patterns, line_colours, pattern_mask

LONGEST_SIDE_PX = 2048
"""Larger images are shown reduced to this."""

SHORTEST_LONG_SIDE_PX = 384
"""Smaller images are shown enlarged, pixel by pixel, until their long side reaches at least this."""

LEGEND_ENTRIES = 40
"""Classes named in the legend, the largest first; the rest are counted in one last entry."""

_BACKGROUND = (250, 250, 248)
_INK = (33, 33, 36)
_FAINT_INK = (110, 110, 116)
_FRAME = (140, 140, 144)
_FONT_PX = (14, 32)
_NAME_WIDTH_EM = (8, 14)
_MAX_NAME_CHARACTERS = 80
_ELLIPSIS = "..."

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def draw_overlay(
    image: np.ndarray, labels: np.ndarray, classes: Sequence[str], pixels: np.ndarray, *, opacity: float = 0.5
) -> Image.Image:
    """Blends class colours into an image and adds a legend, below a wide image and beside a tall one.

    Classes of the legend whose colours are alike differ by hatching, see `pcaseg.runtime.palette`.

    Args:
        image: `(H, W, 3)` uint8 RGB.
        labels: `(H, W)` indices into `classes`.
        classes: T names.
        pixels: `(T,)` number of pixels of each class.
        opacity: of the colours, 0 (image alone) to 1 (colours alone).

    Raises:
        PcasegError: opacity outside 0..1.
    """
    if not 0 <= opacity <= 1:
        raise PcasegError(f"opacity={opacity}: give a number from 0 to 1")
    looks = _looks(classes, pixels)
    picture, shown_labels = _at_shown_size(image, labels)
    font_px = min(max(round(max(picture.size) / 60), _FONT_PX[0]), _FONT_PX[1])
    picture = _blend(picture, shown_labels, looks, opacity, period=font_px // 2)
    return _with_legend(picture, _legend_entries(classes, pixels, looks, font_px), font_px)


@dataclass(frozen=True, eq=False)
class _Looks:
    """Drawing of the classes.

    Attributes:
        present: indices of the classes of the legend, the largest first, of equals the lower index first; and of
            those that it only counts.
        colours, lines: `(T, 3)` uint8, of areas and of hatching.
        patterns: `(T,)` indices into `PATTERNS`.
    """

    present: list[int]
    colours: np.ndarray
    lines: np.ndarray
    patterns: np.ndarray


@dataclass(frozen=True)
class _Entry:
    name: str
    share: str
    swatch: Image.Image | None  # None for the entry that counts the rest


def _looks(classes: Sequence[str], pixels: np.ndarray) -> _Looks:
    colours = class_colours(classes)
    present = [int(index) for index in np.argsort(-pixels, kind="stable") if pixels[index]]
    patterns = np.zeros(len(classes), int)
    patterns[present[:LEGEND_ENTRIES]] = class_patterns(colours[present[:LEGEND_ENTRIES]])
    return _Looks(present, colours, line_colours(colours), patterns)


def _at_shown_size(image: np.ndarray, labels: np.ndarray) -> tuple[Image.Image, np.ndarray]:
    """Image and labels at the size of the overlay: reduced, enlarged by a whole factor, or as they are."""
    height, width = labels.shape
    longest = max(height, width)
    picture = Image.fromarray(image)
    if longest > LONGEST_SIDE_PX:
        size = [max(1, round(side * LONGEST_SIDE_PX / longest)) for side in (height, width)]
        picture = picture.resize((size[1], size[0]), Image.Resampling.BOX, reducing_gap=2.0)
    else:
        factor = math.ceil(SHORTEST_LONG_SIDE_PX / longest)
        size = [height * factor, width * factor]
        picture = picture.resize((size[1], size[0]), Image.Resampling.NEAREST)
    rows, columns = ((2 * np.arange(n) + 1) * m // (2 * n) for n, m in zip(size, labels.shape, strict=True))
    return picture, labels[rows[:, None], columns]


def _blend(picture: Image.Image, labels: np.ndarray, looks: _Looks, opacity: float, *, period: int) -> Image.Image:
    """Class colours over the picture; rims of regions and hatching more opaque, so that they show."""
    shown = np.asarray(picture).astype(np.float32)
    rim = np.zeros(labels.shape, bool)
    across, down = labels[:, 1:] != labels[:, :-1], labels[1:] != labels[:-1]
    for part, differs in ((rim[:, 1:], across), (rim[:, :-1], across), (rim[1:], down), (rim[:-1], down)):
        part |= differs
    weight = np.where(rim, min(1.0, 1.8 * opacity), opacity).astype(np.float32)[:, :, None]
    shown += weight * (looks.colours[labels] - shown)
    height, width = labels.shape
    for pattern in np.unique(looks.patterns[looks.patterns > 0]).tolist():
        hatched = (looks.patterns == pattern)[labels] & pattern_mask(pattern, height, width, period) & ~rim
        shown[hatched] += opacity * (looks.lines[labels[hatched]] - shown[hatched])
    return Image.fromarray(np.round(shown).astype(np.uint8))


def _legend_entries(classes: Sequence[str], pixels: np.ndarray, looks: _Looks, font_px: int) -> list[_Entry]:
    named, rest = looks.present[:LEGEND_ENTRIES], looks.present[LEGEND_ENTRIES:]
    total = int(pixels.sum())
    entries = [
        _Entry(_drawable(classes[i]), _percent(int(pixels[i]), total), _swatch(looks, i, font_px)) for i in named
    ]
    if rest:
        entries.append(_Entry(f"{len(rest)} more", _percent(sum(int(pixels[i]) for i in rest), total), None))
    return entries


def _swatch(looks: _Looks, index: int, font_px: int) -> Image.Image:
    """A square of a class, as its regions are drawn, with a thin frame: white too shows on the legend's ground."""
    side = math.ceil(1.2 * font_px)
    pixels = np.broadcast_to(looks.colours[index], (side, side, 3)).copy()
    pixels[pattern_mask(int(looks.patterns[index]), side, side, font_px // 2)] = looks.lines[index]
    swatch = Image.fromarray(pixels)
    ImageDraw.Draw(swatch).rectangle((0, 0, side - 1, side - 1), outline=_FRAME)
    return swatch


def _drawable(name: str) -> str:
    """A name on one line without characters that have no glyph of their own, cut to a bounded length."""
    return " ".join("".join(c if c.isprintable() else " " for c in name[: 4 * _MAX_NAME_CHARACTERS]).split())


def _percent(pixels: int, total: int) -> str:
    share = 100 * pixels / total
    return "<0.1 %" if share < 0.1 else f"{share:.1f} %"


def _ellipsised(name: str, font: Font, width: float) -> str:
    if len(name) <= _MAX_NAME_CHARACTERS and font.getlength(name) <= width:
        return name
    name = name[:_MAX_NAME_CHARACTERS]
    while name and font.getlength(name.rstrip() + _ELLIPSIS) > width:
        name = name[:-1]
    return name.rstrip() + _ELLIPSIS


def _with_legend(picture: Image.Image, entries: Sequence[_Entry], font_px: int) -> Image.Image:
    font = ImageFont.load_default(font_px)
    gap, row = font_px, math.ceil(1.6 * font_px)
    share_width = math.ceil(font.getlength("100.0 %"))
    beside = picture.height > picture.width
    # Below, names are cut so that two columns fit if that leaves them readable.
    narrow, wide = (em * font_px for em in _NAME_WIDTH_EM)
    halved = (picture.width - gap) // 2 - (row + share_width + 2 * gap)
    limit = halved if not beside and narrow <= halved < wide else wide
    names = [_ellipsised(entry.name, font, limit) for entry in entries]
    cell = row + math.ceil(max(font.getlength(name) for name in names)) + gap + share_width + gap
    if beside:
        columns = math.ceil(len(entries) / max(1, (picture.height - 2 * gap) // row))
    else:
        columns = min(len(entries), max(1, (picture.width - gap) // cell))
    rows = math.ceil(len(entries) / columns)
    legend = Image.new("RGB", (gap + columns * cell, 2 * gap + rows * row), _BACKGROUND)
    for index, (entry, name) in enumerate(zip(entries, names, strict=True)):
        left, middle = gap + index // rows * cell, gap + index % rows * row + row // 2
        _draw_entry(legend, entry, name, (left, left + row, left + cell - gap), middle, font)
    return _joined(picture, legend, beside=beside)


def _joined(picture: Image.Image, legend: Image.Image, *, beside: bool) -> Image.Image:
    origin = (picture.width, 0) if beside else (0, picture.height)
    size = max(picture.width, origin[0] + legend.width), max(picture.height, origin[1] + legend.height)
    canvas = Image.new("RGB", size, _BACKGROUND)
    canvas.paste(picture, (0, 0))
    canvas.paste(legend, origin)
    return canvas


def _draw_entry(
    legend: Image.Image, entry: _Entry, name: str, columns: tuple[int, int, int], middle: int, font: Font
) -> None:
    """Draws one row; `columns` are the left of swatch and name and the right of the share."""
    swatch_left, name_left, share_right = columns
    ink = _FAINT_INK if entry.swatch is None else _INK
    if entry.swatch is not None:
        legend.paste(entry.swatch, (swatch_left, middle - entry.swatch.height // 2))
    draw = ImageDraw.Draw(legend)
    draw.text((name_left, middle), name, font=font, fill=ink, anchor="lm")
    draw.text((share_right, middle), entry.share, font=font, fill=_FAINT_INK, anchor="rm")
