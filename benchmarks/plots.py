"""The README's plots, drawn from stored rows."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from pcaseg.benchmarks.charts import Chart
from pcaseg.benchmarks.row_charts import latency_chart, speedup_chart
from pcaseg.benchmarks.rows import BenchRow, RowsError
from pcaseg.benchmarks.selection import Scope, latency_of, point_text, row_groups, sweeps
from pcaseg.files import atomic_path
from pcaseg.paths import is_file


def plots(rows: Sequence[BenchRow]) -> dict[str, Chart]:
    """Charts by file name: latency against vocabulary size, and how many times faster than eager.

    Args:
        rows: of one or several runs; the group with the longest sweep of vocabulary sizes is drawn, at its least,
            middle and largest size for the second plot.

    Raises:
        RowsError: no backend was measured with two vocabulary sizes, or eager float32 was not.
    """
    held = [sweep for group in row_groups(rows) for sweep in sweeps(group.rows, "classes")[:1]]
    if not held:
        raise RowsError("no backend has rows of two vocabulary sizes; measure more with pcaseg bench")
    setting, members = max(held, key=lambda sweep: len(sweep[1]))
    scope: Scope = "end_to_end" if any(latency_of(row, "end_to_end") for row in members) else "engine"
    sizes = sorted({row.point.classes for row in members})
    groups: list[tuple[str, Sequence[BenchRow], Scope]] = [
        (f"{n} class{'es' if n != 1 else ''}", [row for row in members if row.point.classes == n], scope)
        for n in dict.fromkeys((sizes[0], sizes[len(sizes) // 2], sizes[-1]))
    ]
    latency, speedup = latency_chart(members, setting, scope), speedup_chart(groups, point_text(setting))
    if latency is None or speedup is None:
        raise RowsError("the rows have no ratios to eager float32; measure it too with pcaseg bench")
    return {"latency.svg": latency, "speedup.svg": speedup}


def write_pictures(charts: Mapping[str, Chart], folder: str | os.PathLike[str]) -> list[Path]:
    """Writes charts by file name; returns their paths.

    Raises:
        OutputError: the folder cannot be written.
    """
    paths = []
    for name, chart in charts.items():
        with atomic_path(Path(folder) / name) as temporary:
            temporary.write_text(chart.svg(), encoding="utf-8")
        paths.append(Path(folder) / name)
    return paths


def pictures_match(charts: Mapping[str, Chart], folder: str | os.PathLike[str]) -> bool:
    """True where the folder holds pictures made from just this, unchanged since.

    Versions of matplotlib draw differently, so the drawings are not compared.
    """
    for name, chart in charts.items():
        path = Path(folder) / name
        drawn, _, end = path.read_text(encoding="utf-8").rpartition("<!-- ") if is_file(path) else ("", "", "")
        whole = end == f"{hashlib.sha256(drawn.encode()).hexdigest()} -->\n"
        if not whole or f' data-source="{chart.source()}"' not in drawn:
            return False
    return True
