"""What the charts are drawn with: colours, text, ticks, scales and markers. The same input gives the same bytes."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

WIDTH = 380
"""Units of every chart: narrow, so that text of 11.5 units is still read on a telephone."""

FONT = 11.5

TIMES = "\N{MULTIPLICATION SIGN}"

INK = {"bg": ("#ffffff", "#161b22"), "ink": ("#1b2330", "#e8ecf1"), "muted": ("#566070", "#a3adba")}
LINES = {"grid": ("#e6e9ee", "#2a313b"), "axis": ("#98a1ad", "#5d6875"), "other": ("#7d7468", "#b5aa9b")}

BACKENDS = {
    "eager": ("#644f5c", "#9f8b8f", "circle"),
    "eager-autocast": ("#e2629f", "#e4aff5", "square"),
    "eager-compiled": ("#6c44c5", "#7e7ebd", "up"),
    "folded": ("#0f417b", "#219efb", "diamond"),
    "folded-triton": ("#2b95d8", "#d3f5ff", "down"),
    "onnxruntime-cpu": ("#a34900", "#f68845", "hexagon"),
    "onnxruntime-cuda": ("#c48300", "#f2c102", "plus"),
    "onnxruntime-tensorrt": ("#723d1f", "#b97f58", "cross"),
    "tensorrt": ("#538059", "#6ce6b2", "star"),
}
"""Colour on light, colour on dark and marker of each backend. The colours stay apart (CIELAB distance 20 and more) for
the three kinds of colour blindness too; no two share a marker, so that none rests on colour."""

STAGES = {
    "decode": ("#dfc27d", "#c9a95c"),
    "preprocess": ("#bf812d", "#a8772f"),
    "copy in": ("#8c510a", "#7d5420"),
    "encoder": ("#08306b", "#1f5fa8"),
    "cost volume": ("#6baed6", "#8cc8ec"),
    "guidance": ("#c6dbef", "#a9c3dd"),
    "spatial stream": ("#2171b5", "#3f93d6"),
    "semantic stream": ("#5e4fa2", "#8f83d1"),
    "EPL": ("#9ecae1", "#c4e3f5"),
    "decoder": ("#35978f", "#3fa79e"),
    "engine": ("#4a6fa5", "#6f97d1"),
    "label map": ("#c994c7", "#d9a8d7"),
    "copy out": ("#88419d", "#a15cb8"),
}
"""In the order in which an image passes them: earth before the network, blue in it, violet after it."""

Marker = Literal["circle", "square", "up", "diamond", "down", "hexagon", "plus", "cross", "star"]


@dataclass(frozen=True)
class Axis:
    """One axis.

    Attributes:
        title: quantity and unit.
        scale: `linear` starts at 0.
        ticks: value and label of each; empty for steps of 1, 2 and 5.
    """

    title: str
    scale: Literal["linear", "log"] = "linear"
    ticks: tuple[tuple[float, str], ...] = ()


@dataclass(frozen=True)
class Scale:
    """From values to places: `low` lies at `start`, `high` at `end`."""

    log: bool
    low: float
    high: float
    start: float
    end: float
    ticks: tuple[tuple[float, str], ...]

    def __call__(self, value: float) -> float:
        low, high, at = (math.log10(v) if self.log else v for v in (self.low, self.high, value))
        return self.start + (self.end - self.start) * (at - low) / (high - low)


def fit(axis: Axis, values: Iterable[float], start: float, end: float) -> Scale:
    """The scale of an axis that holds all its values: a log one ends on ticks, a linear one a little beyond its values.

    Args:
        axis: which.
        values: finite, and positive on a log axis.
        start, end: places of the ends.
    """
    held = [*values, *(value for value, _ in axis.ticks)]
    log = axis.scale == "log"
    if axis.ticks and log:
        margin = (max(held) / min(held)) ** 0.05 if max(held) > min(held) else 2.0
        return Scale(True, min(held) / margin, max(held) * margin, start, end, axis.ticks)
    if axis.ticks:
        return Scale(False, 0.0, 1.05 * max(held), start, end, axis.ticks)
    room = max(3, min(6, int(abs(end - start) / 38) + 1))
    steps = log_ticks(min(held), max(held)) if log else linear_ticks(max(held), room)
    high = steps[-1] if log else max(steps[1], 1.02 * max(held))
    ticks = thinned(steps) if log else [step for step in steps if step <= high]
    return Scale(log, steps[0], high, start, end, tuple((tick, short(tick)) for tick in ticks))


def linear_ticks(high: float, most: int = 6) -> list[float]:
    """From 0 past `high` in steps of 1, 2 or 5 times a power of ten.

    >>> linear_ticks(37)
    [0.0, 10.0, 20.0, 30.0, 40.0]
    """
    high = high if high > 0 else 1.0
    power = math.floor(math.log10(high)) - 1
    exponents = ((digit, exponent) for exponent in range(power, power + 3) for digit in (1, 2, 5))
    digit, exponent = next(pair for pair in exponents if high <= (most - 1) * pair[0] * 10.0 ** pair[1] * (1 + 1e-9))
    step = float(f"{digit}e{exponent}")
    return [round(n * step, 12) for n in range(math.ceil(high / step - 1e-9) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten, from the last at or below `low` to the first at or above `high`, at least two.

    >>> log_ticks(3, 40)
    [2.0, 5.0, 10.0, 20.0, 50.0]
    """
    exponents = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 2)
    steps = [float(f"{digit}e{exponent}") for exponent in exponents for digit in (1, 2, 5)]
    first = max(i for i, step in enumerate(steps) if step <= low * (1 + 1e-9))
    last = min(i for i, step in enumerate(steps) if step >= high * (1 - 1e-9))
    return steps[first : max(last, first + 1) + 1]


