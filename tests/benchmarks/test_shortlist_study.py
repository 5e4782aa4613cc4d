"""The study of shortlists: its intervals, its rows, its table."""

from __future__ import annotations

import json

import numpy as np
import pytest

from pcaseg.benchmarks.intervals import mean_interval
from pcaseg.benchmarks.studies import shortlist, shortlist_speed
from pcaseg.benchmarks.study_tables import shortlist_speed_table, shortlist_table
from pcaseg.environment import write_rows
from pcaseg.errors import PcasegError
from pcaseg.model.checkpoint import load_model


def test_interval_of_a_mean_holds_it():
    rng, held = np.random.default_rng(0), 0
    for _ in range(500):
        found = mean_interval(rng.normal(3, 2, 6))
        assert found.low < found.value < found.high
        held += found.low <= 3 <= found.high
    assert 0.92 <= held / 500 <= 0.98


def test_the_jackknife_of_a_mean_is_the_mean():
    """Where a measure is a mean over scenes, its pseudo-values are the scenes' own."""
    values, base = np.random.default_rng(1).random((2, 9))
    jackknife = [np.array([one.mean(), *((one.sum() - one) / 8)]) for one in (values, base)]
    found, expected = shortlist.paired_difference(*jackknife), mean_interval(values - base)
    np.testing.assert_allclose(
        [found.value, found.low, found.high], [expected.value, expected.low, expected.high], atol=1e-12
    )


def test_rows_and_table(monkeypatch, tmp_path):
    monkeypatch.setattr(shortlist, "LENGTHS", (2, 8, None))
    monkeypatch.setattr(shortlist, "ASKED", {"one": ("seen_all", None), "two": ("seen_all", "two")})
    monkeypatch.setattr(shortlist, "class_list", lambda _: ("fork", "sky"))
    out = tmp_path / "shortlist_tiny_x.json"
    assert shortlist.main(["--out", str(out), "--scenes", "2"]) == 0
    rows = json.loads(out.read_text())["rows"]
    assert [(row["names"], row["shortlist"]) for row in rows] == [(T, K) for T in (53, 54) for K in (2, 8, None)]
    few, more, whole = rows[:3]
    assert few["recall"] < more["recall"] <= whole["recall"] == 1
    assert few["miou"] < more["miou"]
    assert whole["difference"] is None
    gap = few["difference"]
    assert gap["low"] <= gap["value"] <= gap["high"]
    assert all(len(row["seconds"]) == 2 for row in rows)
    lines = shortlist_table(tmp_path).splitlines()
    assert len(lines) == 2 + len(rows)
    assert f"{100 * whole['miou']:.2f}" in lines[4] and " all " in lines[4]


def test_one_scene_has_no_interval():
    with pytest.raises(PcasegError, match="scenes=1: give 2 or more"):
        shortlist.measure("seen_all", (), scenes=1)


def test_speed_is_of_the_same_logits(tiny_shortlist, tmp_path, monkeypatch):
    """In float32; bfloat16 runs in a process of its own, see `test_cpu_precisions.py`."""
    monkeypatch.setattr(shortlist_speed, "multiplies_bfloat16", lambda: False)
    found = shortlist_speed.measure(load_model("tiny"), tiny_shortlist, shortlist=6, rounds=2, classes=(4, 9))
    rows, products = ([row for row in found if (row.classes > 0) == network] for network in (True, False))
    names = ("eager", *shortlist_speed.backend_names())
    assert [(row.classes, row.backend) for row in rows] == [(T, name) for T in (4, 9) for name in names]
    assert all((row.backend == "eager") == (row.relative_error is None) for row in rows)
    assert all(row.backend == "eager" or 0 < row.relative_error < 1e-4 for row in rows)
    assert all(row.kept == 1 for row in rows if row.backend in ("folded", "onnxruntime", "openvino"))
    assert all(len(row.seconds) == 2 for row in rows) and all(len(row.seconds) == 4 for row in products)
    few, more = (row for row in rows if row.backend == "onnxruntime")
    assert few.gmac < more.gmac and {"MatMul", "Conv"} <= few.operators.keys()
    write_rows(tmp_path / "shortlist_speed_x.json", found, preset="tiny", shortlist=6, threads=1)
    table = shortlist_speed_table(tmp_path)
    assert (
        table.count("| ONNX Runtime ") == 2
        and sum(line.startswith("|         9 |") for line in table.splitlines()) == 2
    )


def test_bfloat16_where_the_processor_has_it(monkeypatch):
    asked = []
    for able in (False, True):
        monkeypatch.setattr(shortlist_speed, "multiplies_bfloat16", lambda able=able: able)
        asked.append(shortlist_speed.backend_names())
    assert set(asked[1]) - set(asked[0]) >= {"folded-bfloat16"}
    assert all(name.endswith("-bfloat16") for name in set(asked[1]) - set(asked[0]))


def test_another_shortlist_is_no_comparison(tiny_shortlist):
    with pytest.raises(PcasegError, match="kept other classes"):
        shortlist_speed.measure(load_model("tiny"), tiny_shortlist, shortlist=5, rounds=2, classes=(9,))
