"""Charts as inline SVG: lines, scatter, roofline, bars and stacked bars. No script, no font, no picture from elsewhere.

Each chart says everything in its `<title>` and `<desc>` too, is light or dark as the reader's system is, and can stand
in a page or in a file of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pcaseg.benchmarks import svg
from pcaseg.benchmarks.svg import Axis, Scale

RIGHT = svg.WIDTH - 16
PLOT_HEIGHT = 210


@dataclass(frozen=True)
class Mark:
    """One point, with the interval of its y where there is one."""

    x: float
    y: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Series:
    """Points of one colour.

    Attributes:
        label: its name.
        backend: whose colour and marker it has.
        marks: in the order of x.
        dashed: whether its line is.
        hollow: whether its markers are, as of rows that failed.
    """

    label: str
    backend: str
    marks: tuple[Mark, ...]
    dashed: bool = False
    hollow: bool = False


@dataclass(frozen=True)
class Bar:
    """One bar, with the interval of its value where there is one, and what is written at its end."""

    label: str
    backend: str
    value: float
    text: str
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Stack:
    """One bar of parts: name and value of each, and what is written at its end."""

    label: str
    parts: tuple[tuple[str, float], ...]
    text: str


def line_chart(title: str, description: str, series: Sequence[Series], *, x: Axis, y: Axis) -> str:
    """Lines with markers, intervals as thin uprights, and a legend above the plot.

    Args:
        title: shown, and read out.
        description: read out before the numbers.
        series: at least one mark in all; positive on a log axis.
        x, y: the axes.
    """
    head = _head(title, [(s.label, _key(s, line=True)) for s in series])
    frame = _frame(head, series, x=x, y=y)
    for one in series:
        frame.parts.append(_coloured(one.backend, _line(one, frame) + _intervals(one, frame) + _markers(one, frame)))
    return svg.document(title, _told(description, series, x, y), frame.height, frame.parts)


def scatter(title: str, description: str, series: Sequence[Series], *, x: Axis, y: Axis) -> str:
    """Markers with their names beside them; names that find no free place stand in a legend. Arguments as above."""
    drawn = _frame(_head(title, []), series, x=x, y=y)
    names, unplaced = _names(series, drawn)
    if unplaced:
        drawn = _frame(_head(title, [(s.label, _key(s)) for s in series]), series, x=x, y=y)
        names = []
    marks = [_coloured(s.backend, _intervals(s, drawn) + _markers(s, drawn)) for s in series]
    return svg.document(title, _told(description, series, x, y), drawn.height, [*drawn.parts, *names, *marks])


def roofline(title: str, description: str, series: Sequence[Series], *, gflops: float, gb_s: float) -> str:
    """Speed reached against operations per byte, under the two roofs of a machine.

    Args:
        title, description: as above.
        series: marks of operations per byte and 10^9 operations per second.
        gflops: of the flat roof.
        gb_s: of the slope.
    """
    x, y = Axis("operations per byte that must move (log)", "log"), Axis("10⁹ operations per second (log)", "log")
    key = '<path class="roof" d="M0 -4L20 -4"/>'
    roof = (f"roofs: {svg.short(gb_s)} GB/s, {svg.short(gflops)} GFLOP/s", key)
    ridge = gflops / gb_s
    reach = Series("", "", (Mark(ridge / 4, gflops), Mark(ridge * 2, gflops)))
    frame = _frame(_head(title, [*((s.label, _key(s)) for s in series), roof]), [*series, reach], x=x, y=y)
    left, top, right, bottom = frame.x.low, frame.y.high, frame.x.high, frame.y.low
    start = max(left, bottom / gb_s)
    path = [
        (start, min(start * gb_s, gflops)),
        *([(ridge, gflops)] if ridge > start else []),
        (right, min(gflops, top)),
    ]
    corners = "L".join(f"{svg.place(frame.x(a))} {svg.place(frame.y(b))}" for a, b in path)
    frame.parts.append(f'<path class="roof" d="M{corners}"/>')
    frame.parts.extend(_coloured(s.backend, _markers(s, frame)) for s in series)
    return svg.document(title, _told(f"{description} {roof[0]}.", series, x, y), frame.height, frame.parts)


def bars(
    title: str, description: str, groups: Sequence[tuple[str, Sequence[Bar]]], *, axis: Axis, reference: float | None
) -> str:
    """Horizontal bars in named groups, with intervals and values.

    Args:
        title, description: as above.
        groups: heading (may be empty) and bars of each.
        axis: of the values; linear.
        reference: where an upright marks what is compared with.
    """
    head, y = _head(title, [])
    every = [bar for _, group in groups for bar in group]
    left = _column([bar.label for bar in every])
    room = max(svg.text_width(bar.text) for bar in every) + 10
    ends = [bar.high if bar.high is not None else bar.value for bar in every]
    scale = svg.fit(axis, [*ends, reference or 0.0], left, RIGHT - room)
    rows: list[str] = []
    top = y
    for heading, group in groups:
        if heading:
            rows.append(svg.label(heading, 16, y + 14, kind="group"))
            y += 21
        for bar in group:
            rows.append(_bar(bar, scale, y))
            y += 21
        y += 7
    if reference is not None:
        rows.append(svg.segment(scale(reference), top, scale(reference), y, "reference"))
    told = "; ".join(f"{heading}: {bar.label} {bar.text}" for heading, group in groups for bar in group)
    return svg.document(title, f"{description} {told}", y + 50, [*head, *_value_axis(scale, axis, top, y), *rows])


def stacked_bars(title: str, description: str, stacks: Sequence[Stack], *, axis: Axis, names: Sequence[str]) -> str:
    """Horizontal bars of parts, with their sums, and a legend above.

    Args:
        title, description: as above.
        stacks: the bars.
        axis: of the values; linear.
        names: of all parts, in the legend's order.
    """
    swatches = [(name, f'<rect class="bar" y="-9" width="10" height="10" rx="2" {_style(name)}/>') for name in names]
    parts, y = _head(title, swatches)
    left = _column([stack.label for stack in stacks])
    sums = [sum(value for _, value in stack.parts) for stack in stacks]
    room = max(svg.text_width(stack.text) for stack in stacks) + 10
    scale = svg.fit(axis, sums, left, RIGHT - room)
    rows, top = [], y
    for stack, total in zip(stacks, sums, strict=True):
        rows.append(svg.label(svg.shortened(stack.label, left - 24), left - 8, y + 14, kind="strong", anchor="end"))
        edges = [0.0]
        for name, value in stack.parts:
            edges.append(edges[-1] + value)
            x, width = scale(edges[-2]), scale(edges[-1]) - scale(edges[-2])
            shape = f'x="{svg.place(x)}" y="{svg.place(y + 3)}" width="{svg.place(max(width - 0.7, 0.3))}" height="15"'
            rows.append(f'<rect class="bar" {shape} {_style(name)}/>')
        rows.append(svg.label(stack.text, scale(total) + 6, y + 14, kind="strong"))
        y += 25
    told = "; ".join(f"{s.label}: " + ", ".join(f"{name} {svg.short(v)}" for name, v in s.parts) for s in stacks)
    return svg.document(title, f"{description} {told}", y + 50, [*parts, *_value_axis(scale, axis, top, y + 4), *rows])


@dataclass(frozen=True)
class _Frame:
    """A plot's scales and what is drawn of it so far."""

    x: Scale
    y: Scale
    height: float
    parts: list[str]


