"""The study of lower precision on a CPU: its rows, its table, and the gate of a hint."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from pcaseg.benchmarks.studies import cpu_precisions
from pcaseg.benchmarks.study_tables import cpu_precisions_table
from pcaseg.environment import multiplies_bfloat16
from pcaseg.errors import PcasegError
from pcaseg.evaluation.gates import GATES, MIOU_DIFFERENCES

HALF = multiplies_bfloat16()


def run_alone(*words: object) -> None:
    """Runs a module in a process of its own."""
    done = subprocess.run([sys.executable, "-m", *map(str, words)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.long
def test_rows_and_table(tmp_path):
    out = tmp_path / "cpu_precisions_x.json"
    words = ["--out", str(out), "--scenes", "3", "--calibration", "2", "--rounds", "2", "--threads", "1"]
    run_alone("pcaseg.benchmarks.studies.cpu_precisions", *words)
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


@pytest.mark.long
@pytest.mark.skipif(not HALF, reason="this processor does not multiply in bfloat16")
def test_a_hint_brings_its_gate(trained_tiny, tmp_path):
    words = ["--classes", "5", "--backend", "openvino", "--precision-hint", "bfloat16", "--threads", "1"]
    run_alone("pcaseg", "check", trained_tiny, *words, "--json", tmp_path / "check.json")
    report = json.loads((tmp_path / "check.json").read_text())
    assert (report["precision"], report["backend"]) == ("bfloat16", "openvino-cpu-bfloat16")
    errors = [row["relative_error"] for row in report["rows"]]
    assert GATES["float32"]["relative_error"] < max(errors) <= GATES["bfloat16"]["relative_error"]
    assert report["labelled"]["gate"] == MIOU_DIFFERENCES["bfloat16"]
