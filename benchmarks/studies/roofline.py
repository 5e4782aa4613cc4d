"""Distance of the kernels from what the device can do: `python -m pcaseg.benchmarks.studies.roofline rows.json`.

Prints a table of the rows that `bench_kernels.py` makes. The floor of a kernel is the longer of the time to copy its
bytes and the time to multiply its operations, at the rates measured on the same device.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pcaseg.arguments import Parser
from pcaseg.errors import reported


def roofline_table(report: dict[str, Any]) -> str:
    """The rows of a file of pytest-benchmark as a Markdown table.

    Args:
        report: what `--benchmark-json` writes.

    Returns:
        A row for each kernel, size and path: median time, how many times the reference's speed, the floor, and the
        shares of the copy bandwidth and of the matrix rate.
    """
    rows = [(row["extra_info"], row["stats"]["median"] / row["extra_info"]["launches"]) for row in report["benchmarks"]]
    reference = {(row["kernel"], row["B"], row["T"]): time_s for row, time_s in rows if row["path"] == "reference"}
    lines = [
        "| kernel | B | T | dtype | path | ms | x reference | floor ms | of copy bandwidth | of matrix rate |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row, time_s in rows:
        copying, multiplying = floors(row)
        speed = reference[row["kernel"], row["B"], row["T"]] / time_s
        lines.append(
            f"| {row['kernel']} | {row['B']} | {row['T']} | {row['dtype']} | {row['path']} | {1e3 * time_s:.3f} "
            f"| {speed:.1f} | {1e3 * max(copying, multiplying):.3f} | {copying / time_s:.0%} "
            f"| {multiplying / time_s:.0%} |"
        )
    return "\n".join(lines) + "\n"


def floors(row: dict[str, Any]) -> tuple[float, float]:
    """Seconds to copy a row's bytes, and to multiply its operations, at the device's measured rates."""
    return row["bytes"] / row["copy_bytes_per_s"], row["operations"] / row["matmul_operations_per_s"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the table of a file."""
    parser = Parser(prog="python -m pcaseg.benchmarks.studies.roofline", description=__doc__)
    parser.add_argument("rows", type=Path, help="what `pytest --benchmark-json` wrote")
    options = parser.parse_args(arguments)
    print(roofline_table(json.loads(options.rows.read_text(encoding="utf-8"))), end="")
    return 0


if __name__ == "__main__":
    sys.exit(reported(main))
