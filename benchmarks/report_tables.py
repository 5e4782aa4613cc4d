"""Tables of the report: what stands in their cells, for its template to lay out."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby

from pcaseg.benchmarks.row_charts import stage_names, times
from pcaseg.benchmarks.rows import BenchRow, Point
from pcaseg.benchmarks.selection import SCOPES, TIMES, Scope, is_eager, name_of, point_text, timing_of
from pcaseg.export.tensorrt.inspection import describe_shares


@dataclass(frozen=True)
class ReportCell:
    """One cell.

    Attributes:
        text: shown.
        small: on a line below it.
        value: what a numeric column is sorted by; None, or no finite number, stands last.
        kind: a class of the style sheet.
    """

    text: str
    small: str = ""
    value: float | None = None
    kind: str = ""

    @property
    def sort_key(self) -> str:
        """The value as the page's script reads it."""
        return repr(float(self.value)) if self.value is not None and math.isfinite(self.value) else ""


@dataclass(frozen=True)
class ReportColumn:
    """One column.

    Attributes:
        title: in the head.
        numeric: aligned and sorted as numbers.
        band: what stands above it and its neighbours of the same band.
    """

    title: str
    numeric: bool = True
    band: str = ""


@dataclass(frozen=True)
class ReportTable:
    """A sortable table; the first cell of each row is its heading. The caption is read out, not shown."""

    caption: str
    columns: tuple[ReportColumn, ...]
    rows: tuple[tuple[ReportCell, ...], ...]
    notes: tuple[str, ...] = ()

    @property
    def bands(self) -> list[tuple[str, int]]:
        """Headings above the columns, and how many columns each spans."""
        return [(band, len(list(group))) for band, group in groupby(self.columns, key=lambda column: column.band)]


EMPTY = ReportCell("\N{EN DASH}", kind="faint")


def point_table(rows: Sequence[BenchRow], point: Point) -> ReportTable:
    """All that ran at one point, the fastest right one first, with notes of what is wrong with the others."""
    ran = [row for row in rows if row.point == point and row.status != "skipped"]
    skipped = [name_of(row) for row in rows if row.point == point and row.status == "skipped"]
    scopes = [scope for scope in SCOPES if any(timing_of(row, scope) for row in ran)]
    labelled = any(row.accuracy and row.accuracy.miou is not None for row in ran)
    notes = [f"{name_of(row)} failed: {row.reason}" for row in ran if row.status == "failed"]
    notes += [f"{name_of(row)} is noisy: {row.noise}" for row in ran if row.noise]
    notes += [f"skipped here: {', '.join(dict.fromkeys(skipped))}"] if skipped else []
    columns = [
        *_words("backend", "status"),
        *(
            ReportColumn(title, band=f"{SCOPES[scope]}, times in ms")
            for scope in scopes
            for title in ("p50", "p90", "p99", "images/s", f"{TIMES} eager")
        ),
        *(ReportColumn(title, band="accuracy") for title in ("same labels", "relative error", *["mIoU"] * labelled)),
        *(ReportColumn(title, band="cost") for title in ("peak MiB", "cold start s")),
    ]
    cells = (tuple(_point_row(row, scopes, labelled=labelled)) for row in sorted(ran, key=_rank))
    return ReportTable(f"Measurements, {point_text(point)}", tuple(columns), tuple(cells), tuple(notes))


def stage_table(rows: Sequence[BenchRow], point: Point) -> ReportTable:
    """The numbers of the stage chart."""
    staged = [row for row in rows if row.point == point and row.status == "ok" and row.stages_ms]
    names = stage_names(staged)
    return ReportTable(
        f"Stages in milliseconds, {point_text(point)}",
        (*_words("backend"), *map(ReportColumn, names)),
        tuple(
            (ReportCell(name_of(row)), *(_number(row.stages_ms.get(name), milliseconds) for name in names))
            for row in staged
        ),
    )


def skipped_table(rows: Sequence[BenchRow]) -> ReportTable:
    """Backends that did not run, and why."""
    found: dict[tuple[str, str], int] = {}
    for row in rows:
        if row.status == "skipped":
            found[name_of(row), row.reason] = found.get((name_of(row), row.reason), 0) + 1
    return ReportTable(
        "Skipped backends",
        (*_words("backend", "reason"), ReportColumn("points")),
        tuple((ReportCell(name), ReportCell(reason), _number(n, str)) for (name, reason), n in found.items()),
    )


