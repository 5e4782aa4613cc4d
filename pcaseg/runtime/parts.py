"""Parts of objects: within the pixels of an object, the best of its parts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pcaseg.runtime.windows import label_map

LEAST_SCORE = 0.5
"""Score from which a part takes a pixel of its object: at which the network says that it is there."""


def choose_parts(
    scores: np.ndarray, class_of_row: np.ndarray, objects: Sequence[int], labels: np.ndarray, confidence: np.ndarray
) -> None:
    """Gives each pixel of an object to the best of the object's parts, or to the object where none is there.

    An object's own name covers its parts too, and would win most of their pixels: so the object is chosen first, by the
    best of its name and its parts, and then its parts among themselves.

    Args:
        scores: `(R, s1, s2)` float32, of rows.
        class_of_row: `(R,)` class indices.
        objects: of each class its object's index, as `Vocabulary.objects`.
        labels: `(H, W)` uint16, classes of the best rows; changed in place.
        confidence: `(H, W)` float32, their scores; changed in place.
    """
    object_of = np.array(objects)
    shown = object_of[labels]
    for one in np.unique(object_of[object_of != np.arange(len(object_of))]):
        own = shown == one
        rows = np.flatnonzero((object_of[class_of_row] == one) & (class_of_row != one))
        if not own.any() or len(rows) == 0:
            continue
        none = np.full((1, *scores.shape[1:]), LEAST_SCORE, scores.dtype)  # first, so that it wins a tie
        winner, score = label_map(np.concatenate([none, scores[rows]]), (labels.shape[0], labels.shape[1]))
        part = own & (winner > 0)
        labels[own] = one
        labels[part] = class_of_row[rows][winner[part] - 1]
        confidence[part] = score[part]
