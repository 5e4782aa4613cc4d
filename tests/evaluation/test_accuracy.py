"""Agreement, borders, gates and labelled sets, against cases worked out by hand and a well-known library."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from skimage.morphology import dilation, disk

from pcaseg.errors import PcasegError
from pcaseg.evaluation.accuracy import Output, boundary_agreement, compare, relative_error, worst_class
from pcaseg.evaluation.gates import default_gate, gate_failures, parse_gate
from pcaseg.evaluation.labelled import read_labelled


def output(labels: np.ndarray, logits: np.ndarray | None = None) -> Output:
    return Output(labels, np.full(labels.shape, 0.5), logits)


HALVES = np.repeat([[0, 1]], 20, axis=0).repeat(10, axis=1)


def test_equal_outputs_agree_in_everything():
    logits = np.random.default_rng(0).normal(size=(1, 2, 4, 4))
    found = compare(output(HALVES, logits), output(HALVES, logits), ["a", "b"], miou=50.0, reference_miou=50.0)
    assert (found.relative_error, found.label_agreement, found.boundary_agreement, found.worst_iou) == (0, 1, 1, 1)
    assert found.miou_difference == 0


def test_errors_inside_a_region_and_at_its_border_are_told_apart():
    inside, border = HALVES.copy(), HALVES.copy()
    inside[5, 2] = 1
    border[:, 9] = 1
    assert boundary_agreement(inside, HALVES) == 1 and boundary_agreement(border, HALVES) == 0.75
    assert boundary_agreement(HALVES * 0, HALVES * 0) == 1  # no border, nothing to disagree on
    assert dilation(np.eye(5, dtype=bool), disk(1)).sum() == 13  # 2 px on each side: the pixel's own, and one more


def test_a_wrong_class_is_the_worst():
    labels = HALVES.copy()
    labels[:10, :10] = 2
    assert worst_class(HALVES, labels) == (2, 0.0)


def test_dropped_classes_count_in_full_but_set_no_scale():
    reference = np.array([2.0, -4.0, -100.0]).reshape(1, 3, 1, 1)
    other = np.array([2.0, -4.4, -100.0]).reshape(1, 3, 1, 1)
    swapped = np.array([2.0, -100.0, -4.0]).reshape(1, 3, 1, 1)
    zero = np.zeros((1, 1), int)
    assert relative_error(output(zero, other), output(zero, reference)) == pytest.approx(0.1)
    assert relative_error(output(zero, swapped), output(zero, reference)) == pytest.approx(24)
    assert relative_error(Output(zero, np.array([[0.7]]), None), output(zero, reference)) == pytest.approx(0.2)


def test_values_that_are_no_numbers_pass_no_gate():
    logits = np.full((1, 2, 4, 4), np.nan)
    found = compare(output(HALVES, logits), output(HALVES, np.ones((1, 2, 4, 4))), ["a", "b"])
    assert "relative_error" in gate_failures(found, {"relative_error": 1e9})


def test_gates():
    assert parse_gate("relative_error=1e-3, label_agreement=0.9") == {"relative_error": 1e-3, "label_agreement": 0.9}
    for text in ("", "speed=1", "label_agreement", "label_agreement=high", "label_agreement=-1", "worst_iou=nan"):
        with pytest.raises(PcasegError, match="give NAME=NUMBER"):
            parse_gate(text)
    labels = HALVES.copy()
    labels[0, 0] = 1
    found = compare(output(labels), output(HALVES), ["a", "b"])
    assert gate_failures(found, {"label_agreement": 0.99, "worst_iou": 0.99}) == ""
    assert "label_agreement 0.99750 is below 0.999" in gate_failures(found, {"label_agreement": 0.999})
    assert "not measured" in gate_failures(found, {"miou_difference": 0.1})


def test_untrained_weights_are_held_to_labels_in_float32_alone():
    assert "label_agreement" in default_gate("float32", "seeded")
    assert "label_agreement" in default_gate("float16", "checkpoint")
    assert default_gate("float16", "seeded").keys() == {"relative_error"}
    assert default_gate("fp8", "checkpoint").keys() == {"label_agreement"} and not default_gate("int8", "seeded")
    default_gate("float32", "checkpoint")["relative_error"] = 9.0
    assert default_gate("float32", "checkpoint")["relative_error"] == 1e-4  # each call gives a table of its own


@pytest.fixture
def labelled(tmp_path):
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    (tmp_path / "classes.txt").write_text("cat\ngrass\n")
    Image.fromarray(np.zeros((4, 6, 3), np.uint8)).save(tmp_path / "images" / "a.png")
    Image.fromarray(np.full((4, 6), 255, np.uint8)).save(tmp_path / "labels" / "a.png")
    return tmp_path


def test_a_labelled_set(labelled):
    found = read_labelled(labelled)
    assert found.names == ("cat", "grass") and [pair[0].name for pair in found.pairs] == ["a.png"]


@pytest.mark.parametrize(
    ("name", "content", "fragment"),
    [
        ("labels/a.png", None, "is missing"),
        ("labels/a.png", np.full((4, 6), 2, np.uint8), "holds label 2, but there are 2 classes"),
        ("labels/a.png", np.zeros((6, 4), np.uint8), "6 x 4 labels for an image of 4 x 6"),
        ("labels/a.png", np.zeros((4, 6, 3), np.uint8), "are no labels"),
        ("labels/a.png", b"nothing", "not an image"),
        ("images/a.png", None, "no images"),
        ("classes.txt", None, "classes.txt"),
    ],
)
def test_a_labelled_set_that_cannot_be_used(labelled, name, content, fragment):
    (labelled / name).unlink()
    if isinstance(content, bytes):
        (labelled / name).write_bytes(content)
    elif content is not None:
        Image.fromarray(content).save(labelled / name)
    with pytest.raises(PcasegError, match=fragment):
        read_labelled(labelled)
