"""Draws labels over an image: class colours, outlines, and a legend of the classes present."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pcaseg.errors import PcasegError

LONGEST_SIDE_PX = 2048
"""Larger images are shown reduced to this."""

SHORTEST_LONG_SIDE_PX = 256
"""Smaller images are shown enlarged, pixel by pixel, until their long side reaches about this."""

LEGEND_ENTRIES = 40
"""Classes named in the legend, the largest first; the rest are counted in one last entry."""

_BACKGROUND = (250, 250, 248)
_INK = (33, 33, 36)
_FAINT_INK = (110, 110, 116)
_FONT_PX = (14, 32)
_NAME_WIDTH_EM = (8, 14)
_MAX_NAME_CHARACTERS = 80
_ELLIPSIS = "..."
_GOLDEN_RATIO = 0.6180339887498949
_LIGHTNESS_SATURATION = ((0.50, 0.85), (0.72, 0.90), (0.34, 0.75))

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def class_colours(count: int) -> np.ndarray:
    """A colour per class, always the same: hues a golden ratio apart, in three alternating lightnesses.

    Neighbouring indices are thus far apart in hue and lightness both.

    Returns:
        `(count, 3)` uint8 RGB.

    >>> class_colours(2).tolist()
    [[236, 19, 45], [119, 172, 248]]
    """
    colours = []
    for index in range(count):
        hue = (0.98 + index * _GOLDEN_RATIO) % 1
        lightness, saturation = _LIGHTNESS_SATURATION[index % len(_LIGHTNESS_SATURATION)]
        colours.append(colorsys.hls_to_rgb(hue, lightness, saturation))
    return np.round(np.array(colours).reshape(-1, 3) * 255).astype(np.uint8)


def draw_overlay(
    image: np.ndarray, labels: np.ndarray, classes: Sequence[str], pixels: np.ndarray, *, opacity: float = 0.5
) -> Image.Image:
    """Blends class colours into an image and adds a legend, below a wide image and beside a tall one.

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
    colours = class_colours(len(classes))
    picture = _blend(*_at_shown_size(image, labels), colours, opacity)
    font_px = min(max(round(max(picture.size) / 60), _FONT_PX[0]), _FONT_PX[1])
    return _with_legend(picture, _legend_entries(classes, pixels, colours), font_px)


@dataclass(frozen=True)
class _Entry:
    name: str
    share: str
    colour: tuple[int, ...] | None  # None for the entry that counts the rest


def _at_shown_size(image: np.ndarray, labels: np.ndarray) -> tuple[Image.Image, np.ndarray]:
    """Image and labels at the size of the overlay: reduced, enlarged by a whole factor, or as they are."""
    height, width = labels.shape
    longest = max(height, width)
    picture = Image.fromarray(image)
    if longest > LONGEST_SIDE_PX:
        size = [max(1, round(side * LONGEST_SIDE_PX / longest)) for side in (height, width)]
        picture = picture.resize((size[1], size[0]), Image.Resampling.BOX, reducing_gap=2.0)
    else:
        factor = max(1, SHORTEST_LONG_SIDE_PX // longest)
        size = [height * factor, width * factor]
        picture = picture.resize((size[1], size[0]), Image.Resampling.NEAREST)
    rows, columns = ((2 * np.arange(n) + 1) * m // (2 * n) for n, m in zip(size, labels.shape, strict=True))
    return picture, labels[rows[:, None], columns]


def _blend(picture: Image.Image, labels: np.ndarray, colours: np.ndarray, opacity: float) -> Image.Image:
    """Class colours over the picture; the rim of every region a good deal more opaque, so that it shows."""
    shown = np.asarray(picture).astype(np.float32)
    rim = np.zeros(labels.shape, bool)
    across, down = labels[:, 1:] != labels[:, :-1], labels[1:] != labels[:-1]
    for part, differs in ((rim[:, 1:], across), (rim[:, :-1], across), (rim[1:], down), (rim[:-1], down)):
        part |= differs
    weight = np.where(rim, min(1.0, 1.8 * opacity), opacity).astype(np.float32)[:, :, None]
    shown += weight * (colours[labels] - shown)
    return Image.fromarray(np.round(shown).astype(np.uint8))


def _legend_entries(classes: Sequence[str], pixels: np.ndarray, colours: np.ndarray) -> list[_Entry]:
    """The classes present, largest first, of equals the lower index first."""
    order = np.argsort(-pixels, kind="stable")
    present = [int(index) for index in order if pixels[index]]
    total = int(pixels.sum())
    entries = [
        _Entry(_drawable(classes[i]), _percent(int(pixels[i]), total), tuple(colours[i].tolist()))
        for i in present[:LEGEND_ENTRIES]
    ]
    rest = present[LEGEND_ENTRIES:]
    if rest:
        entries.append(_Entry(f"{len(rest)} more", _percent(sum(int(pixels[i]) for i in rest), total), None))
    return entries


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
    draw = ImageDraw.Draw(legend)
    for index, (entry, name) in enumerate(zip(entries, names, strict=True)):
        left, middle = gap + index // rows * cell, gap + index % rows * row + row // 2
        _draw_entry(draw, entry, name, left, middle, font=font, swatch=font_px, share_right=left + cell - gap)
    return _joined(picture, legend, beside=beside)


def _joined(picture: Image.Image, legend: Image.Image, *, beside: bool) -> Image.Image:
    origin = (picture.width, 0) if beside else (0, picture.height)
    size = max(picture.width, origin[0] + legend.width), max(picture.height, origin[1] + legend.height)
    canvas = Image.new("RGB", size, _BACKGROUND)
    canvas.paste(picture, (0, 0))
    canvas.paste(legend, origin)
    return canvas


def _draw_entry(
    draw: ImageDraw.ImageDraw, entry: _Entry, name: str, left: int, middle: int, *, font: Font, swatch: int,
    share_right: int,
) -> None:  # fmt: skip
    if entry.colour is not None:
        box = (left, middle - swatch // 2, left + swatch, middle + swatch - swatch // 2)
        draw.rounded_rectangle(box, radius=swatch // 4, fill=entry.colour)
    ink = _INK if entry.colour is not None else _FAINT_INK
    draw.text((left + math.ceil(1.6 * swatch), middle), name, font=font, fill=ink, anchor="lm")
    draw.text((share_right, middle), entry.share, font=font, fill=_FAINT_INK, anchor="rm")
