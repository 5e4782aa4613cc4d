"""Rows that belong together: groups of a report, sweeps of one quantity, the point to speak of first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from pcaseg.benchmarks.rows import BenchRow, Latency, Point, Ratio, Timing
from pcaseg.configs import most_kept

Scope = Literal["engine", "end_to_end"]
SCOPES: dict[Scope, str] = {"engine": "engine", "end_to_end": "end to end"}

TIMES = "\N{MULTIPLICATION SIGN}"

MODELS = {"parallel": "PCA-Seg", "serial": "CAT-Seg"}
"""The papers' names of the aggregations."""

Key = tuple[str, str, str, str, str, Point]


@dataclass(frozen=True)
class RowGroup:
    """One model on one machine: rows that may be held against each other.

    Attributes:
        model: preset and aggregation.
        machine: processor and GPU.
        rows: of each backend and point the newest.
        older: how many rows were measured again later and are left out.
    """

    model: str
    machine: str
    rows: tuple[BenchRow, ...]
    older: int


def key_of(row: BenchRow) -> Key:
    """Values that two rows have in common when they measure the same thing."""
    return row.preset, row.aggregation, row.backend, row.computation, row.precision, row.point


def newest(rows: Iterable[BenchRow]) -> list[BenchRow]:
    """The last measured row of each key, in the order in which keys appear first."""
    found: dict[Key, BenchRow] = {}
    for row in rows:
        held = found.get(key_of(row))
        if held is None or row.created >= held.created:
            found[key_of(row)] = row
    return list(found.values())


def machine_of(row: BenchRow) -> str:
    """Processor and GPU of a row.

    >>> from types import SimpleNamespace
    >>> machine_of(SimpleNamespace(environment={"cpu": "AMD EPYC", "gpu": ""}))
    'AMD EPYC'
    """
    named = [row.environment.get(part, "") for part in ("cpu", "gpu")]
    return " + ".join(name for name in named if name) or "unknown machine"


def row_groups(rows: Sequence[BenchRow]) -> list[RowGroup]:
    """The rows by model, weights and machine, in order of appearance."""
    parted: dict[tuple[str, ...], list[BenchRow]] = {}
    for row in rows:
        parted.setdefault((row.preset, row.aggregation, row.weights, machine_of(row)), []).append(row)
    found = []
    for (preset, aggregation, _, machine), members in parted.items():
        kept = newest(members)
        model = f"{preset} ({MODELS.get(aggregation, aggregation)})"
        found.append(RowGroup(model, machine, tuple(kept), len(members) - len(kept)))
    return found


def name_of(row: BenchRow) -> str:
    """A backend as charts and tables call it: with its precision where that is not float32.

    >>> from types import SimpleNamespace
    >>> name_of(SimpleNamespace(backend="folded", precision="float16", computation="folded"))
    'folded float16'
    """
    usual = "published" if row.backend.startswith("eager") else "folded"
    precision = "" if row.precision in ("", "float32") else f" {row.precision}"
    return row.backend + precision + ("" if row.computation == usual else f", {row.computation}")


def is_eager(row: BenchRow) -> bool:
    """True where a row is what all others are compared with: the eager model in float32."""
    return row.backend == "eager" and row.precision == "float32"


def timing_of(row: BenchRow, scope: Scope) -> Timing | None:
    """A row's times of one scope."""
    return row.engine if scope == "engine" else row.end_to_end


def latency_of(row: BenchRow, scope: Scope) -> Latency | None:
    """Times of a row that is right; None of one that failed or was skipped."""
    timing = timing_of(row, scope)
    return timing.latency if timing and row.status == "ok" else None


def ratio_of(row: BenchRow, scope: Scope) -> Ratio | None:
    """Speed of a row as a multiple of eager's; None where it is not right."""
    timing = timing_of(row, scope)
    return timing.ratio if timing and row.status == "ok" else None


def points_of(rows: Iterable[BenchRow]) -> list[Point]:
    """Points in the order of a table: strategy, image size, precision, threads, streams, images, classes, shortlist."""
    return sorted({row.point for row in rows}, key=_order)


def _order(point: Point) -> tuple[object, ...]:
    size = point.height, point.width
    settings = point.strategy, size, point.precision, point.threads, point.streams, point.images, point.classes
    return *settings, most_kept(point.shortlist)


def main_point(rows: Sequence[BenchRow]) -> Point | None:
    """The point of which a report speaks first: most backends right, one image, the middle vocabulary."""
    right = Counter(row.point for row in rows if latency_of(row, "engine"))
    if not right:
        return None
    rank = {point: (n, point.images == 1, point.streams == 1) for point, n in right.items()}
    best = sorted((point for point in rank if rank[point] == max(rank.values())), key=lambda point: point.classes)
    return best[(len(best) - 1) // 2]


def fastest(rows: Iterable[BenchRow], scope: Scope) -> BenchRow | None:
    """The right and quiet row with the highest ratio to eager, eager itself aside."""
    rated = [(ratio.value, row) for row in rows if (ratio := ratio_of(row, scope)) and not row.noise]
    rated = [(value, row) for value, row in rated if not is_eager(row)]
    return max(rated, key=lambda pair: pair[0])[1] if rated else None


def sweeps(rows: Iterable[BenchRow], along: Literal["classes", "images"]) -> list[tuple[Point, list[BenchRow]]]:
    """Right rows that differ in nothing but one quantity, where a backend has two values of it; the longest first.

    Args:
        rows: of a group.
        along: the quantity; it is 0 in the points that are returned.
    """
    parted: dict[Point, list[BenchRow]] = {}
    for row in rows:
        if latency_of(row, "engine"):
            setting = replace(row.point, classes=0) if along == "classes" else replace(row.point, images=0)
            parted.setdefault(setting, []).append(row)
    lengths = {
        setting: max(Counter((r.backend, r.computation, r.precision) for r in members).values())
        for setting, members in parted.items()
    }
    order = sorted((s for s in parted if lengths[s] > 1), key=lambda setting: (-lengths[setting], _order(setting)))
    return [(setting, parted[setting]) for setting in order]


def point_text(point: Point) -> str:
    """A point in words; quantities that are 0 are left out.

    >>> point_text(Point(150, "single", 1, "float32", 2, 1, 480, 640))
    '150 classes, 1 image of 640 × 480 px, single, float32, 2 threads'
    """
    size = f"of {point.width} {TIMES} {point.height} px"
    parts = [
        counted(point.classes, "class", "classes"),
        f"{counted(point.images, 'image', 'images')} {size}" if point.images else f"images {size}",
        point.strategy,
        point.precision,
        counted(point.threads, "thread", "threads"),
        counted(point.streams, "stream", "streams") if point.streams > 1 else "",
        f"shortlist {point.shortlist}" if point.shortlist else "",
    ]
    return ", ".join(part for part in parts if part)


def counted(number: int, one: str, many: str) -> str:
    """A number and its noun; nothing for 0."""
    return f"{number} {one if number == 1 else many}" if number else ""