def _head(title: str, legend: Sequence[tuple[str, str]]) -> tuple[list[str], float]:
    """Title and legend, and where they end. Keys of the legend are drawn for a text that starts 26 to their right."""
    lines = svg.wrapped(title, RIGHT - 16, 13.5)
    parts = [svg.label(line, 16, 26 + 17 * i, kind="head") for i, line in enumerate(lines)]
    x, y = 16.0, 26.0 + 17 * len(lines) + 3
    for name, key in legend:
        indent = 15 if key.startswith("<rect") else 26
        name = svg.shortened(name, RIGHT - 16 - indent)
        width = indent + svg.text_width(name)
        if x > 16 and x + width > RIGHT:
            x, y = 16.0, y + 18
        parts.append(f'<g transform="translate({svg.place(x)} {svg.place(y)})">{key}</g>')
        parts.append(svg.label(name, x + indent, y, kind="strong"))
        x += width + 14
    return parts, y + 12 if legend else y - 8


def _frame(head: tuple[list[str], float], series: Sequence[Series], *, x: Axis, y: Axis) -> _Frame:
    """Axes below a head, wide enough for everything in `series`."""
    parts, top = list(head[0]), head[1] + 26
    marks = [mark for one in series for mark in one.marks]
    bottom = top + PLOT_HEIGHT
    heights = [v for m in marks for v in (m.y, m.low, m.high) if v is not None]
    y_scale = svg.fit(y, heights, bottom, top)
    left = 16 + max(svg.text_width(name) for _, name in y_scale.ticks) + 6
    x_scale = svg.fit(x, [m.x for m in marks], left, RIGHT)
    parts.append(svg.label(svg.shortened(y.title, RIGHT - 16), 16, top - 14))
    for value, name in y_scale.ticks:
        at = y_scale(value)
        parts.append(svg.segment(left, at, RIGHT, at, "grid"))
        parts.append(svg.label(name, left - 6, at + 4, anchor="end"))
    parts += _bottom_axis(x_scale, x, bottom)
    return _Frame(x_scale, y_scale, bottom + 50, parts)


