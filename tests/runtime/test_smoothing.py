"""Averages of scores over a stream."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pcaseg.errors import PcasegError
from pcaseg.runtime.segmenter import Segmenter
from pcaseg.runtime.smoothing import Smoother

NAMES = [f"thing {index}" for index in range(5)]


def frames(count: int, size: tuple[int, int] = (20, 30)) -> list[np.ndarray]:
    return list(np.random.default_rng(3).integers(0, 256, (count, *size, 3), dtype=np.uint8))


def test_an_average_is_that_of_its_formula() -> None:
    scores = np.random.default_rng(0).uniform(0, 1, (6, 3, 4, 5)).astype(np.float32)
    smoother, expected = Smoother(0.6), scores[0].astype(np.float64)
    for number, frame in enumerate(scores):
        if number:
            expected = 0.6 * expected + 0.4 * frame
        found, classes = smoother.mix(frame, np.arange(3), "a")
        np.testing.assert_allclose(found, expected, atol=1e-6)
        assert found.dtype == np.float32 and classes.tolist() == [0, 1, 2]
    found, _ = smoother.mix(scores[0], np.arange(3), "b")
    np.testing.assert_array_equal(found, scores[0])  # nothing of another vocabulary or size


def test_dropped_classes_fade_and_are_forgotten() -> None:
    smoother, one = Smoother(0.5), np.ones((1, 2, 2), np.float32)
    smoother.mix(one, np.array([7]), "a")
    found, classes = smoother.mix(one, np.array([2]), "a")
    assert classes.tolist() == [2, 7] and found[:, 0, 0].tolist() == [0.5, 0.5]
    for _ in range(12):
        found, classes = smoother.mix(one, np.array([2]), "a")
    assert classes.tolist() == [2] and found.max() > 0.999


def test_a_stream_averages(make_fake_backend: Callable[[], Any]) -> None:
    shown = frames(8)
    with Segmenter(make_fake_backend()) as segmenter:
        segmenter.set_vocabulary(NAMES)
        plain = [segmenter(frame) for frame in shown]
        for smooth in (0.0, 1e-6):
            items = list(segmenter.stream(shown, smooth=smooth))
            for item, result in zip(items, plain, strict=True):
                assert item.result is not None
                assert (item.result.labels == result.labels).mean() > (0.999 if smooth else 0.9999999)
        slow = [item.result for item in segmenter.stream(shown, smooth=0.95)]
        assert (slow[0].labels == plain[0].labels).all()
        changed = [float(np.mean([(a.labels != b.labels).mean() for a, b in pairwise(some)])) for some in (plain, slow)]
        assert changed[1] < changed[0] / 3
        other = list(segmenter.stream([*shown, *frames(1, (9, 9))], smooth=0.95))[-1].result
        np.testing.assert_array_equal(other.labels, segmenter(frames(1, (9, 9))[0]).labels)


@pytest.mark.parametrize("weight", [-0.1, 1, 1.5, float("nan"), "0.5", None, True])
def test_weights_that_are_none(make_fake_backend: Callable[[], Any], weight: Any) -> None:
    segmenter = Segmenter(make_fake_backend())
    with pytest.raises(PcasegError, match="smooth=.*: give the weight of the past, from 0"):
        segmenter.stream([], smooth=weight)


def test_graphs_of_labels_have_nothing_to_average(write_label_bundle: Callable[..., Path]) -> None:
    with (
        Segmenter(write_label_bundle(), threads=1) as segmenter,
        pytest.raises(PcasegError, match=r"smooth=0\.5: a graph of labels gives no scores to average; export logits"),
    ):
        segmenter.stream([], smooth=0.5)
