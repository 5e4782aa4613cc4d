"""Charts of measured rows; each is None where the rows cannot fill it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

from pcaseg.benchmarks.chart_colours import BACKENDS, STAGES
from pcaseg.benchmarks.charts import BarsChart, ChartAxis, ChartBar, ChartMark, ChartSeries, MarksChart, short
from pcaseg.benchmarks.rows import BenchRow, Point, Ratio
from pcaseg.benchmarks.selection import (
    SCOPES,
    TIMES,
    Scope,
    counted,
    is_eager,
    latency_of,
    name_of,
    point_text,
    ratio_of,
    timing_of,
)

Unit = Literal["ms", "percent"]
UNITS: dict[Unit, tuple[str, str]] = {
    "ms": ("time", "ms per image; lower is better"),
    "percent": ("share", "% of the time of one image"),
}
"""What a chart of stages shows, and the title of its axis."""


def latency_chart(rows: Sequence[BenchRow], setting: Point, scope: Scope) -> MarksChart | None:
    """Latency against vocabulary size.

    Args:
        rows: that differ in their classes only, of `sweeps`.
        setting: what they have in common.
        scope: which times.
    """

    def mark(row: BenchRow) -> ChartMark | None:
        latency = latency_of(row, scope)
        return ChartMark(row.point.classes, latency.p50_ms, latency.min_ms, latency.p90_ms) if latency else None

    return _sweep_chart(
        f"Latency against vocabulary size, {SCOPES[scope]}",
        f"Median time of one call, uprights from the minimum to the 90th percentile; {point_text(setting)}.",
        _series(rows, mark),
        along="classes",
        y="ms per call (log); lower is better",
    )


def throughput_chart(rows: Sequence[BenchRow], setting: Point) -> MarksChart | None:
    """Images per second against images per call; arguments as above, rows differ in their images."""

    def mark(row: BenchRow) -> ChartMark | None:
        latency = latency_of(row, "engine")
        return ChartMark(row.point.images, latency.per_s) if latency else None

    return _sweep_chart(
        "Throughput against images per call, engine",
        f"Images per second; {point_text(setting)}.",
        _series(rows, mark),
        along="images per call",
        y="images per second (log); higher is better",
    )


def _sweep_chart(
    title: str, description: str, found: Iterable[ChartSeries], *, along: str, y: str
) -> MarksChart | None:
    """Lines over a measured quantity, whose values are the ticks."""
    series = tuple(one for one in found if len(one.marks) > 1)
    if not series:
        return None
    ticks = tuple((float(n), str(n)) for n in sorted({int(m.x) for one in series for m in one.marks}))
    x = ChartAxis(f"{along} (log)", "log", ticks)
    return MarksChart(title, description, series, x, ChartAxis(y, "log"))


def speedup_chart(groups: Iterable[tuple[str, Sequence[BenchRow], Scope]], subtitle: str) -> BarsChart | None:
    """Speed as a multiple of eager's, with intervals.

    Args:
        groups: heading, rows and scope of each group of bars; rows without a ratio are left out.
        subtitle: what the description says of all.
    """
    drawn = []
    for heading, rows, scope in groups:
        rated = [(row, ratio) for row in rows if (ratio := ratio_of(row, scope)) and _drawn(row, ratio)]
        bars = tuple(_ratio_bar(row, ratio) for row, ratio in sorted(rated, key=lambda pair: -pair[1].value))
        if bars:
            drawn.append((heading, bars))
    if not drawn:
        return None
    return BarsChart(
        "How many times as fast as eager float32",
        f"Ratio of medians with 95 % intervals; {subtitle}.",
        tuple(drawn),
        ChartAxis(f"{TIMES} eager float32; higher is better"),
        reference=1.0,
    )


def stages_chart(rows: Sequence[BenchRow], point: Point, unit: Unit) -> BarsChart | None:
    """Shares of one image's time, a bar per backend, in milliseconds or as shares."""
    staged = [row for row in rows if row.point == point and row.status == "ok" and sum(_held(row).values()) > 0]
    if not staged:
        return None
    staged.sort(key=lambda row: -sum(_held(row).values()))
    what, title = UNITS[unit]
    return BarsChart(
        f"Where the time goes, {counted(point.classes, 'class', 'classes')}: {what}",
        f"Median of each stage, {title}; {point_text(point)}.",
        (("", tuple(_stage_bar(row, unit) for row in staged)),),
        ChartAxis(title),
        legend=tuple(stage_names(staged)),
    )


def _held(row: BenchRow) -> dict[str, float]:
    """Stages of a row that a bar can show, in order."""
    return {name: row.stages_ms[name] for name in stage_names([row]) if 0 <= row.stages_ms[name] < math.inf}


def _stage_bar(row: BenchRow, unit: Unit) -> ChartBar:
    held = _held(row)
    total = sum(held.values())
    factor, written = (1.0, short(total)) if unit == "ms" else (100 / total, "")
    return ChartBar(name_of(row), tuple((name, value * factor) for name, value in held.items()), written)


