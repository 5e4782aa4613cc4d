"""Confusion matrices and their measures: by hand, and against scikit-learn on random label maps."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics

from pcaseg.evaluation.confusion import Confusion, confusion_cells, group_miou, harmonic_mean, scores

KINDS = (np.uint8, np.uint16, np.int32, np.int64)


@settings(max_examples=60, deadline=None)
@given(
    classes=st.integers(1, 300),
    side=st.integers(1, 24),
    kind=st.sampled_from(KINDS),
    seed=st.integers(0, 2**32 - 1),
)
def test_equals_scikit_learn(classes, side, kind, seed):
    rng = np.random.default_rng(seed)
    used = rng.integers(0, classes, max(1, classes // 2))  # some classes do not occur
    truth = rng.choice(used, (3, side, side)).astype(np.int32)
    truth[rng.random(truth.shape) < 0.2] = -1
    labels = rng.integers(0, min(classes, np.iinfo(kind).max + 1), truth.shape).astype(kind)
    confusion = Confusion(classes)
    for one, true in zip(labels, truth, strict=True):
        confusion.add(one, true)
    known = truth >= 0
    true, found = truth[known], labels[known]
    if not len(true):
        return
    expected = sklearn_metrics.confusion_matrix(true, found, labels=np.arange(classes))
    np.testing.assert_array_equal(confusion.counts, expected)
    measured, present = confusion.scores(), np.unique(true)
    jaccard = sklearn_metrics.jaccard_score(true, found, labels=present, average=None, zero_division=0)
    recall = sklearn_metrics.recall_score(true, found, labels=present, average=None, zero_division=0)
    share = np.array([(true == index).mean() for index in present])
    assert measured.miou == pytest.approx(100 * jaccard.mean())
    assert measured.fwiou == pytest.approx(100 * (share * jaccard).sum())
    assert measured.mean_accuracy == pytest.approx(100 * recall.mean())
    assert measured.pixel_accuracy == pytest.approx(100 * sklearn_metrics.accuracy_score(true, found))


def test_by_hand():
    truth = np.array([[0, 0, 1, 255]])
    labels = np.array([[0, 1, 1, 0]])
    confusion = Confusion(3)
    confusion.add(labels, truth)
    assert confusion.scores().miou == pytest.approx(50.0)  # 1/2 and 1/2; class 2 occurs nowhere
    confusion = Confusion(2)
    for _ in range(2):
        confusion.add(truth[:, :3], truth[:, :3])
    assert confusion.scores().miou == 100


def test_a_class_only_predicted_counts_against_the_others_alone():
    confusion = Confusion(3)
    confusion.add(np.array([[0, 2]]), np.array([[0, 0]]))
    found = confusion.scores()
    assert found.iou.tolist()[0] == 50 and np.isnan(found.iou[1]) and found.iou[2] == 0 and found.miou == 50


def test_counts_are_exact_beyond_floats():
    """2^53 + 1 pixels, which no double holds."""
    confusion = Confusion(2)
    confusion.add_cells(np.array([0]), np.array([2**53]))
    confusion.add(np.array([[0]]), np.array([[0]]))
    assert confusion.counts[0, 0] == 2**53 + 1


def test_nothing_labelled_is_not_a_result():
    confusion = Confusion(4)
    confusion.add(np.zeros((2, 2), np.uint8), np.full((2, 2), -1))
    found = confusion.scores()
    assert np.isnan([found.miou, found.fwiou, found.mean_accuracy, found.pixel_accuracy]).all()


def test_sixteen_bit_labels():
    truth = np.array([[846, 65535, 300]], np.uint16)
    confusion = Confusion(847)
    confusion.add(np.array([[846, 0, 301]], np.uint16), truth)
    assert confusion.counts.sum() == 2 and confusion.counts[846, 846] == confusion.counts[300, 301] == 1


def test_what_cannot_be_counted():
    with pytest.raises(ValueError, match="shape"):
        confusion_cells(np.zeros((2, 3), int), np.zeros((3, 2), int), 2)
    with pytest.raises(ValueError, match=r"0\.\.2 for 2 classes"):
        confusion_cells(np.array([[0, 2]]), np.array([[1, 1]]), 2)
    confusion_cells(np.array([[0, 2]]), np.array([[1, -1]]), 2)  # beyond, but it does not count


def test_seen_and_unseen_parts():
    counts = np.array([[3, 1, 0], [0, 2, 0], [2, 0, 2]])
    found = scores(counts)
    assert found.iou.tolist() == pytest.approx([50, 100 * 2 / 3, 50])
    seen, unseen = group_miou(found, [True, True, False]), group_miou(found, [False, False, True])
    assert seen == pytest.approx((50 + 200 / 3) / 2) and unseen == pytest.approx(50)
    assert harmonic_mean(seen, unseen) == pytest.approx(2 / (1 / seen + 1 / unseen))
    assert harmonic_mean(0, 0) == 0 and np.isnan(group_miou(found, [False] * 3))
