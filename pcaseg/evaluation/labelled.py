"""A folder of labelled images, read through before anything is measured on it, and the accuracy on it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from pcaseg.data.folders import LabelledFolder, open_labelled
from pcaseg.evaluation.confusion import Confusion


def read_labelled(folder: Path) -> LabelledFolder:
    """A folder in the form of `open_labelled`; every pair is read once, so that a bad one is found early.

    Raises:
        PcasegError: as `open_labelled` and `LabelledFolder.item`.
    """
    found = open_labelled(folder)
    for index in range(len(found)):
        found.item(index)
    return found


def labelled_miou(segment: Callable[[np.ndarray], np.ndarray], labelled: LabelledFolder) -> float:
    """Mean intersection over union in percent of what `segment` makes of every image: (H, W, 3) uint8 -> (H, W)."""
    confusion = Confusion(len(labelled.label_names))
    for index in range(len(labelled)):
        image, truth = labelled.item(index)
        confusion.add(segment(image), truth)
    return confusion.scores().miou
