"""Files of rows: read back as written, added to, and refused where they are something else."""

from __future__ import annotations

import importlib
import json
from dataclasses import replace

import pytest

from pcaseg.benchmarks.rows import (
    BenchRow,
    EngineFacts,
    Latency,
    Point,
    Ratio,
    RowsError,
    Timing,
    append_rows,
    check_destination,
    read_rows,
)
from pcaseg.benchmarks.stored import RESULTS
from pcaseg.environment import write_rows
from pcaseg.errors import OutputError
from pcaseg.runtime.engines import LayerShare

LATENCY = Latency(2, 1, 1.5, 1.0, 1.5, 2.0, 2.0, 666.0, (1.0, 2.0))
ROW = BenchRow(
    run="r",
    created="2026-01-01T00:00:00+00:00",
    preset="eva-b-384",
    aggregation="parallel",
    weights="seeded",
    bundle_sha256=None,
    engine_sha256=None,
    backend="eager",
    runs="PyTorch",
    computation="published",
    precision="float32",
    point=Point(20, "single", 1, "float32", 2, 1, 480, 640),
    status="ok",
    engine=Timing(LATENCY, Ratio(1.0, 1.0, 1.0)),
)


def changed(row: dict, **values) -> dict:
    """A row as JSON with other values in its engine's latency."""
    engine = row["engine"]
    return row | {"engine": engine | {"latency": engine["latency"] | values}}


def test_round_trip(tmp_path):
    path = tmp_path / "deeper" / "rows.jsonl"
    facts = EngineFacts("10.13.3.9", {"fp16": LayerShare(7, 1.5), "fp32": LayerShare(2, None)}, 61.0)
    other = replace(ROW, backend="tensorrt", end_to_end=Timing(LATENCY, None), stages_ms={"engine": 1.0})
    other = replace(other, engine_facts=facts)
    append_rows(path, [ROW])
    append_rows(path, [other])
    assert read_rows([path]) == [ROW, other] and read_rows([path, path]) == [ROW, other] * 2
    assert len(path.read_text().splitlines()) == 2


def test_rows_from_before_engines_were_described(tmp_path):
    path = tmp_path / "rows.jsonl"
    append_rows(path, [ROW])
    row = json.loads(path.read_text())
    del row["engine_facts"]
    path.write_text(json.dumps(row) + "\n")
    assert read_rows([path]) == [ROW]


@pytest.mark.parametrize(
    ("change", "fragment"),
    [
        (lambda row: row | {"schema_version": 9}, "newer than 1"),
        (lambda row: row | {"status": "great"}, 'status is "great"'),
        (lambda row: row | {"engine": {"latency": 3, "ratio": None}}, "engine.latency is 3"),
        (lambda row: {key: value for key, value in row.items() if key != "point"}, "point is missing"),
        (lambda row: [row], "not a JSON object"),
        (lambda row: changed(row, p50_ms=float("nan")), "engine p50_ms is nan"),
        (lambda row: changed(row, samples_ms=[1.0, float("inf")]), r"engine samples_ms\[1\] is inf"),
        (lambda row: changed(row, min_ms=-1.0), "engine min_ms is -1"),
        (lambda row: changed(row, rounds=0), "2 samples, not 2 in 0 rounds"),
        (lambda row: changed(row, n=3), "2 samples, not 3 in 1 rounds"),
        (lambda row: row | {"stages_ms": {"decode": -1.0}}, "stages_ms decode"),
    ],
)
def test_wrong_rows_are_refused(tmp_path, change, fragment):
    path = tmp_path / "rows.jsonl"
    append_rows(path, [ROW])
    wrong = change(json.loads(path.read_text()))
    path.write_text(path.read_text() + json.dumps(wrong) + "\n")
    with pytest.raises(RowsError, match=fragment) as error:
        read_rows([path])
    assert f"{path}, line 2" in str(error.value)


def test_other_files_are_refused_and_left_alone(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("my notes\n")
    with pytest.raises(OutputError, match="nothing was added"):
        check_destination(path)
    assert path.read_text() == "my notes\n"
    check_destination(tmp_path / "new" / "rows.jsonl")
    assert not (tmp_path / "new" / "rows.jsonl").exists()
    with pytest.raises(RowsError, match="cannot be read"):
        read_rows([tmp_path / "missing.jsonl"])
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(RowsError, match="holds no rows"):
        read_rows([tmp_path / "empty.jsonl"])


STUDIES = [
    path.stem for path in sorted((RESULTS.parent / "studies").glob("*.py")) if '"--out"' in path.read_text("utf-8")
]


@pytest.mark.parametrize("study", STUDIES)
def test_a_study_writes_over_rows_alone_and_says_so_first(study, tmp_path, capsys):
    mine, folder = tmp_path / "photo.png", tmp_path / "folder"
    mine.write_bytes(b"a picture")
    folder.mkdir()
    main = importlib.import_module(f"pcaseg.benchmarks.studies.{study}").main
    for out, said in (
        (mine, "photo.png: exists and is not a file of rows"),
        (folder, "folder: exists and is not a file of rows"),
        (mine / "rows.json", "rows.json: cannot be written"),
    ):
        with pytest.raises(SystemExit) as ended:
            main(["--out", str(out)])
        assert ended.value.code == 2 and said in capsys.readouterr().err
    with pytest.raises(OutputError, match="is not a file of rows"):
        write_rows(mine, [])
    assert mine.read_bytes() == b"a picture" and sorted(tmp_path.iterdir()) == [folder, mine]