def _bottom_axis(scale: Scale, axis: Axis, y: float) -> list[str]:
    parts = [svg.segment(scale.start, y, scale.end, y, "axis")]
    for value, name in _spaced(scale):
        half = svg.text_width(name) / 2
        at = min(max(scale(value), 16 + half), svg.WIDTH - 4 - half)
        parts.append(svg.segment(scale(value), y, scale(value), y + 4, "axis"))
        parts.append(svg.label(name, at, y + 17, anchor="middle"))
    title = svg.shortened(axis.title, svg.WIDTH - 32)
    return [*parts, svg.label(title, RIGHT, y + 36, anchor="end")]


def _value_axis(scale: Scale, axis: Axis, top: float, bottom: float) -> list[str]:
    """Uprights behind bars, and the axis below them."""
    grid = [svg.segment(scale(v), top, scale(v), bottom, "grid") for v, _ in _spaced(scale)]
    return [*grid, *_bottom_axis(scale, axis, bottom)]


def _spaced(scale: Scale) -> list[tuple[float, str]]:
    """Ticks whose labels leave a gap; the last one stays."""
    kept: list[tuple[float, str]] = []
    for value, name in reversed(scale.ticks):
        half = svg.text_width(name) / 2
        if not kept or scale(kept[-1][0]) - svg.text_width(kept[-1][1]) / 2 - 5 >= scale(value) + half:
            kept.append((value, name))
    return kept[::-1]


def _column(names: Sequence[str]) -> float:
    """Where bars start so that their names stand before them."""
    return 25 + min(max(svg.text_width(name) for name in names), 196)


def _bar(bar: Bar, scale: Scale, y: float) -> str:
    left, end = scale.start, scale(bar.value)
    shape = f'x="{svg.place(left)}" y="{svg.place(y + 3)}" width="{svg.place(max(end - left, 0.5))}" height="14" rx="2"'
    drawn = f'<rect class="bar" {shape}/>'
    if bar.low is not None and bar.high is not None:
        middle, low, high = y + 10, scale(max(bar.low, scale.low)), scale(bar.high)
        uprights = "".join(f"M{svg.place(x)} {svg.place(middle - 3)}v6" for x in (low, high))
        path = f"M{svg.place(low)} {svg.place(middle)}H{svg.place(high)}{uprights}"
        drawn += f'<path class="halo" d="{path}"/><path class="whisker" d="{path}"/>'
        end = max(end, high)
    name = svg.label(svg.shortened(bar.label, left - 24), left - 8, y + 14, kind="strong", anchor="end")
    return name + _coloured(bar.backend, drawn) + svg.label(bar.text, end + 6, y + 14, kind="strong")


def _style(name: str) -> str:
    return f'style="--c:{svg.variable(name)}"'