def thinned(ticks: Sequence[float], most: int = 10) -> list[float]:
    """Few enough of some log ticks to be labelled: all, or powers of ten, or every so many of those.

    >>> thinned(log_ticks(1e-7, 1), most=4)
    [1e-07, 1e-05, 0.001, 0.1]
    """
    if len(ticks) <= most:
        return list(ticks)
    tens = [tick for tick in ticks if f"{tick:e}".startswith("1.000000e")]
    return tens[:: math.ceil(len(tens) / most)]


def short(value: float) -> str:
    """A number of an axis: three figures, k and M.

    >>> [short(v) for v in (0, 0.02, 1, 1500, 2e6, 1e-5, 37.25)]
    ['0', '0.02', '1', '1.5k', '2M', '1e-5', '37.2']
    """
    if not math.isfinite(value):
        return str(value)
    if value and (abs(value) < 1e-3 or abs(value) >= 1e9):
        digits, exponent = f"{value:.2e}".split("e")
        return f"{digits.rstrip('0').rstrip('.')}e{int(exponent)}"
    for unit, name in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= unit:
            return f"{value / unit:.3g}{name}"
    return f"{value:.3g}"


def place(value: float) -> str:
    """A coordinate, to a tenth.

    >>> place(12.0), place(12.345)
    ('12', '12.3')
    """
    return f"{value:.1f}".removesuffix(".0")


def text_width(text: str, size: float = FONT) -> float:
    """Units that a text takes at most in the usual sans-serif fonts."""
    units = (0.36 if c in "ilj.,:;|'! ()" else 0.92 if c in "mwMW@%" or ord(c) > 0x2E80 else 0.62 for c in text)
    return size * sum(units)


def shortened(text: str, width: float, size: float = FONT) -> str:
    """`text`, or as much of it as fits into `width`, and an ellipsis."""
    if text_width(text, size) <= width:
        return text
    while text and text_width(text + "…", size) > width:
        text = text[:-1]
    return text + "…"


