"""Tables as text: escaping, alignment, what is missing."""

from __future__ import annotations

import sys

import pytest

from pcaseg.errors import MissingDependencyError
from pcaseg.text_tables import markdown_table, terminal_table


def test_numbers_stay_as_written_and_cells_stay_one_line():
    lines = markdown_table(["a", "b|c"], [["1e5", "x\ny"], [0.10, ""]], align="lr").splitlines()
    assert [[cell.strip() for cell in line.replace("\\|", "!").split("|")[1:-1]] for line in lines[:1] + lines[2:]] == [
        ["a", "b!c"],
        ["1e5", "x y"],
        ["0.1", ""],
    ]
    assert lines[1].replace("-", "") == "|:|:|"


def test_last_alignment_holds_for_the_columns_behind_it():
    assert markdown_table(["a", "b", "c"], [["x", "1", "2"]], align="lr").splitlines()[1].replace("-", "") == "|:|:|:|"
    head, _, row = terminal_table(["name", "one", "two"], [["x", "1", "2"]], align="lr").splitlines()
    assert (row.index("1"), row.index("2")) == (head.index("one") + 2, head.index("two") + 2)


def test_missing_package_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "tabulate", None)
    with pytest.raises(MissingDependencyError, match=r'tabulate; .*pip install "\.\[torch\]"'):
        markdown_table(["a"], [["b"]])
