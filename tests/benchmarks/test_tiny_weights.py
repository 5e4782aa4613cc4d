"""Shipping the weights of `tiny`, their table and curve, and the ablation."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from support import small_model

from pcaseg.benchmarks.studies import ablation, tiny
from pcaseg.cli import main
from pcaseg.errors import PcasegError
from pcaseg.model import checkpoint
from pcaseg.model.checkpoint import load_model, save_model
from pcaseg.training.loop import MODEL
from pcaseg.training.record import RECORD


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A place for the package's weights that is empty."""
    folder = tmp_path / "weights"
    monkeypatch.setattr(checkpoint, "SHIPPED", folder)
    monkeypatch.setattr(tiny, "RESULTS", folder)
    monkeypatch.setattr(tiny, "WEIGHTS", folder / "tiny.safetensors")
    monkeypatch.setattr(tiny, "SHIPPED_RECORD", folder / "tiny.json")
    return folder


@pytest.mark.long
def test_trained_weights_become_the_default(package, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["train", "--preset", "tiny", "--out", "run", "--steps", "4", "--log-every", "1"]
    monkeypatch.setattr(sys, "argv", ["pcaseg", *words])
    assert main(words) == 0
    assert load_model("tiny").source.kind == "seeded"
    assert tiny.main(["run", "--scenes", "2"]) == 0
    model = load_model("tiny")
    assert model.source.kind == "shipped"
    trained = load_model("tiny", "run/model.safetensors").state_dict()
    assert all(torch.equal(tensor, trained[name]) for name, tensor in model.state_dict().items())
    record = json.loads((package / "tiny.json").read_text(encoding="utf-8"))
    assert record["command"] == "pcaseg train --preset tiny --out run --steps 4 --log-every 1"
    assert record["recipe"]["stages"][0]["name"] == "towers" and record["results"]["seen"]["scenes"] == 2
    with Image.open(package / tiny.PICTURE) as picture:
        assert picture.width > 3 * 384
    capsys.readouterr()
    assert main(["datasets", "scenes", "--out", "scenes", "--images", "1"]) == 0
    assert main(["segment", "scenes/images/0000.png", "--vocabulary", "scenes/classes.txt", "--out", "out"]) == 0
    assert "rendered scenes" in capsys.readouterr().out
    assert Path("out/0000_overlay.png").exists()


def test_only_a_finished_training_of_tiny_is_shipped(package, tmp_path, monkeypatch):
    run = tmp_path / "run"
    with pytest.raises(PcasegError, match="no finished training"):
        tiny.ship(run)
    run.mkdir()
    (run / RECORD).write_text("{}", encoding="utf-8")
    save_model(load_model("tiny", {}), run / MODEL, storage="float32")
    with pytest.raises(PcasegError, match="at most 8000000"):
        tiny.ship(run)
    monkeypatch.setattr(tiny, "open_model", lambda path: small_model())
    with pytest.raises(PcasegError, match="only tiny's"):
        tiny.ship(run)
    assert not package.exists()


def test_table_and_curve_show_the_record():
    one = {"scenes": 5, "list_length": 20.4, "miou": 0.8123, "pixel_accuracy": 0.9}
    rows = [{"step": step, "loss": 1.0, "towers": 1 / step, "stage": "towers"} for step in range(1, 101)]
    rows += [{"step": step, "loss": 1.0, "whole": 0.5, "towers": 0.1, "stage": "whole"} for step in range(101, 201)]
    record = {"results": dict.fromkeys(tiny.SUITES, one), "log": [*rows, {"step": 200, "finish_seconds": 3.0}]}
    assert "| parts, all names at once | 5 | 20 | 0.812 | 0.65 | 0.900 |" in re.sub(
        " +", " ", tiny.scenes_table(record)
    )
    drawn = tiny.curve(record).svg()
    assert "cosines of the towers" in drawn and "logits" in drawn
    assert drawn != tiny.curve(record | {"log": rows[:150]}).svg()


@pytest.mark.slow
def test_ablation_trains_its_variants_and_goes_on(tmp_path, capsys):
    words = ["--out", str(tmp_path / "a.json"), "--work", str(tmp_path / "work")]
    words += ["--tower-steps", "2", "--steps", "2", "--scenes", "1"]
    assert ablation.main(words) == 0
    report = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    rows = {row["variant"]: row for row in report["rows"]}
    assert list(rows) == ["serial", "parallel", "parallel, EPL", "parallel, EPL, FOD"]
    assert rows["serial"]["fod"] is None and 0 <= rows["parallel"]["fod"] <= 1
    assert rows["serial"]["parameters"] < rows["parallel"]["parameters"] < rows["parallel, EPL"]["parameters"]
    assert "| parallel, EPL, FOD " in tiny.ablation_table([report, report])
    models = {path: path.stat().st_mtime_ns for path in (tmp_path / "work").rglob(MODEL)}
    assert len(models) == 5
    assert ablation.main(words) == 0
    again = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    assert again["rows"] == report["rows"]
    assert {path: path.stat().st_mtime_ns for path in models} == models
