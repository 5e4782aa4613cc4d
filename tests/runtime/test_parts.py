"""Parts chosen within the pixels of their object."""

from __future__ import annotations

import numpy as np
import pytest

from pcaseg.runtime.parts import choose_parts

OBJECTS = (0, 0, 0, 3, 3, 5)
"""Classes: an object of two parts, one of a single part, one without."""


def plainly(
    scores: np.ndarray, class_of_row: np.ndarray, labels: np.ndarray, confidence: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Pixel by pixel, of scores at the size of the labels."""
    labels, confidence = labels.copy(), confidence.copy()
    for place in np.ndindex(*labels.shape):
        one = OBJECTS[labels[place]]
        found = {}
        for row, index in enumerate(class_of_row):
            if OBJECTS[index] == one != index:
                found[index] = max(found.get(index, 0.0), float(scores[(row, *place)]))
        best = max(found, key=lambda index: (found[index], -index), default=None)
        if found and found[best] > 0.5:
            labels[place], confidence[place] = best, found[best]
        else:
            labels[place] = one
    return labels, confidence


@pytest.mark.parametrize(
    "class_of_row", [np.arange(6), np.array([0, 0, 1, 1, 2, 3, 4, 5]), np.array([1, 3, 5]), np.array([0, 3, 5])]
)
def test_against_every_pixel(class_of_row: np.ndarray) -> None:
    """One row a class, synonyms, and shortlists that dropped objects' names or parts."""
    scores = np.random.default_rng(len(class_of_row)).uniform(0, 1, (len(class_of_row), 24, 31)).astype(np.float32)
    labels, confidence = class_of_row[scores.argmax(axis=0)].astype(np.uint16), scores.max(axis=0)
    expected = plainly(scores, class_of_row, labels, confidence)
    choose_parts(scores, class_of_row, OBJECTS, labels, confidence)
    np.testing.assert_array_equal(labels, expected[0])
    np.testing.assert_array_equal(confidence, expected[1])


def test_an_object_covers_its_parts() -> None:
    """Where the object's own name has the best score, its pixels are still its parts'."""
    scores = np.array([[[0.9, 0.9, 0.9]], [[0.6, 0.2, 0.2]], [[0.5, 0.7, 0.4]]], np.float32)
    labels, confidence = np.zeros((1, 3), np.uint16), np.full((1, 3), 0.9, np.float32)
    choose_parts(scores, np.arange(3), (0, 0, 0), labels, confidence)
    assert labels.tolist() == [[1, 2, 0]]
    np.testing.assert_allclose(confidence, [[0.6, 0.7, 0.9]])
