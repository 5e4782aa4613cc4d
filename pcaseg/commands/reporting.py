"""The command `pcaseg report`, and the page that `pcaseg bench` writes too."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pcaseg.arguments import EXIT_FAILED, EXIT_OK, share, some_path
from pcaseg.errors import PcasegError
from pcaseg.files import atomic_path, refuse_foreign
from pcaseg.paths import is_file

if TYPE_CHECKING:
    from pcaseg.benchmarks.rows import BenchRow


def add_report(command: argparse.ArgumentParser) -> None:
    command.add_argument("rows", nargs="+", type=Path, help="files of pcaseg bench --out; two are compared")
    command.add_argument("--html", type=some_path, help="write one page of all rows instead")
    command.add_argument(
        "--threshold", type=share, default=0.05, help="slower by more is a regression (default: 0.05, which is 5 %%)"
    )
    command.add_argument("--any-machine", action="store_true", help="compare times of different machines too")
    command.set_defaults(run=run_report)


def run_report(options: argparse.Namespace) -> int:
    from pcaseg.benchmarks.bench_table import tables
    from pcaseg.benchmarks.compare import compare, comparison_table
    from pcaseg.benchmarks.rows import read_rows

    if options.html:
        write_page(options.html, read_rows(options.rows))
        return EXIT_OK
    if len(options.rows) == 1:
        print(tables(read_rows(options.rows)))
        return EXIT_OK
    if len(options.rows) > 2:
        raise PcasegError("rows: two files are compared, or any number written with --html; leave some out")
    before, after = (read_rows([path]) for path in options.rows)
    found = compare(before, after, threshold=options.threshold, allow_different_machines=options.any_machine)
    print(comparison_table(found))
    return EXIT_FAILED if any(one.regressions for one in found) else EXIT_OK


def check_page(path: Path) -> None:
    """Refuses to write a page over anything but a former one, or where none can be."""
    refuse_foreign(path, _is_page, "a report of pcaseg")
    with atomic_path(path, keep=False):
        pass


def write_page(path: Path, rows: Sequence[BenchRow]) -> None:
    """Writes the page of rows and says where."""
    from pcaseg.benchmarks.report import html_report

    check_page(path)
    page = html_report(rows)
    with atomic_path(path) as temporary:
        temporary.write_text(page, encoding="utf-8", errors="backslashreplace")  # names that are not UTF-8
    print(f"report: {path}")


def _is_page(path: Path) -> bool:
    from pcaseg.benchmarks.report import MARK

    return is_file(path) and MARK in path.read_text(encoding="utf-8", errors="replace")[:2000]
