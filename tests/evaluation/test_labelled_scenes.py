"""The scenes as a labelled set, and mIoU of the eager model and of its bundle on them."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from PIL import Image
from support import small_model

import pcaseg
from pcaseg.cli import main
from pcaseg.data.scene_names import HELD_OUT
from pcaseg.data.scenes import render_scene
from pcaseg.errors import PcasegError
from pcaseg.evaluation import labelled_scenes
from pcaseg.evaluation.agreement import LabelledAgreement, check_labelled
from pcaseg.evaluation.gates import labelled_gate
from pcaseg.evaluation.labelled import labelled_miou
from pcaseg.evaluation.labelled_scenes import NAMES, open_labelled, write_scenes
from pcaseg.model.checkpoint import save_model
from pcaseg.runtime.bundle import Bundle
from pcaseg.runtime.onnxruntime_backend import OnnxRuntimeBackend


@pytest.fixture
def few(monkeypatch):
    monkeypatch.setattr(labelled_scenes, "write_scenes", partial(write_scenes, count=4))


def test_the_set(tmp_path):
    labelled = write_scenes(tmp_path, count=6)
    assert labelled.names == NAMES and len(labelled.pairs) == 6 and len(NAMES) == 53
    for index in range(len(labelled)):
        image, truth = labelled.item(index)
        scene = render_scene(index, seed=2, split="held-out" if index % 2 else "evaluation")
        expected = scene.labels(NAMES)
        assert np.array_equal(image, scene.image)
        assert np.array_equal(truth, expected)
        shown = {NAMES[label] for label in np.unique(truth) if label >= 0}
        assert index % 2 or not shown & set(HELD_OUT)
    answers = iter(range(len(labelled)))
    assert labelled_miou(lambda image: labelled.labels(next(answers)), labelled) == 100


def test_sources(few, tmp_path):
    with open_labelled(None) as nothing:
        assert nothing is None
    with open_labelled("scenes") as rendered:
        assert rendered is not None and len(rendered.pairs) == 4
        folder = rendered.pairs[0][0].parents[1]
    assert not folder.exists()
    (tmp_path / "own").mkdir()
    write_scenes(tmp_path / "own", count=2)
    with open_labelled(str(tmp_path / "own")) as own:
        assert own is not None and len(own.pairs) == 2
    with pytest.raises(PcasegError), open_labelled(str(tmp_path / "absent")):
        pass


def test_gates():
    assert labelled_gate("float32", "checkpoint") == {"miou_difference": 0.1}
    assert labelled_gate("float16", "checkpoint") == {"miou_difference": 0.5}
    assert labelled_gate("float32", "seeded") == {"miou_difference": 0.1}
    assert labelled_gate("bfloat16", "checkpoint") == {"miou_difference": 0.5}
    assert labelled_gate("float16", "seeded") == labelled_gate("bfloat16", "seeded") == {}
    row = LabelledAgreement(images=4, classes=53, eager_miou=60.0, bundle_miou=59.95, gate=0.1)
    assert row.passed and "difference -0.050 points (ok, gate: 0.1)" in row.verdict()
    assert not replace(row, bundle_miou=60.11).passed and "FAILED" in replace(row, bundle_miou=60.11).verdict()
    assert replace(row, bundle_miou=10, gate=None).passed and "no gate" in replace(row, gate=None).verdict()


def test_scenes_are_written_where_nothing_stands(tmp_path, capsys):
    out = tmp_path / "scenes"
    assert main(["datasets", "scenes", "--out", str(out), "--images", "2"]) == 0
    assert sorted(path.name for path in out.rglob("*.png")) == ["0000.png"] * 2 + ["0001.png"] * 2
    assert {Image.open(path).size for path in out.rglob("*.png")} == {(384, 384)}
    assert (out / "classes.txt").read_text().splitlines() == list(NAMES)
    assert main(["datasets", "scenes", "--out", str(out)]) == 2
    assert "exists; choose another folder" in capsys.readouterr().err
    assert main(["datasets", "scenes", "--out", str(tmp_path / "none"), "--images", "0"]) == 2
    for size in ("95", "2049"):
        assert main(["datasets", "scenes", "--out", str(tmp_path / "none"), "--size", size]) == 2
        assert f"--size {size}: give 96 to 2048 pixels" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()
    assert main(["datasets", "scenes", "--out", str(tmp_path / "small"), "--images", "1", "--size", "96"]) == 0
    assert np.array_equal(
        np.asarray(Image.open(tmp_path / "small/images/0000.png")), render_scene(0, seed=2, split="evaluation").image
    )


def test_eager_and_bundle_score_the_same_and_another_model_does_not(trained_tiny, tmp_path):
    labelled, backend = write_scenes(tmp_path, count=4), OnnxRuntimeBackend(Bundle(trained_tiny))
    row = check_labelled(small_model("tiny"), backend, labelled, "single", 0.1)
    assert row.gate == 0.1 and row.passed and row.eager_miou > 0 and (row.images, row.classes) == (4, 53)
    assert not check_labelled(small_model("tiny", checkpoint={}, seed=5), backend, labelled, "single", 0.1).passed


def test_check_measures_a_labelled_set(few, trained_tiny, tmp_path, capsys):
    Image.fromarray(render_scene(0).image).save(tmp_path / "photo.png")
    common = ["--images", str(tmp_path / "photo.png"), "--classes", "3"]
    bundle = ["check", str(trained_tiny), *common]
    report = tmp_path / "rows.json"
    for asked in ([], ["--labelled", "scenes"]):  # trained weights of the preset are measured unasked
        assert main([*bundle, *asked, "--json", str(report)]) == 0
        assert "mIoU on 4 labelled images, 53 classes" in capsys.readouterr().out
        assert json.loads(report.read_text())["labelled"]["gate"] == 0.1
    save_model(small_model("tiny", checkpoint={}, seed=5), tmp_path / "other.safetensors")
    other = ["--model", str(tmp_path / "other.safetensors"), "--gate", "relative_error=9,label_agreement=0"]
    assert main([*bundle, *other]) == 1
    assert "FAILED" in capsys.readouterr().out


def test_seeded_weights_are_not_measured_unasked(copy_bundle, small_preset, tmp_path, capsys):
    Image.fromarray(render_scene(0).image).save(tmp_path / "photo.png")
    command = [
        "check",
        str(copy_bundle(tmp_path / "b.pcaseg")),
        "--images",
        str(tmp_path / "photo.png"),
        "--classes",
        "3",
    ]
    assert main([*command, "--json", str(tmp_path / "rows.json")]) == 0
    assert json.loads((tmp_path / "rows.json").read_text())["labelled"] is None
    assert main([*command, "--gate", "miou_difference=0.1"]) == 2
    assert "give --labelled" in capsys.readouterr().err


def test_a_bundle_is_checked_from_python(few, trained_tiny, tmp_path):
    Image.fromarray(render_scene(0).image).save(tmp_path / "photo.png")
    asked = {"images": [tmp_path / "photo.png"], "classes": (3,)}
    report = pcaseg.check_bundle(Bundle(trained_tiny), **asked)
    assert report.passed and report.backend == "onnxruntime-cpu" and report.weights == "shipped"
    assert [row.classes for row in report.rows] == [3, 3] and report.labelled.images == 4
    untrained = small_model("tiny", checkpoint={}, seed=5)
    failed = pcaseg.check_bundle(trained_tiny, model=untrained, gate={"miou_difference": 100}, **asked)
    assert not failed.passed and failed.labelled.passed and "DISAGREE" in failed.verdict()
