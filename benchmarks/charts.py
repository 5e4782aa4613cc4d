"""Charts as SVG through matplotlib: lines, marks under roofs, bars and stacked bars.

Each is light or dark as the reader's system is: matplotlib draws the light colours of the palette, which then become
CSS variables. Text stays text, so that it can be selected, searched and read out; places are computed for matplotlib's
own DejaVu Sans, which is wider than the fonts of systems. The same chart gives the same bytes on one machine.
"""

from __future__ import annotations

import hashlib
import json
import math
import textwrap
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from pcaseg.benchmarks.chart_colours import colour, marker
from pcaseg.benchmarks.chart_svg import svg_text
from pcaseg.errors import MissingDependencyError, install_hint

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 380
"""CSS pixels of every chart: narrow, so that its text of 11.5 is still read on a telephone."""

LONGEST = 37
"""Characters of a name in a chart; longer ones are cut."""


@dataclass(frozen=True)
class ChartAxis:
    """One axis.

    Attributes:
        title: quantity and unit.
        scale: `linear` starts at 0.
        ticks: value and label of each; empty for matplotlib's choice.
    """

    title: str
    scale: Literal["linear", "log"] = "linear"
    ticks: tuple[tuple[float, str], ...] = ()


@dataclass(frozen=True)
class ChartMark:
    """One mark, with the interval of its y where there is one."""

    x: float
    y: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class ChartSeries:
    """Marks of one colour.

    Attributes:
        label: its name.
        backend: whose colour and marker it has.
        marks: in the order of x.
        dashed: its line is.
        hollow: its markers are, as of rows that failed.
    """

    label: str
    backend: str
    marks: tuple[ChartMark, ...]
    dashed: bool = False
    hollow: bool = False


@dataclass(frozen=True)
class ChartBar:
    """One bar of named parts, with the interval of its end where there is one, and what is written behind it."""

    label: str
    parts: tuple[tuple[str, float], ...]
    text: str
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Chart:
    """Base of all charts: a title that is shown and read out, and a description that is read out."""

    title: str
    description: str

    def svg(self) -> str:
        """The picture, to stand in a page or in a file of its own.

        Raises:
            MissingDependencyError: matplotlib is not installed.
        """
        try:
            from matplotlib import style
            from matplotlib.figure import Figure
            from matplotlib.layout_engine import ConstrainedLayoutEngine
        except ImportError as error:
            raise MissingDependencyError(f"this needs the package matplotlib; {install_hint('benchmarks')}") from error
        with style.context(["default", _style()], after_reset=True), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)  # the reader's own fonts have it
            figure = Figure((WIDTH / 72, 1), layout=ConstrainedLayoutEngine(w_pad=11 / 72, h_pad=7 / 72))
            title = textwrap.fill(printable(self.title), 46)
            figure.suptitle(title, x=12 / WIDTH, ha="left", gid="head")
            figure.patch.set_gid("paper")
            height = self._draw(figure) + 17 * title.count("\n")
            figure.set_figheight((height + _legend(figure)) / 72)
            return svg_text(figure, title=self.title, description=self.told(), source=self.source())

    def source(self) -> str:
        """The SHA-256 of all that the chart is made from."""
        return hashlib.sha256(json.dumps([type(self).__name__, asdict(self)]).encode()).hexdigest()

    def told(self) -> str:
        """The description, and every number."""
        raise NotImplementedError

    def _draw(self, figure: Figure) -> float:
        """Draws into an empty figure; returns the height that it needs beside title and legend, in pixels."""
        raise NotImplementedError


@dataclass(frozen=True)
class MarksChart(Chart):
    """Markers over two axes.

    Attributes:
        series: at least one mark in all; positive on a log axis.
        x, y: the axes.
        joined: by lines.
        roofs: name, y of the flat one, and y over x of the slope to it; both axes are log then.
    """

    series: tuple[ChartSeries, ...]
    x: ChartAxis
    y: ChartAxis
    joined: bool = True
    roofs: tuple[str, float, float] | None = None

    def told(self) -> str:
        said = (f"{s.label}: " + ", ".join(f"{short(m.y)} at {short(m.x)}" for m in s.marks) for s in self.series)
        return f"{self.description} {self.y.title}, at {self.x.title}: {'; '.join(said)}."

    def _draw(self, figure: Figure) -> float:
        axes = figure.subplots()
        axes.set_title(printable(self.y.title), loc="left")
        marks = [mark for one in self.series for mark in one.marks]
        xs, ys = [m.x for m in marks], [v for m in marks for v in (m.y, m.low, m.high) if v is not None]
        for one in self.series:
            _draw_series(axes, one, joined=self.joined)
        if self.roofs:
            said, flat, slope = self.roofs
            ridge = flat / slope
            xs, ys = [*xs, ridge / 4, 2 * ridge], [*ys, flat]
            edge = min(ys) / slope / 10, ridge, max(xs) * 10
            axes.plot(edge, [edge[0] * slope, flat, flat], color=colour("ink"), linewidth=1.4, label=said, gid="line")
        _fit(axes, "x", self.x, xs)
        _fit(axes, "y", self.y, ys)
        return 292