def _coloured(backend: str, drawn: str) -> str:
    return f"<g {_style(backend)}>{drawn}</g>"


def _key(series: Series, *, line: bool = False) -> str:
    """A legend's sample: the marker, on a piece of the line."""
    mark = svg.marker(svg.marker_of(series.backend), 10, -4, kind="hollow" if series.hollow else "mark")
    stroke = f'<path class="line{" dashed" if series.dashed else ""}" d="M0 -4L20 -4"/>' if line else ""
    return _coloured(series.backend, stroke + mark)


def _line(series: Series, frame: _Frame) -> str:
    places = "L".join(f"{svg.place(frame.x(m.x))} {svg.place(frame.y(m.y))}" for m in series.marks)
    return f'<path class="line{" dashed" if series.dashed else ""}" d="M{places}"/>'


def _intervals(series: Series, frame: _Frame) -> str:
    spans = [(m.x, m.low, m.high) for m in series.marks if m.low is not None and m.high is not None]
    path = "".join(f"M{svg.place(frame.x(x))} {svg.place(frame.y(a))}V{svg.place(frame.y(b))}" for x, a, b in spans)
    return f'<path class="span" d="{path}"/>' if path else ""


def _markers(series: Series, frame: _Frame) -> str:
    kind, name = "hollow" if series.hollow else "mark", svg.marker_of(series.backend)
    return "".join(svg.marker(name, frame.x(m.x), frame.y(m.y), kind=kind) for m in series.marks)


_Box = tuple[float, float, float, float]


def _names(series: Sequence[Series], frame: _Frame) -> tuple[list[str], bool]:
    """Names beside marks, each on free ground; True if one finds none."""
    marks = [(one.label, frame.x(m.x), frame.y(m.y)) for one in series for m in one.marks]
    taken: list[_Box] = [(x - 6, y - 6, x + 6, y + 6) for _, x, y in marks]
    parts: list[str] = []
    free = _free(taken, (frame.x.start, frame.y.end - 4, RIGHT + 8, frame.y.start - 2))
    for name, x, y in sorted(marks, key=lambda mark: (mark[2], mark[1], mark[0])):
        name = svg.shortened(name, 250)
        width = svg.text_width(name)
        boxes = (_beside(x, y, width, away, turn) for away in (9, 16, 26, 38, 52) for turn in range(8))
        box = next((box for box in boxes if free(box)), None)
        if box is None:
            return [], True
        taken.append(box)
        near_x, near_y = min(max(x, box[0]), box[2]), min(max(y, box[1] + 2), box[3] - 2)
        if math.hypot(near_x - x, near_y - y) > 11:
            parts.append(svg.segment(x, y, near_x, near_y, "leader"))
        parts.append(svg.label(name, box[0], box[3] - 3.5, kind="strong"))
    return parts, False


def _beside(x: float, y: float, width: float, away: float, turn: int) -> _Box:
    """The box of a name in one of eight directions from a mark: right, left, above, below, then between."""
    dx, dy = ((1, 0), (-1, 0), (0, -1), (0, 1), (1, -1), (1, 1), (-1, -1), (-1, 1))[turn]
    left = x + dx * away - (width if dx < 0 else width / 2 if dx == 0 else 0)
    middle = y + dy * (away + 4)
    return left, middle - 7, left + width, middle + 7


def _free(taken: Sequence[_Box], limits: _Box) -> Callable[[_Box], bool]:
    def free(box: _Box) -> bool:
        inside = box[0] >= limits[0] and box[1] >= limits[1] and box[2] <= limits[2] and box[3] <= limits[3]
        return inside and not any(
            box[0] < other[2] and other[0] < box[2] and box[1] < other[3] and other[1] < box[3] for other in taken
        )

    return free


def _told(description: str, series: Sequence[Series], x: Axis, y: Axis) -> str:
    """The numbers of a chart in words."""
    told = "; ".join(
        f"{s.label}: " + ", ".join(f"{svg.short(m.y)} at {svg.short(m.x)}" for m in s.marks) for s in series
    )
    return f"{description} {y.title}, at {x.title}: {told}."