def environment_table(rows: Sequence[BenchRow]) -> ReportTable:
    """Environment that the rows were measured in; several values where the rows differ."""
    found: dict[str, set[str]] = {}
    for row in rows:
        facts = [*row.environment.items(), ("weights", row.weights)]
        facts += [("bundle SHA-256", row.bundle_sha256 or ""), ("engine SHA-256", row.engine_sha256 or "")]
        facts += [(f"gate, {name.replace('_', ' ')}", f"{limit:g}") for name, limit in row.gate.items()]
        if row.machine:
            facts.append(("float32 matrix product reached", f"{row.machine.matmul_gflops:.0f} GFLOP/s"))
            facts.append(("copying reached", f"{row.machine.copy_gb_s:.1f} GB/s"))
        facts.append(("measured", row.created))
        for name, value in facts:
            if value:
                found.setdefault(name, set()).add(value)
    cells = ((ReportCell(name), ReportCell(", ".join(sorted(values)))) for name, values in found.items())
    return ReportTable("Environment", _words("what", "value"), tuple(cells))


def engine_table(rows: Sequence[BenchRow]) -> ReportTable:
    """Contents of the TensorRT engines, each once."""
    found = {(row.engine_sha256, row.precision): row.engine_facts for row in rows if row.engine_facts}
    cells = (
        (
            *map(ReportCell, ((sha256 or "")[:16], facts.tensorrt, precision, describe_shares(facts.layers))),
            _number(facts.build_seconds, lambda s: f"{s:.0f}"),
        )
        for (sha256, precision), facts in found.items()
    )
    return ReportTable(
        "TensorRT engines: layers that compute, and their time, by type",
        (*_words("engine SHA-256", "TensorRT", "precision", "layer types"), ReportColumn("build s")),
        tuple(cells),
    )


def milliseconds(value: float) -> str:
    """Milliseconds with three figures or more.

    >>> milliseconds(0.0123), milliseconds(4.217), milliseconds(46.52), milliseconds(14512.3)
    ('0.0123', '4.22', '46.5', '14,512')
    """
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 1 else f"{value:.3g}"


def share(value: float) -> str:
    """A share in percent, never rounded up to all.

    >>> share(1.0), share(0.9999999), share(0.99987)
    ('100 %', '99.999 %', '99.987 %')
    """
    if not math.isfinite(value):
        return str(value)
    return "100 %" if value >= 1 else f"{math.floor(value * 1e5 + 1e-6) / 1e3:.3f} %"


def _words(*titles: str) -> tuple[ReportColumn, ...]:
    return tuple(ReportColumn(title, numeric=False) for title in titles)


def _point_row(row: BenchRow, scopes: Sequence[Scope], *, labelled: bool) -> list[ReportCell]:
    status = "ok, noisy" if row.status == "ok" and row.noise else row.status
    ran = row.runs if row.computation in row.runs else f"{row.runs}; {row.computation}".removeprefix("; ")
    cells = [ReportCell(name_of(row), small=ran)]
    cells.append(ReportCell(status, kind="noisy" if status == "ok, noisy" else row.status))
    for scope in scopes:
        cells += _times(row, scope)
    found, cold = row.accuracy, row.cold
    cells.append(_number(found.label_agreement if found else None, share))
    cells.append(_number(found.relative_error if found else None, lambda error: f"{error:.1e}" if error else "0"))
    if labelled:
        change = found.miou_difference if found else None
        small = "" if change is None else f"{change:+.2f}"
        cells.append(_number(found.miou if found else None, lambda miou: f"{miou:.2f}", small=small))
    device = f"GPU {cold.peak_device_mib:,.0f}" if cold and cold.peak_device_mib else ""
    cells.append(_number(cold.peak_host_mib if cold else None, lambda mib: f"{mib:,.0f}", small=device))
    return [*cells, _number(cold.total_s if cold else None, lambda s: f"{s:.1f}")]


def _times(row: BenchRow, scope: Scope) -> list[ReportCell]:
    timing = timing_of(row, scope)
    if timing is None:
        return [EMPTY] * 5
    held, kind = timing.latency, "faint" if row.status == "failed" else ""
    cells = [_number(ms, milliseconds, kind=kind) for ms in (held.p50_ms, held.p90_ms, held.p99_ms)]
    cells.append(_number(held.per_s, lambda n: f"{n:.3g}" if n < 1000 else f"{n:,.0f}", kind=kind))
    if timing.ratio is None or row.status == "failed":
        return [*cells, EMPTY]
    if is_eager(row):
        return [*cells, ReportCell(f"1{TIMES}", value=1.0, kind="faint")]
    interval = f"{times(timing.ratio.low)} to {times(timing.ratio.high)}".replace(TIMES, "")
    return [*cells, _number(timing.ratio.value, times, small=interval, kind="noisy" if row.noise else "")]


def _number(value: float | None, written: Callable[[float], str], *, small: str = "", kind: str = "") -> ReportCell:
    return EMPTY if value is None else ReportCell(written(value), small, value, kind)


def _rank(row: BenchRow) -> tuple[bool, float]:
    return row.status != "ok", row.engine.latency.p50_ms if row.engine else math.inf
