"""Tables of the report, and what their columns mean in plain words."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

from pcaseg.benchmarks.report_page import Cell, Column, table, words
from pcaseg.benchmarks.row_charts import stage_names, times
from pcaseg.benchmarks.rows import BenchRow, Point
from pcaseg.benchmarks.selection import SCOPES, Scope, is_eager, name_of, point_text, timing_of
from pcaseg.benchmarks.svg import TIMES, escaped
from pcaseg.export.tensorrt.inspection import describe_shares

EMPTY = Cell("\N{EN DASH}", kind="faint")

MEANINGS = (
    ("backend", "What computes. All backends at a point get the same images, classes and threads, and take turns."),
    ("published, folded", "The computation. Published: as the published code computes, every vocabulary padded to 256 "
     "classes and the guidance repeated for each class, so that the time is the published model's. Folded: the same "
     "numbers without that work."),
    ("status", "ok: it ran and is right by its gate. noisy: it is right, but its times spread too widely for its ratio "
     "to be quoted. failed: it ran and is not right, so its speed counts for nothing. skipped: it cannot run here."),
    ("engine", "The network alone: from its inputs to logits, on memory where it runs."),
    ("end to end", "What a user waits for: from an image file to a label map. Only measured with one image per call."),
    ("p50, p90, p99", "Half of all calls, 90 % and 99 % of them took no longer than this many milliseconds."),
    ("images/s", "Images per second: of the median call, or, with several streams, of the whole time."),
    (f"{TIMES} eager", "How many times as fast as the eager model in float32 at the same point. Below it the 95 % "
     "interval: measured again, the ratio would nearly always lie in it."),
    ("same labels", "Share of pixels that get the same label as from the eager model in float32."),
    ("relative error", "Largest difference of a logit from the eager model's, over the largest eager logit. Of a graph "
     "of labels, the largest difference of a pixel's confidence."),
    ("mIoU", "Mean intersection over union with the labels of the given images, percent; below it the difference from "
     "the eager model in float32, percent points."),
    ("peak MiB", "Most memory that a fresh process took until its first image was done, weights included, in MiB; "
     "below it that of the GPU, where one is used."),
    ("cold start s", "Seconds from starting a process to its first result: importing packages, loading or compiling "
     "the model, embedding the class names, the first image."),
)  # fmt: skip
"""Every column of the tables, for readers who have never seen one."""


def point_table(rows: Sequence[BenchRow], point: Point) -> str:
    """All that ran at one point, the fastest right one first, with notes of what is wrong with the others."""
    ran = [row for row in rows if row.point == point and row.status != "skipped"]
    skipped = [name_of(row) for row in rows if row.point == point and row.status == "skipped"]
    scopes: list[Scope] = [scope for scope in SCOPES if any(timing_of(row, scope) for row in ran)]
    columns = [Column("backend", numeric=False), Column("status", numeric=False)]
    for scope in scopes:
        titles = ("p50", "p90", "p99", "images/s", f"{TIMES} eager")
        columns += [Column(title, band=f"{SCOPES[scope]}, times in ms") for title in titles]
    labelled = any(row.accuracy and row.accuracy.miou is not None for row in ran)
    columns += [Column(title, band="accuracy") for title in ("same labels", "relative error", *(["mIoU"] * labelled))]
    columns += [Column(title, band="cost") for title in ("peak MiB", "cold start s")]
    cells = [_point_row(row, scopes, labelled=labelled) for row in sorted(ran, key=_rank)]
    drawn = table(f"Measurements, {point_text(point)}", columns, cells) if ran else ""
    notes = [f"{name_of(row)} failed: {row.reason}" for row in ran if row.status == "failed"]
    notes += [f"{name_of(row)} is noisy: {row.noise}" for row in ran if row.noise]
    notes += [f"skipped here: {', '.join(dict.fromkeys(skipped))}"] if skipped else []
    return drawn + _notes(notes)


def stage_table(rows: Sequence[BenchRow], point: Point) -> str:
    """The numbers of the stage chart."""
    staged = [row for row in rows if row.point == point and row.status == "ok" and row.stages_ms]
    names = stage_names(staged)
    columns = [Column("backend", numeric=False), *(Column(name) for name in names)]
    cells = [
        [Cell(name_of(row)), *(_number(row.stages_ms.get(name), milliseconds) for name in names)] for row in staged
    ]
    return table(f"Stages in milliseconds, {point_text(point)}", columns, cells)


def skipped_table(rows: Sequence[BenchRow]) -> str:
    """Backends that did not run, and why."""
    found: dict[tuple[str, str], int] = {}
    for row in rows:
        if row.status == "skipped":
            found[name_of(row), row.reason] = found.get((name_of(row), row.reason), 0) + 1
    columns = [Column("backend", numeric=False), Column("reason", numeric=False), Column("points")]
    cells = [[Cell(name), Cell(reason), Cell(str(n), value=n)] for (name, reason), n in found.items()]
    return table("Skipped backends", columns, cells)


def environment_table(rows: Sequence[BenchRow]) -> str:
    """What the rows were measured on; several values where the rows differ."""
    found: dict[str, dict[str, None]] = {}
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
                found.setdefault(name, {})[value] = None
    cells = [[Cell(name), Cell(", ".join(sorted(values)))] for name, values in found.items()]
    return table("Environment", [Column("what", numeric=False), Column("value", numeric=False)], cells)


def engine_table(rows: Sequence[BenchRow]) -> str:
    """What the TensorRT engines are made of, each once; nothing where none ran."""
    found = {(row.engine_sha256, row.precision): row.engine_facts for row in rows if row.engine_facts}
    columns = [Column(title, numeric=False) for title in ("engine SHA-256", "TensorRT", "precision")]
    columns += [Column("layer types", numeric=False), Column("build s")]
    cells = [
        [
            Cell((sha256 or "")[:16]),
            Cell(facts.tensorrt),
            Cell(precision),
            Cell(describe_shares(facts.layers)),
            _number(facts.build_seconds, lambda s: f"{s:.0f}"),
        ]
        for (sha256, precision), facts in found.items()
    ]
    return table("TensorRT engines: layers that compute, and their time, by type", columns, cells) if cells else ""


def columns_list() -> str:
    """Every column in plain words."""
    return words(MEANINGS)


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


def _point_row(row: BenchRow, scopes: Sequence[Scope], *, labelled: bool) -> list[Cell]:
    status = "ok, noisy" if row.status == "ok" and row.noise else row.status
    ran = row.runs if row.computation in row.runs else f"{row.runs}; {row.computation}".removeprefix("; ")
    cells = [Cell(name_of(row), small=ran), Cell(status, kind="noisy" if status == "ok, noisy" else row.status)]
    for scope in scopes:
        cells += _times(row, scope)
    accuracy, cold = row.accuracy, row.cold
    cells.append(_number(accuracy and accuracy.label_agreement, share))
    cells.append(_number(accuracy and accuracy.relative_error, lambda error: f"{error:.1e}" if error else "0"))
    if labelled:
        change = accuracy.miou_difference if accuracy else None
        small = "" if change is None else f"{change:+.2f}"
        cells.append(_number(accuracy and accuracy.miou, lambda miou: f"{miou:.2f}", small=small))
    device = f"GPU {cold.peak_device_mib:,.0f}" if cold and cold.peak_device_mib else ""
    cells.append(_number(cold and cold.peak_host_mib, lambda mib: f"{mib:,.0f}", small=device))
    return [*cells, _number(cold and cold.total_s, lambda s: f"{s:.1f}")]


def _times(row: BenchRow, scope: Scope) -> list[Cell]:
    timing = timing_of(row, scope)
    if timing is None:
        return [EMPTY] * 5
    held, kind = timing.latency, "faint" if row.status == "failed" else ""
    cells = [Cell(milliseconds(ms), value=ms, kind=kind) for ms in (held.p50_ms, held.p90_ms, held.p99_ms)]
    cells.append(Cell(f"{held.per_s:.3g}" if held.per_s < 1000 else f"{held.per_s:,.0f}", value=held.per_s, kind=kind))
    if timing.ratio is None or row.status == "failed":
        return [*cells, EMPTY]
    if is_eager(row):
        return [*cells, Cell(f"1{TIMES}", value=1.0, kind="faint")]
    low, high = (times(value).removesuffix(TIMES) for value in (timing.ratio.low, timing.ratio.high))
    kind = "noisy" if row.noise else ""
    return [*cells, Cell(times(timing.ratio.value), small=f"{low} to {high}", value=timing.ratio.value, kind=kind)]


def _number(value: float | None, written: Callable[[float], str], *, small: str = "") -> Cell:
    return EMPTY if value is None else Cell(written(value), small=small, value=float(value))


def _rank(row: BenchRow) -> tuple[bool, float]:
    timing = row.engine
    return row.status != "ok", timing.latency.p50_ms if timing else math.inf


def _notes(notes: Iterable[str]) -> str:
    items = "".join(f"<li>{escaped(note)}</li>" for note in notes)
    return f'<ul class="notes">{items}</ul>' if items else ""
