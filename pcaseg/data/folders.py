"""Folders of images with labels: prepared data sets, and the plain form with a `classes.txt`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pcaseg.class_names import read_class_names
from pcaseg.data.specs import DATA_SETS, DataSet, Split, data_set
from pcaseg.errors import ImageError, PcasegError
from pcaseg.image_files import image_suffixes, list_images
from pcaseg.images import read_label_map, read_labelled_image
from pcaseg.paths import entries, exists, is_folder

NO_LABEL = -1
"""Label that `LabelledFolder.item` gives to unlabelled pixels."""


@dataclass(frozen=True)
class LabelledFolder:
    """Images with true labels, read one by one.

    Attributes:
        source: what the messages and results call it: a data set's name or the folder.
        names: the vocabulary.
        label_names: what the label ids mean; `names`, but for the background rule of `background_from`.
        pairs: image file and label file of each image, in the order of names.
        unlabelled: value of unlabelled pixels; None for the largest of the file's type, 255 or 65535.
        background_from: predicted classes from here on count as this one; None for no such rule.
        seen: of parts, the names that training sees; None of others.
        published: how many images the data set has as published; None if that is not known.
    """

    source: str
    names: tuple[str, ...]
    label_names: tuple[str, ...]
    pairs: tuple[tuple[Path, Path], ...]
    unlabelled: int | None = None
    background_from: int | None = None
    seen: frozenset[str] | None = None
    published: int | None = None

    def __len__(self) -> int:
        return len(self.pairs)

    def file_name(self, index: int) -> str:
        """Name of image `index` without its ending, such as `2007_000033`."""
        return self.pairs[index][0].stem

    def item(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Image `index`, (H, W, 3) uint8 RGB, and its labels, (H, W) int32, `NO_LABEL` where unlabelled.

        Raises:
            ImageError: one of the two files is missing, damaged or of another kind.
            PcasegError: they differ in size, nothing tells how they lie on each other (see
                `pcaseg.images.fit_labels`), or a label is beyond the classes.
        """
        image_path, label_path = self.pairs[index]
        image, stored = read_labelled_image(image_path, label_path)
        return image, self._checked(stored, label_path)

    def labels(self, index: int) -> np.ndarray:
        """The labels of image `index`, (H, W) int32, `NO_LABEL` where unlabelled.

        Raises:
            ImageError: the file is missing, damaged or no map of labels.
            PcasegError: a label is beyond the classes, or may be a class or unlabelled.
        """
        path = self.pairs[index][1]
        return self._checked(read_label_map(path), path)

    def _checked(self, stored: np.ndarray, path: Path) -> np.ndarray:
        unlabelled = np.iinfo(stored.dtype).max if self.unlabelled is None else self.unlabelled
        if unlabelled < len(self.label_names) and (stored == unlabelled).any():
            raise PcasegError(
                f"{path}: {unlabelled} is the last class that {stored.dtype} holds and means unlabelled too; save the "
                f"labels of {len(self.label_names)} classes as 16-bit PNG"
            )
        labels = stored.astype(np.int32)
        labels[stored == unlabelled] = NO_LABEL
        largest = int(labels.max())
        if largest >= len(self.label_names):
            raise PcasegError(
                f"{path}: holds label {largest}, but there are {len(self.label_names)} classes; prepare it anew, or "
                "mend the list of classes"
            )
        return labels


def open_data(
    data: str | os.PathLike[str], root: str | os.PathLike[str] | None = None, *, split: str = "val"
) -> LabelledFolder:
    """A prepared data set by name, or a folder in the plain form; see `open_prepared` and `open_labelled`.

    Raises:
        PcasegError: a name without `root`, or neither a name nor a folder; see also the two functions.
    """
    if os.fspath(data) in DATA_SETS:
        if root is None:
            raise PcasegError(f"{data}: its folder is not known; give the root of the data sets with --root")
        return open_prepared(os.fspath(data), root, split=split)
    if not is_folder(data):
        raise PcasegError(f"{data}: neither a folder nor a data set; the data sets are {', '.join(DATA_SETS)}")
    return open_labelled(data)


