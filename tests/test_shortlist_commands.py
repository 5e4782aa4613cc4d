"""`--shortlist` of the commands."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

import pcaseg
from pcaseg.benchmarks.targets import open_target
from pcaseg.cli import main
from pcaseg.data.scenes import render_scene
from pcaseg.errors import PcasegError
from pcaseg.evaluation.labelled_scenes import write_scenes

NAMES = "red car, blue car, sky, grass, green tree, yellow house, white mug, brown boat, sea, road"


@pytest.fixture
def scene(tmp_path):
    path = tmp_path / "scene.png"
    Image.fromarray(render_scene(3, seed=1, split="evaluation").image).save(path)
    return path


def test_segment_with_the_eager_model(scene, tmp_path, capsys):
    out, found = tmp_path / "out", {}
    for given in (["--shortlist", "2"], ["--shortlist", "2"], []):
        assert main(["segment", str(scene), "--classes", NAMES, "--out", str(out), *given]) == 0
        summary = json.loads((out / "scene.json").read_text())
        found[summary["shortlist"]] = np.asarray(Image.open(out / "scene_labels.png"))
    assert capsys.readouterr().out.count("1 done before") == 1  # another shortlist is another result
    assert set(found) == {2, None}
    assert len(np.unique(found[2])) <= 2 < len(np.unique(found[None]))


def test_segment_with_a_bundle(tiny_shortlist, scene, tmp_path, capsys):
    words = ["segment", str(scene), "--classes", NAMES, "--bundle", str(tiny_shortlist)]
    assert main([*words, "--out", str(tmp_path / "own")]) == 0
    assert main([*words, "--out", str(tmp_path / "same"), "--shortlist", "6", "--strategy", "sliding"]) == 0
    capsys.readouterr()
    assert main([*words, "--out", str(tmp_path / "other"), "--shortlist", "5"]) == 2
    assert capsys.readouterr().err.strip() == (
        "error: shortlist=5: the bundle was exported with --shortlist 6; leave it out, or export with --shortlist 5"
    )
    assert not (tmp_path / "other").exists()


def test_a_bundle_without_one_says_so(trained_tiny, scene, tmp_path, capsys):
    words = ["segment", str(scene), "--classes", NAMES, "--bundle", str(trained_tiny), "--out", str(tmp_path / "o")]
    assert main([*words, "--shortlist", "5"]) == 2
    assert "shortlist=5: the bundle was exported with no shortlist; leave it out, or" in capsys.readouterr().err


@pytest.mark.parametrize("wrong", ["0", "257", "-3", "x", "1.5"])
@pytest.mark.parametrize("command", ["segment", "export", "evaluate", "check", "bench"])
def test_lengths_that_mean_nothing(command, wrong, capsys):
    with pytest.raises(SystemExit, match="2"):
        main([command, f"--shortlist={wrong}"])
    assert f"{wrong!r}: give 1 to 256" in capsys.readouterr().err


def test_check_holds_a_bundle_against_the_eager_shortlist(tiny_shortlist, scene, tmp_path):
    folder = tmp_path / "labelled"
    folder.mkdir()
    write_scenes(folder, count=2, side=96)
    report = pcaseg.check_bundle(
        tiny_shortlist,
        model=pcaseg.open_model("tiny"),  # without a shortlist of its own
        images=[scene],
        classes=(20, 5),
        labelled=str(folder),
        shortlist=6,
    )
    assert all(row.passed for row in report.rows), report.table()
    with pytest.raises(PcasegError, match="the bundle was exported with --shortlist 6"):
        pcaseg.check_bundle(tiny_shortlist, images=[scene], shortlist=7)


def test_evaluate_keeps_shortlists_apart(tiny_shortlist, tmp_path, capsys):
    folder = tmp_path / "scenes"
    assert main(["datasets", "scenes", "--out", str(folder), "--images", "2", "--size", "96"]) == 0
    words = ["evaluate", "--data", str(folder), "--strategy", "single", "--out", str(tmp_path / "r")]
    assert main([*words, "--model", "tiny", "--bundle", str(tiny_shortlist), "--shortlist", "6"]) == 0
    eager, bundle = json.loads((tmp_path / "r" / "results.json").read_text())["subjects"]
    assert eager["miou"] == pytest.approx(bundle["miou"], abs=0.1)
    assert eager["shortlist"] == bundle["shortlist"] == 6
    assert (tmp_path / "r" / "results.md").read_text().count("single, shortlist 6") >= 2
    assert main([*words, "--model", "tiny"]) == 2
    assert "another evaluation (shortlist 6, not None)" in capsys.readouterr().err


def test_bench_has_one_for_every_backend(tiny_shortlist):
    with open_target(str(tiny_shortlist), shortlist=6) as (target, _, _):
        assert target.model.shortlist == 6
    with pytest.raises(PcasegError, match="exported with --shortlist 6"), open_target(str(tiny_shortlist), shortlist=7):
        pass
