"""Ratios, intervals and verdicts of stored rows from their samples: `python -m pcaseg.benchmarks.recompute ROWS.jsonl`.

Rows hold every sample, so that a better statistic needs no second measurement. Nothing else of a row changes, and a
file whose rows say what their samples say is left as it is.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from pcaseg.arguments import Parser
from pcaseg.benchmarks.intervals import noise_of, paired_ratio
from pcaseg.benchmarks.rows import BenchRow, Point, RowsError, Timing, read_rows
from pcaseg.benchmarks.selection import SCOPES
from pcaseg.errors import reported
from pcaseg.files import atomic_path

Bases = Mapping[tuple[str, Point], BenchRow]
"""Rows of eager float32 by run and point."""


def recompute(path: Path) -> int:
    """Writes a file of rows anew where its samples say other ratios or verdicts than its rows.

    Returns:
        How many rows changed.

    Raises:
        RowsError: the file holds no rows, or a ratio to eager times that are not in it.
        OutputError: it cannot be written.
    """
    rows = read_rows([path])
    bases = {(row.run, row.point): row for row in rows if row.backend == "eager"}
    lines = path.read_text(encoding="utf-8").splitlines()
    changed = 0
    for number, row in enumerate(rows):
        found = recomputed(row, bases, f"{path}, line {number + 1}")
        if found != row:
            lines[number] = _line(json.loads(lines[number]), found)
            changed += 1
    if changed:
        with atomic_path(path) as temporary:
            temporary.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return changed


def recomputed(row: BenchRow, bases: Bases, source: str) -> BenchRow:
    """A row with the ratios and the verdict that its samples and eager's give.

    Args:
        row: one of a run.
        bases: of the same run.
        source: the row's place, for messages.

    Raises:
        RowsError: the row has a ratio, and the eager times that it was made from are not there.
    """
    base = bases.get((row.run, row.point))
    engine = _timing(row.engine, base and base.engine, source)
    end_to_end = _timing(row.end_to_end, base and base.end_to_end, source)
    noise = noise_of(engine.latency, engine.ratio) if engine else ""
    return replace(row, engine=engine, end_to_end=end_to_end, noise=noise)


def _timing(held: Timing | None, base: Timing | None, source: str) -> Timing | None:
    if held is None or held.ratio is None:
        return held
    if base is None:
        raise RowsError(f"{source}: its eager times are not in the file; give the whole file of pcaseg bench --out")
    return Timing(held.latency, paired_ratio(base.latency, held.latency))


def _line(content: dict[str, Any], row: BenchRow) -> str:
    """A stored line with a row's ratios and verdict, and all else as it was."""
    content["noise"] = row.noise
    for scope in SCOPES:
        if content.get(scope):
            content[scope]["ratio"] = asdict(row)[scope]["ratio"]
    return json.dumps(content, ensure_ascii=False)


def main(arguments: Sequence[str] | None = None) -> int:
    """Recomputes files; returns 0."""
    parser = Parser(prog="python -m pcaseg.benchmarks.recompute", description=__doc__)
    parser.add_argument("rows", nargs="+", type=Path, help="files of pcaseg bench --out")
    for path in parser.parse_args(arguments).rows:
        print(f"{path}: {recompute(path)} rows changed")
    return 0


if __name__ == "__main__":
    sys.exit(reported(main))
