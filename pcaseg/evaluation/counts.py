"""Evaluation of one network on a labelled folder: counts per image in files of lines, for shards and later runs.

A file starts with a line that says what is evaluated; each further line holds one image's cells of the confusion
matrix. A run that was cut off goes on after the last whole line, and any number of such files add up.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from pcaseg.data.folders import LabelledFolder
from pcaseg.errors import OutputError, PcasegError
from pcaseg.evaluation.confusion import Confusion, confusion_cells
from pcaseg.paths import entries, exists
from pcaseg.runtime.batch import reason_of
from pcaseg.typed_json import ADDED_LATER, load_typed

SCHEMA_VERSION = 1
_MEND = "choose another folder, or delete the file"

Labeller = Callable[[np.ndarray], np.ndarray]
"""Image (H, W, 3) uint8 RGB -> labels (H, W) integers, indices into the vocabulary."""


@dataclass(frozen=True)
class Evaluated:
    """Description of an evaluation; files with equal ones add up.

    Attributes:
        subject: `eager` or the backend of a bundle.
        preset: of the network.
        weights: their kind; `seeded` ones were never trained.
        weights_sha256: of the weights.
        precision: of the network.
        strategy: `sliding` or `single`.
        data: name of the data set or folder.
        images: how many images in all, over all shards.
        classes: how many classes the labels have.
        names_sha256: of the vocabulary and the images' names.
        shortlist: classes of each window that are aggregated at most; None for 256.
    """

    subject: str
    preset: str
    weights: str
    weights_sha256: str
    precision: str
    strategy: str
    data: str
    images: int
    classes: int
    names_sha256: str
    shortlist: int | None = field(default=None, metadata=ADDED_LATER)
    schema_version: int = SCHEMA_VERSION


@dataclass(frozen=True)
class ImageCounts:
    """Counts of one image: cells of the confusion matrix, flat, with their pixels."""

    image: str
    cells: tuple[int, ...]
    pixels: tuple[int, ...]
    schema_version: int = SCHEMA_VERSION


def chosen_images(total: int, wanted: int | None) -> list[int]:
    """Indices of `wanted` images spread over all; of all without it, or where there are not more.

    >>> chosen_images(10, 3)
    [0, 3, 6]
    """
    count = total if wanted is None else min(wanted, total)
    return [index * total // count for index in range(count)]


def names_sha256(folder: LabelledFolder, indices: Sequence[int]) -> str:
    """Hash of what an evaluation asks and of which images, so that counts of other lists are not taken for its own."""
    named = [list(folder.names), [folder.file_name(index) for index in indices]]
    return hashlib.sha256(json.dumps(named).encode()).hexdigest()


def shard_path(out: Path, subject: str, shard: tuple[int, int]) -> Path:
    """File of a shard's counts: shard (1, 4) is the first of four."""
    return out / f"{subject}.{shard[0]}of{shard[1]}.jsonl"


def evaluate_images(
    labeller: Labeller,
    folder: LabelledFolder,
    indices: Sequence[int],
    evaluated: Evaluated,
    path: Path,
    *,
    advance: Callable[[], object] = lambda: None,
    failed: list[str] | None = None,
) -> None:
    """Evaluates images and adds a line for each to `path`, which is made if need be.

    Args:
        labeller: gives the labels of an image.
        folder: images with true labels.
        indices: of the images still to do.
        evaluated: what the file must be of.
        path: of `shard_path`.
        advance: called after each image.
        failed: takes a sentence about each image that cannot be read or labelled; None makes the first an error.

    Raises:
        PcasegError: an image or its labels cannot be used, without `failed`, or the labeller gives labels of another
            shape.
        OutputError: `path` cannot be written, or is of another evaluation.
    """
    open_counts(path, evaluated)
    for index in indices:
        found = count_image(labeller, folder, index)
        if isinstance(found, ImageCounts):
            append_counts(path, found)
        elif failed is None:
            raise found
        else:
            failed.append(reason_of(found, folder.pairs[index][0]))
        advance()