def stage_names(rows: Iterable[BenchRow]) -> list[str]:
    """Stages of some rows in the order in which an image passes them, unknown ones last."""
    found = dict.fromkeys(name for row in rows for name in row.stages_ms)
    return [*(name for name in STAGES if name in found), *(name for name in found if name not in STAGES)]


def accuracy_chart(rows: Sequence[BenchRow], point: Point) -> MarksChart | None:
    """Speed against relative error; failed rows are hollow, an error of 0 stands on the left edge."""
    shown = [(row, speed, error) for row in rows if row.point == point for speed, error in _speed_and_error(row)]
    errors = [error for _, _, error in shown if error]
    if len(shown) < 2 or not errors:
        return None
    exponents = range(math.floor(math.log10(min(errors))), math.ceil(math.log10(max(errors))) + 1)
    zero = 10.0 ** (exponents[0] - 1)
    ticks = [(10.0**e, short(10.0**e)) for e in exponents]
    series = tuple(
        ChartSeries(
            name_of(row) + (" (failed)" if row.status == "failed" else ""),
            row.backend,
            (ChartMark(error or zero, speed),),
            hollow=row.status == "failed",
        )
        for row, speed, error in shown
    )
    return MarksChart(
        f"Speed against accuracy, {counted(point.classes, 'class', 'classes')}",
        f"Images per second of the engine against the relative error of its logits; {point_text(point)}.",
        series,
        ChartAxis("relative error (log); left is better", "log", ((zero, "0"), *ticks)),
        ChartAxis("images per second (log); up is better", "log"),
        joined=False,
    )


def _speed_and_error(row: BenchRow) -> list[tuple[float, float]]:
    """Images per second and relative error of a row, or nothing where either has no place on a log axis."""
    timing = timing_of(row, "engine")
    if row.accuracy is None or timing is None or not 0 < timing.latency.per_s < math.inf:
        return []
    error = row.accuracy.relative_error
    return [(timing.latency.per_s, error)] if 0 <= error < math.inf else []


def roofline_chart(rows: Sequence[BenchRow], setting: Point) -> MarksChart | None:
    """Operations per second against operations per byte, under what the machine reached."""
    machine = next((row.machine for row in rows if row.machine), None)

    def mark(row: BenchRow) -> ChartMark | None:
        latency = latency_of(row, "engine")
        if not latency or not row.gmac or not row.least_mb:
            return None
        return ChartMark(2000 * row.gmac / row.least_mb, 2 * row.gmac * latency.per_s / max(row.point.images, 1))

    series = _series(rows, mark)
    if machine is None or not series or not _positive(machine.copy_gb_s, machine.matmul_gflops):
        return None
    roofs = f"roofs: {short(machine.copy_gb_s)} GB/s, {short(machine.matmul_gflops)} GFLOP/s"
    return MarksChart(
        "Roofline, engine",
        f"A mark per backend and vocabulary size; {point_text(setting)}; {roofs}.",
        tuple(series),
        ChartAxis("operations per byte that must move (log)", "log"),
        ChartAxis("10⁹ operations per second (log)", "log"),
        joined=False,
        roofs=(roofs, machine.matmul_gflops, machine.copy_gb_s),
    )


def times(value: float) -> str:
    """A ratio with three figures.

    >>> times(4.217), times(46.52), times(312.0)
    ('4.22×', '46.5×', '312×')
    """
    return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f}{TIMES}"


def _series(rows: Sequence[BenchRow], mark: Callable[[BenchRow], ChartMark | None]) -> list[ChartSeries]:
    """A series per backend, in the palette's order."""
    found: dict[tuple[str, str, str], list[BenchRow]] = {}
    for row in rows:
        found.setdefault((row.backend, row.computation, row.precision), []).append(row)
    order = list(BACKENDS)
    series = []
    for (backend, _, precision), members in found.items():
        drawn = (m for row in members if (m := mark(row)) and _positive(m.x, m.y, m.low, m.high))
        if marks := tuple(sorted(drawn, key=lambda m: m.x)):
            series.append(ChartSeries(name_of(members[0]), backend, marks, dashed=precision != "float32"))
    return sorted(series, key=lambda s: (order.index(s.backend) if s.backend in order else len(order), s.label))


def _positive(*values: float | None) -> bool:
    """True where all values have a place on log axes; None has nothing to place."""
    return all(0 < value < math.inf for value in values if value is not None)


def _drawn(row: BenchRow, ratio: Ratio) -> bool:
    """True where a ratio gets a bar: eager itself is the line at 1."""
    return not is_eager(row) and all(0 <= value < math.inf for value in (ratio.value, ratio.low, ratio.high))


def _ratio_bar(row: BenchRow, ratio: Ratio) -> ChartBar:
    label = name_of(row) + (" (noisy)" if row.noise else "")
    return ChartBar(label, ((row.backend, ratio.value),), times(ratio.value), ratio.low, ratio.high)