@dataclass(frozen=True)
class BarsChart(Chart):
    """Horizontal bars in named groups.

    Attributes:
        groups: heading (may be empty) and bars of each, at least one in each.
        axis: of the values; linear.
        legend: names of parts, in the order of the legend; empty for none.
        reference: where an upright marks what is compared with.
    """

    groups: tuple[tuple[str, tuple[ChartBar, ...]], ...]
    axis: ChartAxis
    legend: tuple[str, ...] = ()
    reference: float | None = None

    def told(self) -> str:
        bars = ((f"{heading}: " if heading else "", bar) for heading, group in self.groups for bar in group)
        said = (f"{heading}{bar.label} {self._numbers(bar)}" for heading, bar in bars)
        return f"{self.description} {'; '.join(said)}."

    def _numbers(self, bar: ChartBar) -> str:
        return ", ".join(f"{name} {short(value)}" for name, value in bar.parts) if self.legend else bar.text

    def _draw(self, figure: Figure) -> float:
        bars = [bar for _, group in self.groups for bar in group]
        most = max([*(max(_total(bar), bar.high or 0) for bar in bars), self.reference or 0])
        ratios = [len(group) + 0.2 for _, group in self.groups]
        rows = figure.subplots(len(self.groups), 1, sharex=True, squeeze=False, height_ratios=ratios)[:, 0]
        for name in self.legend:
            rows[0].barh(0, 0, color=colour(name), label=_cut(name))
        for axes, (heading, group) in zip(rows, self.groups, strict=True):
            _draw_bars(axes, group)
            axes.set_title(printable(heading), loc="left", color=colour("ink"), fontweight="bold")
            axes.tick_params(left=False, bottom=axes is rows[-1], labelcolor=colour("muted"))
            axes.tick_params(axis="y", labelcolor=colour("ink"))
            axes.spines.bottom.set_visible(axes is rows[-1])
            if self.reference is not None:
                axes.axvline(self.reference, color=colour("ink"), linewidth=1, linestyle=(0, (2, 3)))
        _fit(rows[-1], "x", self.axis, [1.15 * most])
        return 105 + 21 * len(bars) + 24 * (len(self.groups) - 1)


def short(value: float) -> str:
    """A number of an axis: three figures, k and M.

    >>> [short(v) for v in (0, 0.02, 1, 1500, 2e6, 1e-5, 37.25)]
    ['0', '0.02', '1', '1.5k', '2M', '1e-05', '37.2']
    """
    for unit, name in ((1e6, "M"), (1e3, "k")):
        if unit <= abs(value) < 1000 * unit:
            return f"{value / unit:.3g}{name}"
    return f"{value:.3g}"


def printable(text: str) -> str:
    """Text for a picture: of characters that a font may have, and not too long.

    >>> printable("a\\x00b\\n")
    'a\N{REPLACEMENT CHARACTER}b\N{REPLACEMENT CHARACTER}'
    """
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def _cut(text: str) -> str:
    return printable(text if len(text) <= LONGEST else text[: LONGEST - 1] + "…")


def _style() -> dict[str, Any]:
    """Settings of matplotlib for every chart."""
    ink, muted, axis = colour("ink"), colour("muted"), colour("axis")
    return {
        **{
            "svg.fonttype": "none",
            "svg.hashsalt": "pcaseg",
            "text.parse_math": False,
            "font.sans-serif": ["DejaVu Sans"],
        },
        **{"font.size": 11.5, "figure.titlesize": 13.5, "figure.titleweight": "bold", "text.color": ink},
        **{"axes.titlesize": 11.5, "axes.titlecolor": muted, "axes.labelcolor": muted, "axes.edgecolor": axis},
        **{"axes.spines.top": False, "axes.spines.right": False, "axes.spines.left": False, "axes.facecolor": "none"},
        **{"axes.grid": True, "axes.axisbelow": True, "grid.color": colour("grid"), "figure.facecolor": colour("bg")},
        **{"xtick.color": axis, "ytick.color": axis, "xtick.labelcolor": muted, "ytick.labelcolor": muted},
        **{"ytick.major.size": 0, "xaxis.labellocation": "right", "legend.frameon": False, "legend.columnspacing": 1.2},
        **{"lines.linewidth": 1.8, "lines.markersize": 7, "lines.markeredgewidth": 0.6, "legend.labelspacing": 0.35},
    }


