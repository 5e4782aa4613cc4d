"""Generated tables and plots of README and docs, from stored rows: `python -m pcaseg.benchmarks.tables`.

Each table stands between `<!-- table: NAME -->` and `<!-- end -->` in `README.md` or a page of `docs/`; the rows lie in
`benchmarks/results/`. `--check` changes nothing and fails if a table or plot is not what its rows say.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from pcaseg.arguments import Parser
from pcaseg.benchmarks import speed_tables
from pcaseg.benchmarks.agreement_tables import check_table, labelled_table
from pcaseg.benchmarks.charts import Chart
from pcaseg.benchmarks.evaluate_table import evaluation_table
from pcaseg.benchmarks.plots import pictures_match, plots, write_pictures
from pcaseg.benchmarks.stored import RESULTS, stored_reports
from pcaseg.benchmarks.studies import tiny
from pcaseg.benchmarks.study_tables import (
    clusters_table,
    covered_lines_table,
    cpu_precisions_table,
    folding_table,
    kernels_table,
    mixed_precision_table,
    native_table,
    operators_table,
    rtx_alone_table,
    rtx_table,
    serving_table,
    shortlist_speed_table,
    shortlist_table,
    soak_table,
    steady_table,
    streaming_table,
    synonyms_table,
    transport_table,
)
from pcaseg.errors import PcasegError, reported
from pcaseg.files import atomic_path
from pcaseg.paths import files_under, is_file, real_path

ROOT = real_path(__file__).parent.parent  # the folder may have been reached through a link

Table = Callable[[Path], str]

TABLES: dict[str, Table] = {
    "ablation": lambda results: tiny.ablation_table(list(stored_reports(results, "ablation_tiny_*.json"))),
    "bench": speed_tables.bench_table,
    "check": check_table,
    "clusters": clusters_table,
    "covered_lines": covered_lines_table,
    "cpu_precisions": cpu_precisions_table,
    "evaluation": evaluation_table,
    "kernels": kernels_table,
    "labelled": labelled_table,
    "mixed_precision": mixed_precision_table,
    "native": native_table,
    "operators": operators_table,
    "rtx": rtx_table,
    "rtx_alone": rtx_alone_table,
    "serving": serving_table,
    "shortlist": shortlist_table,
    "shortlist_speed": shortlist_speed_table,
    "soak": soak_table,
    "steady": steady_table,
    "synonyms": synonyms_table,
    "speed": folding_table,
    "streaming": streaming_table,
    "summary": speed_tables.summary_table,
    "transport": transport_table,
    "tiny": lambda _: tiny.scenes_table(tiny.read_record()),
}
"""What makes each table from the folder of results; it ends without a newline."""

_BLOCK = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def pages(root: Path = ROOT) -> list[Path]:
    """README and every page of the docs, in order of their paths.

    Raises:
        PcasegError: this is no source checkout.
    """
    readme = root / "README.md"
    if not is_file(readme):
        raise PcasegError(f"{readme}: not found; run this in a source checkout, with an editable install")
    return [readme, *sorted(page for page in files_under(root / "docs", "*.md") if isinstance(page, Path))]


def fill(text: str, tables: Mapping[str, Table] = TABLES, *, results: Path = RESULTS) -> str:
    """`text` with every table made anew from its rows.

    Raises:
        PcasegError: a table of another name.
    """

    def filled(block: re.Match[str]) -> str:
        if block[2] not in tables:
            raise PcasegError(f"table {block[2]!r}: choose one of {', '.join(tables)}")
        return f"{block[1]}\n{tables[block[2]](results)}\n\n{block[3]}"

    return _BLOCK.sub(filled, text)


def pictures(results: Path = RESULTS) -> dict[str, Chart]:
    """The plots by file name."""
    return plots(speed_tables.bench_rows(results)) | {tiny.CURVE: tiny.curve(tiny.read_record())}


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes tables and plots, or with `--check` returns 1 where one of them is not up to date."""
    parser = Parser(prog="python -m pcaseg.benchmarks.tables", description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; exit code 1 where something differs")
    options = parser.parse_args(arguments)
    texts = {page: page.read_text(encoding="utf-8") for page in pages()}
    changed = {page: filled for page, text in texts.items() if (filled := fill(text)) != text}
    drawn = pictures()
    if options.check:
        stale = [page.relative_to(ROOT) for page in changed]
        if not pictures_match(drawn, RESULTS):
            stale.append(RESULTS.relative_to(ROOT))
        for path in stale:
            print(f"{path}: not what the rows say; run: python -m pcaseg.benchmarks.tables", file=sys.stderr)
        return int(bool(stale))
    write_pictures(drawn, RESULTS)
    for page, filled in changed.items():
        with atomic_path(page) as temporary:
            temporary.write_text(filled, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(reported(main))
