"""Charts of measured rows; each is None where the rows cannot fill it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

from pcaseg.benchmarks import charts, svg
from pcaseg.benchmarks.charts import Bar, Mark, Series, Stack
from pcaseg.benchmarks.rows import BenchRow, Point, Ratio
from pcaseg.benchmarks.selection import SCOPES, Scope, is_eager, latency_of, name_of, point_text, ratio_of, timing_of
from pcaseg.benchmarks.svg import TIMES, Axis


def latency_chart(rows: Sequence[BenchRow], setting: Point, scope: Scope) -> str | None:
    """Latency against vocabulary size.

    Args:
        rows: that differ in their classes only, of `sweeps`.
        setting: what they have in common.
        scope: which times.
    """

    def mark(row: BenchRow) -> Mark | None:
        latency = latency_of(row, scope)
        return latency and Mark(row.point.classes, latency.p50_ms, latency.min_ms, latency.p90_ms)

    series = [one for one in _series(rows, mark) if len(one.marks) > 1]
    if not series:
        return None
    ticks = tuple((float(n), str(n)) for n in sorted({int(m.x) for one in series for m in one.marks}))
    return charts.line_chart(
        f"Latency against vocabulary size, {SCOPES[scope]}",
        f"Median time of one call, uprights from the minimum to the 90th percentile; {point_text(setting)}.",
        series,
        x=Axis("classes (log)", "log", ticks),
        y=Axis("ms per call (log); lower is better", "log"),
    )


def throughput_chart(rows: Sequence[BenchRow], setting: Point) -> str | None:
    """Images per second against images per call; arguments as above, rows differ in their images."""

    def mark(row: BenchRow) -> Mark | None:
        latency = latency_of(row, "engine")
        return latency and Mark(row.point.images, latency.per_s)

    series = [one for one in _series(rows, mark) if len(one.marks) > 1]
    if not series:
        return None
    ticks = tuple((float(n), str(n)) for n in sorted({int(m.x) for one in series for m in one.marks}))
    return charts.line_chart(
        "Throughput against images per call, engine",
        f"Images per second; {point_text(setting)}.",
        series,
        x=Axis("images per call (log)", "log", ticks),
        y=Axis("images per second (log); higher is better", "log"),
    )


def speedup_chart(groups: Iterable[tuple[str, Sequence[BenchRow], Scope]], subtitle: str) -> str | None:
    """How many times as fast as eager, with intervals.

    Args:
        groups: heading, rows and scope of each group of bars; rows without a ratio are left out.
        subtitle: what the description says of all.
    """
    drawn = []
    for heading, rows, scope in groups:
        rated = [(row, ratio) for row in rows if (ratio := ratio_of(row, scope)) and _drawn(row, ratio)]
        bars = [_ratio_bar(row, ratio) for row, ratio in sorted(rated, key=lambda pair: -pair[1].value)]
        if bars:
            drawn.append((heading, bars))
    if not drawn:
        return None
    return charts.bars(
        "How many times as fast as eager float32",
        f"Ratio of medians with 95 % intervals; {subtitle}.",
        drawn,
        axis=Axis(f"{TIMES} eager float32; higher is better"),
        reference=1.0,
    )


def stages_chart(rows: Sequence[BenchRow], point: Point, unit: Literal["ms", "percent"]) -> str | None:
    """Where the time of one image goes, a bar per backend, in milliseconds or as shares."""
    staged = [row for row in rows if row.point == point and row.status == "ok" and sum(_held(row).values()) > 0]
    if not staged:
        return None
    names = stage_names(staged)
    staged.sort(key=lambda row: -sum(_held(row).values()))
    shown = {"ms": ("time", "ms per image; lower is better"), "percent": ("share", "% of the time of one image")}
    what, title = shown[unit]
    return charts.stacked_bars(
        f"Where the time goes, {_classes(point)}: {what}",
        f"Median of each stage, {title}; {point_text(point)}.",
        [_stack(row, unit) for row in staged],
        axis=Axis(title),
        names=names,
    )


def _held(row: BenchRow) -> dict[str, float]:
    """Stages of a row that a bar can show, in order."""
    return {name: row.stages_ms[name] for name in stage_names([row]) if 0 <= row.stages_ms[name] < math.inf}


def _stack(row: BenchRow, unit: Literal["ms", "percent"]) -> Stack:
    held = _held(row)
    total = sum(held.values())
    factor, written = (1.0, svg.short(total)) if unit == "ms" else (100 / total, "")
    return Stack(name_of(row), tuple((name, value * factor) for name, value in held.items()), written)


def stage_names(rows: Iterable[BenchRow]) -> list[str]:
    """Stages of some rows in the order in which an image passes them, unknown ones last."""
    known = {name: place for place, name in enumerate(svg.STAGES)}
    found = dict.fromkeys(name for row in rows for name in row.stages_ms)
    return sorted(found, key=lambda name: known.get(name, len(known)))


def accuracy_chart(rows: Sequence[BenchRow], point: Point) -> str | None:
    """Speed against relative error; failed rows are hollow, an error of 0 stands on the left edge."""
    shown = [row for row in rows if row.point == point and row.accuracy and row.engine and _error(row) is not None]
    errors = [error for row in shown if (error := _error(row))]
    if len(shown) < 2 or not errors:
        return None
    exponents = range(math.floor(math.log10(min(errors))), math.ceil(math.log10(max(errors))) + 1)
    zero = 10.0 ** (exponents[0] - 1)
    tens = [(10.0**e, svg.short(10.0**e)) for e in exponents][:: math.ceil(len(exponents) / 6)]
    exact = any(_error(row) == 0 for row in shown)
    series = [
        Series(
            name_of(row) + (" (failed)" if row.status == "failed" else ""),
            row.backend,
            (Mark(_error(row) or zero, row.engine.latency.per_s),),
            hollow=row.status == "failed",
        )
        for row in shown
        if row.engine
    ]
    return charts.scatter(
        f"Speed against accuracy, {_classes(point)}",
        f"Images per second of the engine against the relative error of its logits; {point_text(point)}.",
        series,
        x=Axis("relative error (log); left is better", "log", (*([(zero, "0")] if exact else []), *tens)),
        y=Axis("images per second (log); up is better", "log"),
    )


def roofline_chart(rows: Sequence[BenchRow], setting: Point) -> str | None:
    """Operations per second against operations per byte, under what the machine reached."""
    machine = next((row.machine for row in rows if row.machine), None)

    def mark(row: BenchRow) -> Mark | None:
        latency = latency_of(row, "engine")
        if not latency or not row.gmac or not row.least_mb:
            return None
        return Mark(2000 * row.gmac / row.least_mb, 2 * row.gmac * latency.per_s / max(row.point.images, 1))

    series = _series(rows, mark)
    if machine is None or not series or machine.copy_gb_s <= 0 or machine.matmul_gflops <= 0:
        return None
    return charts.roofline(
        "Roofline, engine",
        f"A mark per backend and vocabulary size; {point_text(setting)}.",
        series,
        gflops=machine.matmul_gflops,
        gb_s=machine.copy_gb_s,
    )


def times(value: float) -> str:
    """A ratio with three figures.

    >>> times(4.217), times(46.52), times(312.0)
    ('4.22×', '46.5×', '312×')
    """
    return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f}{TIMES}"


def _series(rows: Sequence[BenchRow], mark: Callable[[BenchRow], Mark | None]) -> list[Series]:
    """A series per backend, in the palette's order."""
    found: dict[tuple[str, str, str], list[BenchRow]] = {}
    for row in rows:
        found.setdefault((row.backend, row.computation, row.precision), []).append(row)
    order = list(svg.BACKENDS)
    series = []
    for (backend, _, precision), members in found.items():
        marks = sorted((m for row in members if (m := mark(row)) and _drawable(m)), key=lambda m: m.x)
        if marks:
            series.append(Series(name_of(members[0]), backend, tuple(marks), dashed=precision != "float32"))
    return sorted(series, key=lambda s: (order.index(s.backend) if s.backend in order else len(order), s.label))


def _drawable(mark: Mark) -> bool:
    """Whether a mark has a place on log axes."""
    values = [value for value in (mark.x, mark.y, mark.low, mark.high) if value is not None]
    return all(0 < value < math.inf for value in values)


def _drawn(row: BenchRow, ratio: Ratio) -> bool:
    """Whether a ratio gets a bar: eager itself is the line at 1."""
    return not is_eager(row) and all(0 <= value < math.inf for value in (ratio.value, ratio.low, ratio.high))


def _ratio_bar(row: BenchRow, ratio: Ratio) -> Bar:
    label = name_of(row) + (" (noisy)" if row.noise else "")
    return Bar(label, row.backend, ratio.value, times(ratio.value), ratio.low, ratio.high)


def _error(row: BenchRow) -> float | None:
    """The relative error of a row, None where it is not a number or its speed is not positive."""
    timing = timing_of(row, "engine")
    if row.accuracy is None or timing is None or not timing.latency.per_s > 0:
        return None
    error = row.accuracy.relative_error
    return error if math.isfinite(error) and error >= 0 else None


def _classes(point: Point) -> str:
    return f"{point.classes} class{'es' if point.classes != 1 else ''}"
