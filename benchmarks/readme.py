"""Writes the README's tables from the rows in `benchmarks/results/`: `python -m pcaseg.benchmarks.readme`.

Each table stands between `<!-- table: NAME -->` and `<!-- end -->`. `--check` changes nothing and fails if a table
is not what its rows say.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from pcaseg.files import atomic_path

RESULTS = Path(__file__).parent / "results"
README = Path(__file__).parent.parent / "README.md"

_BLOCK = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def check_table() -> str:
    """Agreement of ONNX Runtime with the eager model, from the files of `pcaseg check --json`."""
    lines = [
        "| preset | image | classes | strategy | relative error of logits | same label | worst class, IoU |",
        "|---|---|---|---|---|---|---|",
    ]
    for path in sorted(RESULTS.glob("check_*.json")):
        report = json.loads(path.read_text(encoding="utf-8"))
        for row in report["rows"]:
            worst = f"{row['worst_class'].split(',')[0].strip()}, {row['worst_iou']:.4f}"
            lines.append(
                f"| {report['preset']} | {row['case']} | {row['classes']} | {row['strategy']} "
                f"| {row['relative_error']:.1e} | {row['label_agreement']:.3%} | {worst} |"
            )
    return "\n".join(lines) + "\n"


TABLES: dict[str, Callable[[], str]] = {"check": check_table}


def fill(text: str) -> str:
    """`text` with every table made anew from its rows."""
    return _BLOCK.sub(lambda block: block[1] + TABLES[block[2]]() + block[3], text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes the tables, or with `--check` returns 1 if they are not up to date."""
    parser = argparse.ArgumentParser(prog="python -m pcaseg.benchmarks.readme", description=__doc__)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args(arguments)
    text = README.read_text(encoding="utf-8")
    filled = fill(text)
    if options.check:
        return int(filled != text)
    with atomic_path(README) as temporary:
        temporary.write_text(filled, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
