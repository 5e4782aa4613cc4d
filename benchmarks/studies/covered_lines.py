"""Lines that the tests run, folder by folder: `python -m pcaseg.benchmarks.studies.covered_lines FILE --out rows.json`.

FILE is the report of `coverage json`. `make coverage` runs the tests, then this.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from pcaseg.arguments import Parser, rows_file, some_path
from pcaseg.environment import write_rows
from pcaseg.errors import PcasegError, reported


@dataclass(frozen=True)
class CoveredLines:
    """Lines of one folder that hold statements, and those of them that the tests ran."""

    folder: str
    lines: int
    run: int


def count_lines(report: Mapping[str, Any]) -> list[CoveredLines]:
    """Sums over the files of each package, in order of the folders' names.

    Raises:
        PcasegError: the report is of another shape, or its files are not all that it counts in total.
    """
    lines, run = Counter[str](), Counter[str]()
    try:
        for path, found in report["files"].items():
            folder = _folder(path)
            lines[folder] += found["summary"]["num_statements"]
            run[folder] += found["summary"]["covered_lines"]
        totals = report["totals"]["num_statements"], report["totals"]["covered_lines"]
    except (KeyError, TypeError, AttributeError) as error:
        raise PcasegError("no report of `coverage json`; run make coverage") from error
    if (lines.total(), run.total()) != totals:
        raise PcasegError("the report's files are not all of its total; write it without --skip-covered")
    return [CoveredLines(folder, lines[folder], run[folder]) for folder in sorted(lines) if lines[folder]]


def _folder(path: str) -> str:
    """The package of a file: a top-level folder, or one below `pcaseg/`."""
    parts = PurePosixPath(path.replace("\\", "/")).parts
    return f"{parts[0]}/{parts[1]}" if parts[0] == "pcaseg" and len(parts) > 2 else parts[0]


def main(arguments: Sequence[str] | None = None) -> int:
    """Reads the report and writes the rows."""
    parser = Parser(prog="python -m pcaseg.benchmarks.studies.covered_lines", description=__doc__)
    parser.add_argument("report", metavar="FILE", type=some_path, help="of coverage json")
    parser.add_argument("--out", type=rows_file, required=True, help="JSON file of rows")
    options = parser.parse_args(arguments)
    try:
        rows = count_lines(json.loads(options.report.read_text(encoding="utf-8")))
    except PcasegError as error:
        raise PcasegError(f"{options.report}: {error}") from error
    except (OSError, ValueError) as error:
        raise PcasegError(f"{options.report}: cannot be read as JSON; run make coverage") from error
    write_rows(options.out, rows, subject="lines that the tests run")
    return 0


if __name__ == "__main__":
    sys.exit(reported(main))
