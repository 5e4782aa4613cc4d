"""Turns the raw layout of a data set into the prepared one, file by file; a run that was cut off goes on."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from pcaseg.data.folders import NO_LABEL, prepared_folder
from pcaseg.data.raw import RawItem, raw_items
from pcaseg.data.specs import DataSet, data_set
from pcaseg.errors import ImageError, MissingDependencyError, OutputError, PcasegError
from pcaseg.files import atomic_path
from pcaseg.images import fit_labels, read_with_orientation
from pcaseg.paths import is_file

SHORTEST_PX = 512
"""Longest shorter side of the full ADE20K release's images: larger ones are reduced to it, with their labels."""


@dataclass
class Prepared:
    """Outcome of one run, image by image.

    Attributes:
        done: images converted now.
        skipped: images that stood there whole.
        empty: images left out, because no pixel is labelled.
        failed: (image name, message) of those whose raw files are missing or bad.
    """

    done: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)


def prepare(
    name: str, root: str | os.PathLike[str], *, splits: Sequence[str] | None = None, progress: bool = False
) -> Prepared:
    """Converts the raw layout of a data set under `root`; raw files stay as they are.

    A raw file that is missing or bad is noted and does not stop the run. What an earlier run finished is skipped, if
    it can still be read and fits the classes.

    Args:
        name: of `pcaseg.data.specs.DATA_SETS`.
        root: folder of all data sets.
        splits: those to convert; None for all.
        progress: show a progress bar on standard error.

    Raises:
        PcasegError: unknown data set or split, one that is published as prepared, or no raw files there.
        OutputError: the prepared files cannot be written.
        MissingDependencyError: the raw format needs a package that is not installed.
    """
    spec, root, result = data_set(name), Path(root), Prepared()
    if spec.kind == "prepared":
        raise PcasegError(
            f"{name}: is published in the prepared layout, nothing is to convert; unpack it and run "
            f"pcaseg datasets check {name}"
        )
    for split in splits or tuple(spec.splits):
        items = raw_items(spec, spec.split(split), root)
        for item in tqdm(items, desc=f"{name}, {split}", unit="image", disable=not progress):
            _prepare_item(spec, split, root, item, result)
    return result


def _prepare_item(spec: DataSet, split: str, root: Path, item: RawItem, result: Prepared) -> None:
    part = spec.split(split)
    image, labels = root / part.images / f"{item.name}.jpg", root / part.labels / f"{item.name}{spec.suffix}"
    try:
        if _is_done(spec, split, item, image, labels):
            result.skipped.append(item.name)
            return
        values = item.read()
        if spec.name == "voc_20" and (values == spec.unlabelled).all():
            labels.unlink(missing_ok=True)
            result.empty.append(item.name)
            return
        if item.image is not None:
            values = _write_reduced(item.image, values, image)
        _write_labels(labels, values)
    except (OutputError, MissingDependencyError):
        raise
    except PcasegError as error:
        result.failed.append((item.name, str(error)))
    else:
        result.done.append(item.name)


def _is_done(spec: DataSet, split: str, item: RawItem, image: Path, labels: Path) -> bool:
    """True where the prepared files of an image are whole: labels that fit the classes, and the image if it is ours."""
    if not is_file(labels, error=ImageError):
        return False
    folder = prepared_folder(spec, split, [(image, labels)])
    try:
        found = folder.labels(0) if item.image is None else folder.item(0)[1]
    except PcasegError:
        return False
    return spec.name != "voc_20" or bool((found != NO_LABEL).any())


def _write_labels(path: Path, labels: np.ndarray) -> None:
    with atomic_path(path) as temporary:
        kind = {"format": "PNG"} if path.suffix == ".png" else {"format": "TIFF", "compression": "tiff_adobe_deflate"}
        Image.fromarray(labels).save(temporary, **kind)


def _write_reduced(source: Path, labels: np.ndarray, path: Path) -> np.ndarray:
    """Writes the image of `labels`, both reduced if need be; returns the labels of its size."""
    pixels, orientation = read_with_orientation(source)
    labels = fit_labels(labels, pixels, orientation, image=source, source=f"labels of {source}")
    height, width = labels.shape
    with atomic_path(path) as temporary:
        if min(height, width) <= SHORTEST_PX:
            shutil.copyfile(source, temporary)
            return labels
        shortest = min(height, width)
        size = width * SHORTEST_PX // shortest, height * SHORTEST_PX // shortest
        reduced = Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR)
        reduced.save(temporary, format="JPEG", quality=95)
    return np.asarray(Image.fromarray(labels).resize(size, Image.Resampling.NEAREST))
