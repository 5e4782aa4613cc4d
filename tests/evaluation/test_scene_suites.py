"""The evaluation on scenes, against answers whose score is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from support import small_model

import pcaseg
from pcaseg.data.scene_names import BACKGROUNDS, HELD_OUT, SEEN_PAIRS
from pcaseg.data.scenes import render_scene
from pcaseg.errors import PcasegError
from pcaseg.evaluation.scene_suites import SUITES, evaluate_scenes, model_segment, scene_list

FEW = 40


def oracle(suite, grid):
    """Answers by the true areas on a grid, brought to 96 x 96 as logits are."""
    scenes = iter(range(FEW))

    def segment(image, names):
        scene = render_scene(next(scenes), seed=1, split=SUITES[suite].split)
        assert np.array_equal(scene.image, image)
        areas = torch.from_numpy(scene.areas(names, grid))[None]
        return F.interpolate(areas, (96, 96), mode="bilinear", align_corners=False)[0].argmax(dim=0).numpy()

    return segment


@pytest.mark.parametrize("suite", SUITES)
def test_ceiling_of_perfect_areas(suite):
    """What a perfect model reaches on its own 48 x 48 grid, and on the scene's own."""
    assert evaluate_scenes(oracle(suite, 48), [suite], scenes=FEW)[suite].miou >= 0.95
    assert evaluate_scenes(oracle(suite, 96), [suite], scenes=FEW)[suite].miou == 1


def test_scores_by_hand():
    """The first name everywhere: its share of all labelled pixels, and nothing for the others."""
    found = evaluate_scenes(lambda image, names: np.zeros(image.shape[:2], int), ["plain"], scenes=FEW)["plain"]
    truth = [render_scene(i, seed=1, split="evaluation").labels(scene_list("plain", None, i)) for i in range(FEW)]
    share = np.mean([(labels == 0).sum() / (labels >= 0).sum() for labels in truth])
    assert found.iou["car"] == pytest.approx(
        sum((labels == 0).sum() for labels in truth) / sum((labels >= 0).sum() for labels in truth)
    )
    assert found.pixel_accuracy == pytest.approx(share, abs=1e-3)
    assert found.miou == pytest.approx(found.iou["car"] / len(found.iou))
    assert found.scenes == FEW and found.list_length == 11


def test_lists():
    for index in range(10):
        scene = render_scene(index, seed=1, split="held-out")
        names = scene_list("held_out", scene, index)
        assert len(names) == 20 and {*scene.present("pair"), *scene.present("background")} <= set(names)
        assert names == scene_list("held_out", scene, index)
    assert set(SUITES["seen_all"].names) == {*SEEN_PAIRS, *HELD_OUT, *BACKGROUNDS}
    assert len(SUITES["parts"].names) == 20


def test_eager_and_folded_score_the_same():
    model = small_model("tiny")
    scores = [evaluate_scenes(model_segment(one), ["seen", "parts"], scenes=3) for one in (model, pcaseg.fold(model))]
    assert scores[0] == evaluate_scenes(model_segment(model), ["seen", "parts"], scenes=3)
    for suite in ("seen", "parts"):
        assert scores[0][suite].miou == pytest.approx(scores[1][suite].miou, abs=2e-3)


@pytest.mark.parametrize(
    ("options", "fragment"),
    [({"suites": ["nothing"]}, "there is no 'nothing'"), ({"scenes": 0}, "scenes=0: give 1 or more")],
)
def test_questions_that_cannot_be_asked(options, fragment):
    with pytest.raises(PcasegError, match=fragment):
        evaluate_scenes(lambda image, names: np.zeros(image.shape[:2], int), **options)


def test_labels_of_another_size():
    with pytest.raises(PcasegError, match="one per pixel"):
        evaluate_scenes(lambda image, names: np.zeros((48, 48), int), ["plain"], scenes=1)