def wrapped(text: str, width: float, size: float = FONT) -> list[str]:
    """Lines of `text` that fit into `width`."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and text_width(longer, size) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return [shortened(line, width, size) for line in lines]


def label(text: str, x: float, y: float, *, kind: str = "", anchor: str = "start") -> str:
    """A text; `kind` is a class of the style sheet."""
    names = f' class="{kind}"' if kind else ""
    ends = f' text-anchor="{anchor}"' if anchor != "start" else ""
    return f'<text x="{place(x)}" y="{place(y)}"{names}{ends}>{escaped(text)}</text>'


def segment(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    """A straight line."""
    return f'<path class="{kind}" d="M{place(x1)} {place(y1)}L{place(x2)} {place(y2)}"/>'


def escaped(text: str) -> str:
    """For XML and HTML: characters that XML has no place for become U+FFFD."""
    return html.escape(_NO_XML.sub("\ufffd", text))


_NO_XML = re.compile("[^\\t\\n\\r\\x20-\\ud7ff\\ue000-\\ufffd\\U00010000-\\U0010ffff]")
_CORNERS = {
    "square": (4, math.pi / 4, 1.2, 1.2),
    "up": (3, math.pi / 2, 1.3, 1.3),
    "diamond": (4, 0.0, 1.3, 1.3),
    "down": (3, -math.pi / 2, 1.3, 1.3),
    "hexagon": (6, 0.0, 1.15, 1.15),
    "star": (10, math.pi / 2, 1.5, 0.65),
}


def marker(name: str, x: float, y: float, *, size: float = 3.8, kind: str = "mark") -> str:
    """A marker centred on a place."""
    if name == "circle":
        return f'<circle class="{kind}" cx="{place(x)}" cy="{place(y)}" r="{place(size)}"/>'
    if name in ("plus", "cross"):
        turn = 0.0 if name == "plus" else math.pi / 4
        ends = [
            (size * 1.2 * math.cos(turn + k * math.pi / 2), size * 1.2 * math.sin(turn + k * math.pi / 2))
            for k in range(4)
        ]
        path = "".join(f"M{place(x)} {place(y)}L{place(x + dx)} {place(y + dy)}" for dx, dy in ends)
        return f'<path class="{kind} arms" d="{path}"/>'
    count, turn, outer, inner = _CORNERS[name]
    corners = []
    for k in range(count):
        angle, radius = turn + 2 * math.pi * k / count, size * (inner if k % 2 else outer)
        corners.append(f"{place(x + radius * math.cos(angle))} {place(y - radius * math.sin(angle))}")
    return f'<path class="{kind}" d="M{"L".join(corners)}Z"/>'


def variable(name: str) -> str:
    """The CSS variable of a backend or a stage; of one without a colour of its own, that of the others."""
    known = {**BACKENDS, **STAGES}
    return f"var(--{name.replace(' ', '-')})" if name in known else "var(--other)"


def marker_of(backend: str) -> str:
    """A backend's marker."""
    return BACKENDS[backend][2] if backend in BACKENDS else "circle"


def _variables(scheme: Literal[0, 1]) -> str:
    colours = {**INK, **LINES, **BACKENDS, **STAGES}
    return "".join(f"--{name.replace(' ', '-')}:{values[scheme]};" for name, values in colours.items())


STYLE = (
    f".chart{{{_variables(0)}}}"
    f"@media screen and (prefers-color-scheme:dark){{.chart{{{_variables(1)}}}}}"
    ".chart text{font-family:system-ui,-apple-system,'Segoe UI',Roboto,'Liberation Sans',Arial,sans-serif;"
    f"font-size:{FONT}px;fill:var(--muted);font-variant-numeric:tabular-nums}}"
    ".chart .head{font-size:13.5px;font-weight:600;fill:var(--ink)}.chart .strong{fill:var(--ink)}"
    ".chart .group{font-weight:600;fill:var(--ink)}.chart .paper{fill:var(--bg)}"
    ".chart .grid{stroke:var(--grid);stroke-width:1}.chart .axis{stroke:var(--axis);stroke-width:1}"
    ".chart .line{fill:none;stroke:var(--c);stroke-width:1.8;stroke-linejoin:round}.chart .dashed{stroke-dasharray:5 3}"
    ".chart .mark{fill:var(--c);stroke:var(--bg);stroke-width:.8}"
    ".chart .hollow{fill:var(--bg);stroke:var(--c);stroke-width:1.6}"
    ".chart .arms{fill:none;stroke:var(--c);stroke-width:2}.chart .bar{fill:var(--c)}"
    ".chart .halo{fill:none;stroke:var(--bg);stroke-width:3.4}"
    ".chart .whisker{fill:none;stroke:var(--ink);stroke-width:1.1}"
    ".chart .span{fill:none;stroke:var(--c);stroke-width:1.2}"
    ".chart .roof{fill:none;stroke:var(--ink);stroke-width:1.4}.chart .leader{stroke:var(--axis);stroke-width:.8}"
    ".chart .reference{stroke:var(--ink);stroke-width:1;stroke-dasharray:2 3}"
)


def document(title: str, description: str, height: float, parts: Sequence[str]) -> str:
    """A whole chart, to stand in a page or in a file of its own."""
    shown = f'viewBox="0 0 {WIDTH} {place(height)}" width="{WIDTH * 1.4:.0f}" height="{height * 1.4:.0f}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="chart" role="img" {shown}>'
        f"<title>{escaped(title)}</title><desc>{escaped(description)}</desc><style>{STYLE}</style>"
        f'<rect class="paper" width="{WIDTH}" height="{place(height)}" rx="6"/>' + "".join(parts) + "</svg>\n"
    )
