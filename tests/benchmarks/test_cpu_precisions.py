"""The study of lower precision on a CPU: its rows, its table, and the gate of a hint."""

from __future__ import annotations

import json
from functools import partial

import pytest

from pcaseg.benchmarks.studies import cpu_precisions
from pcaseg.benchmarks.study_tables import cpu_precisions_table
from pcaseg.environment import multiplies_bfloat16
from pcaseg.errors import PcasegError
from pcaseg.evaluation import labelled_scenes
from pcaseg.evaluation.check import check_bundle
from pcaseg.evaluation.gates import GATES, MIOU_DIFFERENCES
from pcaseg.evaluation.labelled_scenes import write_scenes

HALF = multiplies_bfloat16()


@pytest.mark.long
def test_rows_and_table(tmp_path):
    out = tmp_path / "cpu_precisions_x.json"
    words = ["--out", str(out), "--scenes", "3", "--calibration", "2", "--rounds", "2", "--threads", "1"]
    assert cpu_precisions.main(words) == 0
    eager, *rows = json.loads(out.read_text())["rows"]
    assert (eager["backend"], eager["gate"], eager["same_label"]) == ("eager", None, 1)
    found = {(row["backend"], row["precision"]): row for row in rows}
    expected = {(name, "float32") for name in ("folded", "onnxruntime", "openvino")}
    expected |= {(name, "int8") for name in ("onnxruntime", "openvino")}
    expected |= {(name, "bfloat16") for name in ("folded", "openvino") if HALF}
    assert found.keys() == expected
    for (_, precision), row in found.items():
        assert row["gate"] == MIOU_DIFFERENCES[precision] and len(row["seconds"]) == 2
        assert row["same_label"] > GATES[precision]["label_agreement"] and abs(row["miou"] - eager["miou"]) < 2
        assert (row["miou"] == eager["miou"]) == (precision == "float32")
    table = cpu_precisions_table(tmp_path)
    assert "mIoU on 3 scenes" in table and f"{eager['miou']:.2f} %" in table
    assert len(table.splitlines()) == 4 + 1 + len(rows)


def test_one_round_has_no_interval():
    with pytest.raises(PcasegError, match="rounds=1: give 2 or more"):
        cpu_precisions.measure({}, (), None, None, rounds=1)


@pytest.mark.skipif(not HALF, reason="this processor does not multiply in bfloat16")
def test_a_hint_brings_its_gate(trained_tiny, monkeypatch):
    monkeypatch.setattr(labelled_scenes, "write_scenes", partial(write_scenes, count=3))
    options = {"precision_hint": "bfloat16"}
    report = check_bundle(trained_tiny, classes=(5,), backend="openvino", backend_options=options)
    assert report.precision == "bfloat16" and report.gate == GATES["bfloat16"] and report.passed
    assert max(row.relative_error for row in report.rows) > GATES["float32"]["relative_error"]
    assert report.labelled.gate == MIOU_DIFFERENCES["bfloat16"]