def open_prepared(name: str, root: str | os.PathLike[str], *, split: str = "val") -> LabelledFolder:
    """A split of a prepared data set, as this project or detectron2's tools made it.

    Nothing is read but the names of the files, so that it takes seconds for any data set.

    Args:
        name: of `pcaseg.data.specs.DATA_SETS`.
        root: folder of all data sets.
        split: `train` or `val`.

    Raises:
        PcasegError: unknown data set or split; no labels there; an image has no labels, or labels no image.
    """
    spec = data_set(name)
    part = spec.split(split)
    pairs, problems = match_files(spec, part, Path(root))
    if problems:
        raise PcasegError(problems[0])
    return prepared_folder(spec, split, pairs)


def prepared_folder(spec: DataSet, split: str, pairs: Sequence[tuple[Path, Path]]) -> LabelledFolder:
    """A labelled folder of some pairs of a prepared split."""
    return LabelledFolder(
        source=spec.name if split == "val" else f"{spec.name}, {split}",
        names=spec.names,
        label_names=spec.label_names,
        pairs=tuple(pairs),
        unlabelled=spec.unlabelled,
        background_from=spec.background_from,
        seen=spec.seen,
        published=spec.split(split).count,
    )


def open_labelled(folder: str | os.PathLike[str]) -> LabelledFolder:
    """A folder with `classes.txt` (a name per line), `images/NAME.*` and `labels/NAME.png` (8- or 16-bit).

    Label i is line i of `classes.txt`; 255 (8-bit) or 65535 (16-bit) counts nowhere.

    Raises:
        PcasegError: no usable `classes.txt`, no images, or an image has no labels; two images share a name.
    """
    folder = Path(folder)
    names = read_class_names(folder / "classes.txt", first_ids=(0,))
    images = list_images(folder / "images")
    pairs = tuple((path, folder / "labels" / f"{path.stem}.png") for path in images)
    for (image, labels), (other, _) in zip(pairs, (*pairs[1:], (Path(), Path())), strict=True):
        if not exists(labels, error=ImageError):
            raise PcasegError(f"{labels}: is missing, though {image.name} is there; add it or take the image away")
        if image.stem == other.stem:
            raise PcasegError(f"{image}: shares its labels with {other.name}; keep one of the two")
    return LabelledFolder(source=str(folder), names=names, label_names=names, pairs=pairs)


def files_by_stem(folder: Path, suffixes: Sequence[str]) -> dict[str, Path]:
    """The files directly in a folder by name without ending, sorted; hidden ones are left out, no folder gives none."""
    found = [path for path in entries(folder, error=ImageError) if path.suffix.lower() in suffixes]
    return {path.stem: path for path in found if path.name[0] != "."}


def match_files(spec: DataSet, split: Split, root: Path) -> tuple[list[tuple[Path, Path]], list[str]]:
    """The pairs of image and labels of a prepared split, sorted, and what is missing to others, a sentence each."""
    folder = root / split.labels
    labels = files_by_stem(folder, (spec.suffix,))
    images = files_by_stem(root / split.images, image_suffixes())
    if not labels:
        return [], [
            f"{folder}: holds no labels ({spec.suffix} files); run pcaseg datasets prepare {spec.name}, "
            "or mend the root"
        ]
    problems = [
        f"{path}: has no image in {root / split.images}; complete the download, or take the labels away"
        for stem, path in labels.items()
        if stem not in images
    ]
    if spec.images_of == "split":
        problems += [
            f"{path}: has no labels in {folder}; run pcaseg datasets prepare {spec.name} to the end"
            for stem, path in images.items()
            if stem not in labels
        ]
    return [(images[stem], path) for stem, path in labels.items() if stem in images], problems