def _draw_series(axes: Axes, series: ChartSeries, *, joined: bool) -> None:
    own, paper = colour(series.backend), colour("bg")
    spans = [(m.x, m.low, m.high) for m in series.marks if m.low is not None and m.high is not None]
    if spans:
        axes.vlines(*zip(*spans, strict=True), color=own, linewidth=1.2)
    axes.plot(
        [m.x for m in series.marks],
        [m.y for m in series.marks],
        label=_cut(series.label),
        color=own,
        linestyle="none" if not joined else "--" if series.dashed else "-",
        marker=(shape := marker(series.backend)),
        markersize=(7 if joined else 8) * (1.4 if shape == "*" else 1),
        markerfacecolor=paper if series.hollow else own,
        markeredgecolor=own if series.hollow else paper,
        gid="marks",
    )


def _draw_bars(axes: Axes, bars: Sequence[ChartBar]) -> None:
    """Draws bars from top to bottom, part behind part."""
    from matplotlib.patheffects import AbstractPathEffect, withStroke

    for place, bar in enumerate(bars):
        end = 0.0
        for name, value in bar.parts:
            axes.barh(place, value, 0.7, left=end, color=colour(name), edgecolor=colour("bg"), linewidth=0.6, gid="bar")
            end += value
        if bar.low is not None and bar.high is not None:
            halo: list[AbstractPathEffect] = [withStroke(linewidth=3, foreground=colour("bg"))]
            span = [[end - min(bar.low, end)], [max(bar.high, end) - end]]
            drawn = axes.errorbar(end, place, xerr=span, color=colour("ink"), linewidth=1.1, capsize=3)
            for artist in (*drawn.lines[1], *drawn.lines[2]):
                artist.set_path_effects(halo)
        at = max(end, bar.high or 0), place
        axes.annotate(printable(bar.text), at, (5, 0), textcoords="offset points", va="center_baseline")
    axes.set_yticks(range(len(bars)), [_cut(bar.label) for bar in bars])
    axes.set_ylim(len(bars) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")


def _total(bar: ChartBar) -> float:
    return sum(value for _, value in bar.parts)


def _fit(axes: Axes, name: Literal["x", "y"], axis: ChartAxis, values: Iterable[float]) -> None:
    """Scale, limits, ticks and title of an axis that holds all values; the title of y stands above the plot."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

    held = [*values, *(value for value, _ in axis.ticks)]
    low, high, line = min(held), max(held), axes.xaxis if name == "x" else axes.yaxis
    set_scale, set_limits = (axes.set_xscale, axes.set_xlim) if name == "x" else (axes.set_yscale, axes.set_ylim)
    set_scale(axis.scale)
    if axis.scale == "log":
        room = max((high / low) ** 0.06, 1.15)
        set_limits(low / room, high * room)
    else:
        set_limits(0, 1.04 * high or 1)
    if axis.scale == "log" and high / low > 6:
        line.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high / low < 300 else (1.0,)))
    else:
        line.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    line.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
    line.set_minor_locator(NullLocator())
    if axis.ticks:
        line.set_ticks(*zip(*_apart(axis, low, high), strict=True))
    if name == "x":
        axes.set_xlabel(printable(axis.title))


def _apart(axis: ChartAxis, low: float, high: float) -> list[tuple[float, str]]:
    """Ticks whose labels leave a gap; the last one stays."""
    kept: list[tuple[float, str]] = []
    for value, label in sorted(axis.ticks, reverse=True):
        gap = math.inf if not kept else math.log(kept[-1][0] / value) if axis.scale == "log" else kept[-1][0] - value
        whole = math.log(high / low) if axis.scale == "log" else high
        if gap >= (7 * len(label) + 5) / 315 * whole:
            kept.append((value, label))
    return kept


def _legend(figure: Figure) -> float:
    """Puts a legend below everything, in as many columns as fit; returns its height in pixels."""
    handles, labels = figure.axes[0].get_legend_handles_labels()
    if not handles:
        return 0
    for columns in (4, 3, 2, 1):
        legend = figure.legend(handles, labels, loc="outside lower left", ncols=columns)
        box = legend.get_window_extent()
        if columns == 1 or box.width <= figure.bbox.width * (1 - 24 / WIDTH):
            break
        legend.remove()
    return box.height * 72 / figure.dpi
