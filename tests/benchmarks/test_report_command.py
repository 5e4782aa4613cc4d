"""`pcaseg report` as a user types it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support_rows import make_rows

from pcaseg.benchmarks.rows import BenchRow, append_rows
from pcaseg.cli import main


def slower(row: BenchRow, factor: float) -> BenchRow:
    if row.engine is None:
        return row
    found = row.engine.latency
    samples = tuple(factor * ms for ms in found.samples_ms)
    return replace(
        row, engine=replace(row.engine, latency=replace(found, samples_ms=samples, p50_ms=factor * found.p50_ms))
    )


@pytest.fixture
def files(tmp_path):
    """A run, and one in which everything takes twice as long."""
    append_rows(tmp_path / "before.jsonl", make_rows())
    append_rows(tmp_path / "after.jsonl", [slower(row, 2.0) for row in make_rows()])
    return tmp_path


def run(capsys, *words) -> tuple[int, str, str]:
    code = main(["report", *map(str, words)])
    return (code, *capsys.readouterr())


def test_a_page_is_written_and_replaced(files, capsys):
    page = files / "report.html"
    for _ in range(2):
        assert run(capsys, files / "before.jsonl", files / "after.jsonl", "--html", page)[0] == 0
    assert page.read_text().startswith("<!doctype html>")
    page.write_text("<!doctype html>my own page")
    code, _, err = run(capsys, files / "before.jsonl", "--html", page)
    assert code == 2 and "is not a report of pcaseg" in err and page.read_text() == "<!doctype html>my own page"


def test_two_runs_are_compared(files, capsys):
    assert run(capsys, files / "before.jsonl", files / "before.jsonl")[0] == 0
    code, out, _ = run(capsys, files / "before.jsonl", files / "after.jsonl")
    assert code == 1 and "REGRESSION" in out
    assert run(capsys, files / "after.jsonl", files / "before.jsonl")[0] == 0


def test_one_file_is_a_table(files, capsys):
    code, out, _ = run(capsys, files / "before.jsonl")
    assert code == 0 and "onnxruntime-cpu" in out and "skipped: " in out


def test_what_cannot_be_used(files, capsys):
    code, _, err = run(capsys, *[files / "before.jsonl"] * 3)
    assert code == 2 and "two files are compared" in err
    code, _, err = run(capsys, files / "nothing.jsonl")
    assert code == 2 and "nothing.jsonl" in err
    (files / "cut.jsonl").write_text((files / "before.jsonl").read_text()[:-200])
    code, _, err = run(capsys, files / "cut.jsonl", "--html", files / "cut.html")
    assert code == 2 and "cut.jsonl, line" in err and not (files / "cut.html").exists()
    with pytest.raises(SystemExit) as error:
        run(capsys, files / "before.jsonl", "--threshold", "5%")
    assert error.value.code == 2
