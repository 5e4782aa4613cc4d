"""Rows of `pcaseg bench` for a terminal: one table a point, then what its columns mean and what it says."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby

from pcaseg.benchmarks.rows import BenchRow, Point

LEGEND = """\
engine    network inputs to logits, median; `images/s` and `x eager` are of it
whole     image file to label map, median
x eager   times faster than eager float32, which computes as published; 95 % interval in brackets
labels    pixels with the same label as eager float32 gives with PyTorch's resizing (the row eager uses the runtime's)
error     largest difference of a logit from eager float32's, over the largest logit
mIoU      percent, with --labelled; in brackets the difference from eager float32
cold s    from starting a process to the first labelled image; MiB: the peak memory of that process"""

_HEAD = f"{'backend':20} {'engine ms':>10} {'whole ms':>10} {'images/s':>8} {'x eager':>20} {'labels':>9} {'error':>8}"
_HEAD += f" {'cold s':>7} {'MiB':>7} {'mIoU':>14}"


def tables(rows: Iterable[BenchRow]) -> str:
    """All points' tables, with a legend under the last."""
    parts = [_table(point, list(group)) for point, group in groupby(rows, key=lambda row: row.point)]
    return "\n\n".join([*parts, LEGEND])


def _table(point: Point, rows: Sequence[BenchRow]) -> str:
    images = "1 image" if point.images == 1 else f"{point.images} images"
    size = f"{point.width} x {point.height} px"
    streams = "" if point.streams == 1 else f", {point.streams} streams"
    title = (
        f"{rows[0].preset}: {point.classes} classes, {point.strategy}, {images} of {size} a "
        f"call, {point.threads} threads{streams}, {point.precision}"
    )
    lines = [title, "", _HEAD]
    lines += [_line(row) for row in rows if row.status != "skipped"]
    lines += [f"{row.backend:20} skipped: {row.reason}" for row in rows if row.status == "skipped"]
    return "\n".join(lines)


def _line(row: BenchRow) -> str:
    if row.engine is None:
        return f"{row.backend:20} FAILED: {row.reason}"
    cells = f"{row.backend:20} {_ms(row.engine.latency.p50_ms)} "
    cells += _ms(row.end_to_end.latency.p50_ms) if row.end_to_end else " " * 10
    cells += f" {row.engine.latency.per_s:8.3g} {_ratio(row):>20}"
    if row.accuracy:
        cells += f" {row.accuracy.label_agreement:9.3%} {row.accuracy.relative_error:8.1e}"
    cells += f" {row.cold.total_s:7.1f} {row.cold.peak_host_mib:7.0f}" if row.cold else " " * 16
    if row.accuracy and row.accuracy.miou is not None:
        cells += f" {row.accuracy.miou:6.2f} ({row.accuracy.miou_difference:+.2f})"
    notes = [f"FAILED: {row.reason}"] if row.status == "failed" else []
    notes += [f"noisy: {row.noise}"] if row.noise else []
    return "  ".join([cells, *notes])


def _ms(value: float) -> str:
    return f"{value:10.0f}" if value >= 1000 else f"{value:10.1f}"


def _ratio(row: BenchRow) -> str:
    found = row.engine.ratio if row.engine else None
    return f"{found.value:.2f} [{found.low:.2f}, {found.high:.2f}]" if found else ""


def verdict(rows: Sequence[BenchRow]) -> str:
    """One sentence: whether all are right, and which is fastest."""
    ran = [row for row in rows if row.status != "skipped"]
    wrong = sorted({row.backend for row in ran if row.status == "failed"})
    right = [row for row in ran if row.status == "ok" and row.engine and row.engine.ratio and not row.noise]
    right = [row for row in right if row.backend != "eager"]
    parts = [f"NOT RIGHT by their gates: {', '.join(wrong)}" if wrong else "all backends are right by their gates"]
    if right:
        best = max(right, key=lambda row: row.engine.ratio.value)  # type: ignore[union-attr]
        assert best.engine is not None and best.engine.ratio is not None  # by the choice above
        parts.append(
            f"fastest against eager: {best.backend} at {best.point.classes} classes, "
            f"{best.engine.ratio.value:.1f} times as fast"
        )
    else:
        parts.append("no other backend's ratio to eager is quiet enough to be quoted (more --seconds may help)")
    return "; ".join(parts)
