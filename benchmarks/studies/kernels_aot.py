"""Registers, spills and shared memory of kernels: `python -m pcaseg.benchmarks.studies.kernels_aot --out rows.json`.

Compiles all of them for every architecture, without a GPU, and keeps what the manifest says.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence

from pcaseg.arguments import Parser, rows_file
from pcaseg.environment import write_rows
from pcaseg.errors import reported
from pcaseg.kernels.aot import ARCHITECTURES, compile_all


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes the rows."""
    parser = Parser(prog="python -m pcaseg.benchmarks.studies.kernels_aot", description=__doc__)
    parser.add_argument("--out", type=rows_file, required=True, help="the JSON file")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        entries = compile_all(ARCHITECTURES, folder)
    write_rows(options.out, entries, subject="kernels compiled ahead of time")
    return 0


if __name__ == "__main__":
    sys.exit(reported(main))
