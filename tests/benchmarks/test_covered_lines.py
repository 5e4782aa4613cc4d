"""Counts of covered lines: sums by folder, held against the report's own total; its table."""

from __future__ import annotations

import json

import pytest

from pcaseg.benchmarks.studies.covered_lines import main
from pcaseg.benchmarks.study_tables import covered_lines_table
from pcaseg.errors import PcasegError


def report(totals=(70, 40), **files):
    def summary(lines, run):
        return {"summary": {"num_statements": lines, "covered_lines": run}}

    return {
        "files": {path.replace("_", "/") + ".py": summary(*counts) for path, counts in files.items()},
        "totals": {"num_statements": totals[0], "covered_lines": totals[1]},
    }


def test_rows_and_table(tmp_path):
    (tmp_path / "coverage.json").write_text(
        json.dumps(report(pcaseg_cli=(10, 5), pcaseg_model_a=(20, 20), pcaseg_model_b_c=(10, 5), kernels_x=(30, 10)))
    )
    out = tmp_path / "covered_lines.json"
    assert main([str(tmp_path / "coverage.json"), "--out", str(out)]) == 0
    rows = json.loads(out.read_text())["rows"]
    assert [tuple(row.values()) for row in rows] == [("kernels", 30, 10), ("pcaseg", 10, 5), ("pcaseg/model", 30, 25)]
    lines = covered_lines_table(tmp_path).splitlines()
    assert [line.split()[-2] for line in lines[2:]] == ["33", "50", "83", "57"]


@pytest.mark.parametrize(
    "text, said",
    [
        (None, "cannot be read as JSON"),
        ("no json", "cannot be read as JSON"),
        ("[]", "no report of `coverage json`"),
        ('{"files": {}}', "no report of `coverage json`"),
        (json.dumps(report(kernels_x=(30, 10))), "are not all of its total"),
    ],
)
def test_other_files_are_refused(tmp_path, text, said):
    if text is not None:
        (tmp_path / "coverage.json").write_text(text)
    with pytest.raises(PcasegError, match=said) as caught:
        main([str(tmp_path / "coverage.json"), "--out", str(tmp_path / "rows.json")])
    assert str(caught.value).startswith(str(tmp_path / "coverage.json")) and not (tmp_path / "rows.json").exists()
