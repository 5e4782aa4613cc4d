"""Stored rows are what their samples say."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from support_rows import make_latency, make_row

import pcaseg.benchmarks
from pcaseg.benchmarks import recompute
from pcaseg.benchmarks.intervals import paired_ratio
from pcaseg.benchmarks.rows import BenchRow, Ratio, Timing, append_rows, read_rows

RESULTS = Path(pcaseg.benchmarks.__file__).parent / "results"


def run_rows() -> tuple[BenchRow, BenchRow]:
    """Eager and another backend, with a ratio that their samples do not support."""
    found = []
    for backend, noise in (("eager", 0.001), ("folded", 0.2)):
        latency = make_latency(100, rounds=3, noise=noise, seed=len(found))
        timing = Timing(latency, Ratio(1.0, 0.99, 1.01))
        found.append(replace(make_row(backend), engine=timing, end_to_end=timing, noise=""))
    return found[0], found[1]


def test_ratios_and_verdicts_come_from_the_samples(tmp_path, capsys):
    path, (eager, folded) = tmp_path / "rows.jsonl", run_rows()
    append_rows(path, [eager, folded])
    assert recompute.main([str(path)]) == 0 and "2 rows changed" in capsys.readouterr().out
    base, other = read_rows([path])
    expected = paired_ratio(eager.engine.latency, folded.engine.latency)
    assert other.engine.ratio == other.end_to_end.ratio == expected and "too wide" in other.noise
    assert base.engine.ratio == Ratio(1.0, 1.0, 1.0) and base.noise == ""
    assert replace(other, engine=folded.engine, end_to_end=folded.end_to_end, noise="") == folded


def test_again_it_changes_nothing(tmp_path):
    path = tmp_path / "rows.jsonl"
    append_rows(path, run_rows())
    recompute.recompute(path)
    before = path.stat().st_mtime_ns, path.read_bytes()
    assert recompute.recompute(path) == 0
    assert (path.stat().st_mtime_ns, path.read_bytes()) == before


def test_fields_of_older_rows_stay_as_they_are(tmp_path):
    path = tmp_path / "rows.jsonl"
    append_rows(path, run_rows())
    contents = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    for content in contents:
        del content["engine_facts"]
    path.write_text("".join(json.dumps(content) + "\n" for content in contents), encoding="utf-8")
    assert recompute.recompute(path) == 2
    assert all("engine_facts" not in json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())


def test_a_ratio_needs_its_eager_row(tmp_path, capsys):
    path = tmp_path / "rows.jsonl"
    append_rows(path, run_rows()[1:])
    before = path.read_bytes()
    with pytest.raises(recompute.RowsError, match="line 1: its eager times are not in the file"):
        recompute.recompute(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("path", sorted(RESULTS.glob("bench_*.jsonl")), ids=lambda path: path.name)
def test_stored_rows_are_what_their_samples_say(path, tmp_path):
    copy = tmp_path / path.name
    copy.write_bytes(path.read_bytes())
    assert recompute.recompute(copy) == 0, f"run: python -m pcaseg.benchmarks.recompute {path}"
