"""Rows of `pcaseg bench` for a terminal: one table a point, then what its columns mean and what it says."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby

from pcaseg.benchmarks.rows import BenchRow, Point
from pcaseg.benchmarks.selection import counted
from pcaseg.text_tables import terminal_table

LEGEND = """\
engine    network inputs to logits, median; `images/s` and `x eager` are of it
whole     image file to label map, median
x eager   times faster than eager float32, which computes as published; 95 % interval in brackets
labels    pixels with the same label as eager float32 gives with PyTorch's resizing (the row eager uses the runtime's)
error     largest difference of a logit from eager float32's, over the largest logit
mIoU      percent, with --labelled; in brackets the difference from eager float32
cold s    from starting a process to the first labelled image; MiB: the peak memory of that process"""

_HEADERS = "backend", "engine ms", "whole ms", "images/s", "x eager", "labels", "error", "cold s", "MiB", "mIoU"


def tables(rows: Iterable[BenchRow]) -> str:
    """All points' tables, with a legend under the last."""
    parts = [_table(point, list(group)) for point, group in groupby(rows, key=lambda row: row.point)]
    return "\n\n".join([*parts, LEGEND])


def _table(point: Point, rows: Sequence[BenchRow]) -> str:
    streams = "" if point.streams == 1 else f", {point.streams} streams"
    cut = "" if point.shortlist is None else f", shortlist {point.shortlist}"
    title = (
        f"{rows[0].preset}: {point.classes} classes, {point.strategy}, {counted(point.images, 'image', 'images')} of "
        f"{point.width} x {point.height} px a call, {point.threads} threads{streams}, {point.precision}{cut}"
    )
    lines = [title, ""]
    if timed := [row for row in rows if row.engine]:
        lines.append(terminal_table(_HEADERS, map(_cells, timed), align="lr"))
    for row in rows:
        lines += [f"{row.backend} {row.status if row.status == 'skipped' else 'FAILED'}: {row.reason}"] * bool(
            row.reason
        )
        lines += [f"{row.backend} noisy: {row.noise}"] * bool(row.noise)
    return "\n".join(lines)


def _cells(row: BenchRow) -> list[str]:
    assert row.engine is not None  # by the caller's choice
    ratio, accuracy = row.engine.ratio, row.accuracy
    labelled = accuracy is not None and accuracy.miou is not None
    return [
        row.backend,
        _ms(row.engine.latency.p50_ms),
        _ms(row.end_to_end.latency.p50_ms) if row.end_to_end else "",
        f"{row.engine.latency.per_s:.3g}",
        f"{ratio.value:.2f} [{ratio.low:.2f}, {ratio.high:.2f}]" if ratio else "",
        *([f"{accuracy.label_agreement:.3%}", f"{accuracy.relative_error:.1e}"] if accuracy else ["", ""]),
        *([f"{row.cold.total_s:.1f}", f"{row.cold.peak_host_mib:.0f}"] if row.cold else ["", ""]),
        f"{accuracy.miou:.2f} ({accuracy.miou_difference:+.2f})" if accuracy and labelled else "",
    ]


def _ms(value: float) -> str:
    return f"{value:.0f}" if value >= 1000 else f"{value:.1f}"


def verdict(rows: Sequence[BenchRow]) -> str:
    """One sentence: all are right or which are not, and which is fastest."""
    wrong = sorted({row.backend for row in rows if row.status == "failed"})
    right = [
        (row.engine.ratio.value, row)
        for row in rows
        if row.status == "ok" and row.engine and row.engine.ratio and not row.noise and row.backend != "eager"
    ]
    said = f"NOT RIGHT by their gates: {', '.join(wrong)}" if wrong else "all backends are right by their gates"
    if not right:
        return f"{said}; no other backend's ratio to eager is quiet enough to be quoted (more --seconds may help)"
    ratio, best = max(right, key=lambda pair: pair[0])
    return f"{said}; fastest against eager: {best.backend} at {best.point.classes} classes, {ratio:.1f} times as fast"
