"""Eight bits without a GPU: the quantised graph on ONNX Runtime against the eager model, on labelled scenes."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial

import pytest
from PIL import Image

from pcaseg.benchmarks.studies import quantised
from pcaseg.data.scenes import render_scene
from pcaseg.errors import OutputError, PcasegError
from pcaseg.evaluation import labelled_scenes
from pcaseg.evaluation.labelled_scenes import write_scenes
from pcaseg.runtime.bundle import Bundle


@pytest.fixture
def calibration(tmp_path):
    folder = tmp_path / "calibration"
    folder.mkdir()
    Image.fromarray(render_scene(0, seed=9).image).save(folder / "0.png")
    return folder


def test_trained_tiny_in_eight_bits(trained_tiny, tmp_path, calibration, monkeypatch, capsys):
    monkeypatch.setattr(labelled_scenes, "write_scenes", partial(write_scenes, count=3))
    report = tmp_path / "rows.json"
    words = [
        str(trained_tiny),
        "--precision",
        "fp8",
        "--calibration",
        str(calibration),
        "--json",
        str(report),
    ]
    passed = quantised.main(words) == 0
    found = json.loads(report.read_text(encoding="utf-8"))
    row = found["labelled"]
    assert (found["precision"], found["backend"], row["images"], row["gate"]) == ("fp8", "onnxruntime-cpu", 3, 1.0)
    assert row["eager_miou"] > 50 and 0 < row["bundle_miou"] != row["eager_miou"]
    assert passed == (abs(row["bundle_miou"] - row["eager_miou"]) <= 1.0)
    assert ("ok, gate: 1" in capsys.readouterr().out) == passed


def test_bad_input(copy_bundle, tmp_path, calibration):
    seeded = str(copy_bundle(tmp_path / "b.pcaseg"))
    words = ["--precision", "int8", "--calibration", str(calibration), "--json", str(tmp_path / "rows.json")]
    with pytest.raises(PcasegError, match="never trained, so mIoU says nothing"):
        quantised.main([seeded, *words])
    half = str(copy_bundle(tmp_path / "half.pcaseg"))
    manifest = Bundle(half).manifest
    (tmp_path / "half.pcaseg" / "manifest.json").write_text(replace(manifest, precision="float16").to_json())
    with pytest.raises(PcasegError, match="int8 is made of a float32 bundle"):
        quantised.main([half, *words])
    (tmp_path / "rows.json").write_text("mine", encoding="utf-8")
    with pytest.raises(OutputError, match="is not a report of pcaseg check"):
        quantised.main([seeded, *words])
