"""Labelled images, a folder of them, and the mean intersection over union with their labels."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pcaseg.errors import PcasegError
from pcaseg.images import list_images, read_image, read_label_map
from pcaseg.runtime.vocabulary import resolve_names


@dataclass(frozen=True)
class LabelledSet:
    """Images with true labels.

    Attributes:
        names: the classes; label i is names[i].
        pairs: image file and label file of each image.
    """

    names: tuple[str, ...]
    pairs: tuple[tuple[Path, Path], ...]


def read_labelled(folder: Path) -> LabelledSet:
    """A folder with `classes.txt` (a name per line), `images/NAME.*` and `labels/NAME.png` (8- or 16-bit).

    Label i is line i of `classes.txt`; 255 (8-bit) or 65535 (16-bit) counts nowhere. Every pair is read once, so that
    a bad one is found before anything is measured.

    Raises:
        PcasegError: nothing is there, an image has no labels, sizes differ, or a label is beyond the classes; the
            subclasses name what cannot be read.
    """
    names = resolve_names(str(folder / "classes.txt"))
    pairs = tuple((path, folder / "labels" / f"{path.stem}.png") for path in list_images(folder / "images"))
    for image, labels in pairs:
        if not labels.exists():
            raise PcasegError(f"{labels}: is missing, though {image.name} is there; add it or take the image away")
        read_pair(image, labels, len(names))
    return LabelledSet(names, pairs)


def read_pair(image: Path, labels: Path, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """An image (H, W, 3) uint8 and its true labels (H, W) uint8 or uint16.

    Raises:
        ImageError: one of them cannot be read.
        PcasegError: they differ in size, or a label is beyond the classes.
    """
    pixels, truth = read_image(image), read_label_map(labels)
    if pixels.shape[:2] != truth.shape:
        raise PcasegError(
            f"{labels}: {truth.shape[0]} x {truth.shape[1]} labels for an image of {pixels.shape[0]} x "
            f"{pixels.shape[1]}; give labels of the image's size"
        )
    beyond = truth[(truth >= classes) & (truth != np.iinfo(truth.dtype).max)]
    if len(beyond):
        raise PcasegError(f"{labels}: holds label {beyond[0]}, but there are {classes} classes; mend classes.txt")
    return pixels, truth


def labelled_miou(segment: Callable[[np.ndarray], np.ndarray], labelled: LabelledSet) -> float:
    """Mean intersection over union in percent of what `segment` makes of every image: (H, W, 3) uint8 -> (H, W)."""
    count = len(labelled.names)
    pairs = (read_pair(*pair, count) for pair in labelled.pairs)
    return mean_iou(((segment(image), truth) for image, truth in pairs), count)


def mean_iou(pairs: Iterable[tuple[np.ndarray, np.ndarray]], classes: int) -> float:
    """Mean intersection over union in percent, over the classes that occur in the truth.

    Args:
        pairs: predicted and true labels, (H, W) each; true labels of `classes` and above count nowhere.
        classes: T.
    """
    confusion = np.zeros((classes, classes), np.int64)
    for labels, truth in pairs:
        known = truth < classes
        flat = truth[known].astype(np.int64) * classes + labels[known]
        confusion += np.bincount(flat, minlength=classes**2).reshape(classes, classes)
    hits, true, predicted = confusion.diagonal(), confusion.sum(axis=1), confusion.sum(axis=0)
    present = true > 0
    return float(100 * (hits[present] / (true + predicted - hits)[present]).mean())
