"""Distance of a backend's result from eager float32's: logits, labels, borders, worst class, labelled images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pcaseg.configs import DROPPED_LOGIT
from pcaseg.errors import MissingDependencyError, install_hint

BORDER_PX = 2
"""How near to a border between labels a pixel counts as of the boundary."""


@dataclass(frozen=True)
class Output:
    """Result of one backend for one image.

    Attributes:
        labels: (H, W) integers.
        confidence: (H, W) float, 0..1.
        logits: (windows, T, h, w) float; None of a graph of labels.
    """

    labels: np.ndarray
    confidence: np.ndarray
    logits: np.ndarray | None


@dataclass(frozen=True)
class Accuracy:
    """Against eager float32, on the images of the run.

    Attributes:
        relative_error: largest difference of a logit over the largest eager logit; of a graph of labels, the largest
            difference of a pixel's confidence.
        label_agreement: share of pixels with the same label, 0..1.
        boundary_agreement: the same among pixels within 2 px of a border between eager labels; 1 without borders.
        worst_class: the class whose pixels agree least, and
        worst_iou: the intersection over union of its two masks, 0..1.
        miou: mean intersection over union with the labelled set, percent; None without one.
        miou_difference: that minus eager's, percent points.
    """

    relative_error: float
    label_agreement: float
    boundary_agreement: float
    worst_class: str
    worst_iou: float
    miou: float | None
    miou_difference: float | None


def compare(
    output: Output,
    reference: Output,
    names: Sequence[str],
    *,
    miou: float | None = None,
    reference_miou: float | None = None,
) -> Accuracy:
    """Distance of an output from eager float32's of the same image; mIoU in percent, of a labelled set."""
    worst, iou = worst_class(reference.labels, output.labels)
    return Accuracy(
        relative_error=relative_error(output, reference),
        label_agreement=float((output.labels == reference.labels).mean()),
        boundary_agreement=boundary_agreement(output.labels, reference.labels),
        worst_class=names[worst],
        worst_iou=iou,
        miou=miou,
        miou_difference=None if miou is None or reference_miou is None else miou - reference_miou,
    )


def relative_error(output: Output, reference: Output) -> float:
    """Largest difference of a logit over the largest logit of the reference, both in absolute value.

    A class that is kept by one and dropped by the other of two top-256 selections counts in full. Of a graph of labels,
    which shows no logits, the largest difference of a pixel's confidence.
    """
    if output.logits is None or reference.logits is None:
        return float(np.abs(output.confidence - reference.confidence).max())
    kept = reference.logits[reference.logits > DROPPED_LOGIT]
    return float(np.abs(output.logits - reference.logits).max() / np.abs(kept).max())


def worst_class(reference: np.ndarray, labels: np.ndarray) -> tuple[int, float]:
    """The class whose masks in two label maps agree least, and their intersection over union."""
    present = np.union1d(reference, labels)
    ious = []
    for index in present:
        a, b = reference == index, labels == index
        ious.append(float((a & b).sum() / (a | b).sum()))
    worst = int(np.argmin(ious))
    return int(present[worst]), ious[worst]


def boundary_agreement(labels: np.ndarray, reference: np.ndarray) -> float:
    """Share of pixels with the same label among those within `BORDER_PX` of a border of the reference; 1 without one.

    Raises:
        MissingDependencyError: scikit-image is not installed.
    """
    try:
        from skimage.morphology import dilation, disk
        from skimage.segmentation import find_boundaries
    except ImportError as error:
        raise MissingDependencyError(f"borders are found by scikit-image; {install_hint('benchmarks')}") from error
    near = dilation(find_boundaries(reference, mode="thick"), disk(BORDER_PX - 1))
    return float((labels == reference)[near].mean()) if near.any() else 1.0
