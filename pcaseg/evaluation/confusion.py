"""Agreement of predicted label maps with true ones: confusion matrix and what is read from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


class Confusion:
    """Counts of pixels by true and predicted class, exact, for any number of classes.

    Attributes:
        counts: (T, T) int64; row: true class, column: predicted class.
    """

    def __init__(self, classes: int) -> None:
        """Counts of nothing yet, for `classes` classes."""
        self.counts = np.zeros((classes, classes), np.int64)

    def add(self, labels: np.ndarray, truth: np.ndarray) -> None:
        """Counts an image.

        Args:
            labels: predicted, (H, W) integers in 0..T-1 wherever `truth` counts.
            truth: (H, W) integers; a pixel below 0 or of T and above counts nowhere.

        Raises:
            ValueError: the shapes differ, or a prediction that counts is outside 0..T-1.
        """
        self.add_cells(*confusion_cells(labels, truth, len(self.counts)))

    def add_cells(self, cells: np.ndarray, pixels: np.ndarray) -> None:
        """Adds what `confusion_cells` found for an image."""
        self.counts.reshape(-1)[cells] += pixels

    def scores(self) -> Scores:
        """Every measure of the counts."""
        return scores(self.counts)


def confusion_cells(labels: np.ndarray, truth: np.ndarray, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """The cells of the confusion matrix that an image touches: flat indices true * T + predicted, and their pixels.

    Arguments and errors are those of `Confusion.add`.

    >>> cells, pixels = confusion_cells(np.array([[0, 1]]), np.array([[1, 1]]), 2)
    >>> cells.tolist(), pixels.tolist()
    ([2, 3], [1, 1])
    """
    if labels.shape != truth.shape:
        raise ValueError(f"labels of shape {labels.shape} for a truth of shape {truth.shape}")
    known = (truth >= 0) & (truth < classes)
    found = labels[known].astype(np.int64)
    if len(found) and not (found.min() >= 0 and found.max() < classes):
        raise ValueError(f"predicted labels {found.min()}..{found.max()} for {classes} classes")
    return np.unique(truth[known].astype(np.int64) * classes + found, return_counts=True)


@dataclass(frozen=True)
class Scores:
    """Measures of a confusion matrix, all in percent; of nothing, NaN.

    Attributes:
        miou: mean intersection over union over the classes that occur in the truth.
        fwiou: intersection over union, weighted by how often a class occurs in the truth.
        mean_accuracy: mean over those classes of the share of its pixels that were found.
        pixel_accuracy: share of all pixels that were found.
        iou: (T,) float per class; NaN for a class that occurs neither in the truth nor in the predictions.
        accuracy: (T,) float per class; NaN for a class that does not occur in the truth.
        pixels: (T,) int64, true pixels per class.
    """

    miou: float
    fwiou: float
    mean_accuracy: float
    pixel_accuracy: float
    iou: np.ndarray
    accuracy: np.ndarray
    pixels: np.ndarray


def scores(counts: np.ndarray) -> Scores:
    """Measures of a confusion matrix, (T, T) int64: true by predicted."""
    hits, true, predicted = counts.diagonal(), counts.sum(axis=1), counts.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        iou = 100 * hits / (true + predicted - hits)
        accuracy = 100 * hits / true
    present, total = true > 0, int(true.sum())
    if not total:
        return Scores(np.nan, np.nan, np.nan, np.nan, iou, accuracy, true)
    return Scores(
        miou=float(iou[present].mean()),
        fwiou=float((iou[present] * true[present]).sum() / total),
        mean_accuracy=float(accuracy[present].mean()),
        pixel_accuracy=float(100 * hits.sum() / total),
        iou=iou,
        accuracy=accuracy,
        pixels=true,
    )


def group_miou(found: Scores, members: Sequence[bool]) -> float:
    """Mean intersection over union of some classes, those of them that occur in the truth; NaN if none does.

    Args:
        found: measures over all classes; predictions of any class count against those of the group.
        members: (T,) whether a class is of the group.
    """
    chosen = np.asarray(members, bool) & (found.pixels > 0)
    return float(found.iou[chosen].mean()) if chosen.any() else np.nan


def harmonic_mean(seen: float, unseen: float) -> float:
    """2 / (1 / seen + 1 / unseen): 0 if one of them is, NaN if one of them is.

    >>> harmonic_mean(60.0, 30.0)
    40.0
    """
    return 2 * seen * unseen / (seen + unseen) if seen + unseen else 0.0