def count_image(labeller: Labeller, folder: LabelledFolder, index: int) -> ImageCounts | Exception:
    """Evaluates one image; gives the error where it cannot be read or labelled.

    Raises:
        PcasegError: the labeller gives labels of another shape.
    """
    try:
        image, truth = folder.item(index)
        labels = labeller(image)
    except Exception as error:
        return error
    if folder.background_from is not None:
        labels = np.minimum(labels, folder.background_from)
    try:
        cells, pixels = confusion_cells(labels, truth, len(folder.label_names))
    except ValueError as error:
        raise PcasegError(f"{folder.pairs[index][0]}: the network gave {error}; export the bundle anew") from error
    return ImageCounts(folder.file_name(index), tuple(cells.tolist()), tuple(pixels.tolist()))


def append_counts(path: Path, counts: ImageCounts) -> None:
    """Adds a line to a file that `open_counts` made.

    Raises:
        OutputError: it cannot be written.
    """
    _append(path, asdict(counts))


def read_counts(out: Path, evaluated: Evaluated) -> dict[str, ImageCounts]:
    """The counts by image of all files of a subject in a folder; a half-written last line is left out.

    Raises:
        OutputError: a file is of another evaluation, damaged, or two files differ on an image.
    """
    found: dict[str, ImageCounts] = {}
    for path in entries(out, f"{evaluated.subject}.*of*.jsonl", error=OutputError):
        for number, counts in _read_file(path, evaluated):
            held = found.setdefault(counts.image, counts)
            if held != counts:
                raise OutputError(f"{path}, line {number}: {counts.image} differs from another file's; {_MEND}")
    return found


def add_counts(found: dict[str, ImageCounts], classes: int) -> Confusion:
    """The confusion matrix of the counts of some images."""
    confusion = Confusion(classes)
    for counts in found.values():
        confusion.add_cells(np.array(counts.cells, np.int64), np.array(counts.pixels, np.int64))
    return confusion


def open_counts(path: Path, evaluated: Evaluated) -> None:
    """Makes the file with its first line; of one that is there, cuts a half-written last line off."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        text = path.read_bytes() if exists(path, error=OutputError) else b""
        whole = text.rfind(b"\n") + 1
        if whole:
            _check_header(path, text[:whole].splitlines()[0], evaluated)
        if whole < len(text):
            os.truncate(path, whole)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror}); choose another place") from error
    if not whole:
        _append(path, asdict(evaluated))


def _append(path: Path, entry: dict[str, object]) -> None:
    try:
        with open(path, "ab", buffering=0) as file:  # one write: a process that is killed leaves whole lines
            line = (json.dumps(entry, ensure_ascii=False) + "\n").encode(errors="backslashreplace")
            if file.write(line) != len(line):
                raise OSError(28, "No space left on device")
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror}); free some space and go on") from error


def _read_file(path: Path, evaluated: Evaluated) -> Iterator[tuple[int, ImageCounts]]:
    try:
        text = path.read_bytes()
    except OSError as error:
        raise OutputError(f"{path}: cannot be read ({error.strerror}); {_MEND}") from error
    lines = text[: text.rfind(b"\n") + 1].splitlines()
    if lines:
        _check_header(path, lines[0], evaluated)
    for number, line in enumerate(lines[1:], start=2):
        source = f"{path}, line {number}"
        counts = load_typed(ImageCounts, line, source, version=SCHEMA_VERSION, error=OutputError, mend=_MEND)
        right = len(counts.cells) == len(counts.pixels) and all(n > 0 for n in counts.pixels)
        if not right or not all(0 <= cell < evaluated.classes**2 for cell in counts.cells):
            raise OutputError(f"{source}: no counts of {evaluated.classes} classes; {_MEND}")
        yield number, counts


def _check_header(path: Path, line: bytes, evaluated: Evaluated) -> None:
    held = load_typed(Evaluated, line, f"{path}, line 1", version=SCHEMA_VERSION, error=OutputError, mend=_MEND)
    if held != evaluated:
        name = next(name for name, value in asdict(evaluated).items() if value != getattr(held, name))
        raise OutputError(
            f"{path}: holds counts of another evaluation ({name} {getattr(held, name)}, not "
            f"{getattr(evaluated, name)}); {_MEND}"
        )
