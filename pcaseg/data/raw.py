"""The published raw layouts: which labels there are to convert, and how each file becomes a map of label ids.

Nothing is unpickled: the full ADE20K release is read from its PNG files, without its index.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from pcaseg.data.folders import files_by_stem
from pcaseg.data.specs import DataSet, Split
from pcaseg.errors import ImageError, MissingDependencyError, PcasegError, install_hint
from pcaseg.images import read_image, read_label_map
from pcaseg.paths import files_under, is_file
from pcaseg.text_files import read_lines

_REFUSED = -1
_IMAGE_NAME = re.compile(r"\w[\w.-]{0,99}")


@dataclass(frozen=True)
class RawItem:
    """One image to convert.

    Attributes:
        name: of the image, without ending.
        read: gives its labels, (H, W) uint8 or uint16 as in prepared files; raises PcasegError on a bad raw file.
        image: raw image to be written beside the labels; None where images stay as they are.
    """

    name: str
    read: Callable[[], np.ndarray]
    image: Path | None = None


def raw_items(spec: DataSet, split: Split, root: Path) -> list[RawItem]:
    """Every image of a raw split, sorted by name; most raw files are read later, by `RawItem.read`.

    Raises:
        PcasegError: there are none, or the list or the file that holds them cannot be read.
        MissingDependencyError: the raw format needs a package that is not installed.
    """
    find = {
        "png": _png_items,
        "voc": _voc_items,
        "context_json": _context_json_items,
        "context_mat": _context_mat_items,
        "ade_full": _ade_full_items,
    }[spec.kind]
    items = sorted(find(spec, split, root), key=lambda item: item.name)
    if not items:
        raise PcasegError(f"{root / split.raw}: holds nothing of {spec.title}; mend --root, or complete the download")
    return items


@dataclass(frozen=True)
class IdMap:
    """Table from raw ids to label ids.

    Attributes:
        table: (ids,) int32; label by raw id, -1 for a raw id that the data set does not have.
        kind: of prepared labels, uint8 or uint16.
    """

    table: np.ndarray
    kind: type[np.unsignedinteger[Any]]

    def __call__(self, raw: np.ndarray, source: Path) -> np.ndarray:
        """Labels of raw ids, (H, W).

        Raises:
            PcasegError: an id is outside the map.
        """
        beyond = raw[(raw < 0) | (raw >= len(self.table))]
        if not len(beyond):
            labels = self.table[raw]
            beyond = raw[labels == _REFUSED]
        if len(beyond):
            raise PcasegError(f"{source}: holds raw id {int(beyond[0])}, which this data set lacks; download it anew")
        return labels.astype(self.kind)


def id_map(spec: DataSet) -> IdMap:
    """The map of a data set, from its `raw_id_to_train_id` or its rule."""
    listed = spec.facts.get("raw_id_to_train_id")
    table = np.full(65536, _REFUSED, np.int32)
    if spec.kind in ("ade_full", "context_json"):  # classes beyond the list are unlabelled there
        table[:] = spec.unlabelled
    if listed:
        table[[int(raw) for raw in listed]] = list(listed.values())
    else:
        count = len(spec.label_names) - (spec.background_from is not None)
        table[1 : count + 1] = np.arange(count)
        table[0] = spec.unlabelled if spec.background_from is None else spec.background_from
    if spec.kind in ("png", "voc") and spec.name != "ade20k_150":
        table[255] = spec.unlabelled
    return IdMap(table, np.uint8 if spec.suffix == ".png" else np.uint16)


def _png_items(spec: DataSet, split: Split, root: Path) -> Iterator[RawItem]:
    """A PNG file per image; an image without one is an item that fails, as is a PNG file without its image."""
    convert, folder = id_map(spec), root / split.raw
    images = files_by_stem(root / split.images, (".jpg",))
    labels = files_by_stem(folder, (".png",))
    for name in images.keys() | labels.keys():
        image = images.get(name, root / split.images / f"{name}.jpg")
        yield RawItem(name, partial(_read_png, folder / f"{name}.png", convert, beside=image))


def _voc_items(spec: DataSet, split: Split, root: Path) -> Iterator[RawItem]:
    convert = id_map(spec)
    for name in _listing(root / split.listing):
        image = root / split.images / f"{name}.jpg"
        yield RawItem(name, partial(_read_png, root / split.raw / f"{name}.png", convert, beside=image))


def _context_mat_items(spec: DataSet, split: Split, root: Path) -> Iterator[RawItem]:
    convert = id_map(spec)
    for name in _listing(root / split.listing):
        image = root / split.images / f"{name}.jpg"
        yield RawItem(name, partial(_read_mat, root / split.raw / f"{name}.mat", convert, beside=image))


def _context_json_items(spec: DataSet, split: Split, root: Path) -> Iterator[RawItem]:
    """Masks of all images in one file; those of the phase `val` are taken, a later mask over an earlier one."""
    path, convert = root / split.raw, id_map(spec)
    try:
        data = json.loads(path.read_bytes())
        images = {entry["image_id"]: entry for entry in data["images"] if entry["phase"] == "val"}
        masks = defaultdict(list)
        for entry in data["annos_segmentation"]:
            if entry["image_id"] in images:
                masks[entry["image_id"]].append((int(entry["category_id"]), entry["segmentation"]))
        found = [
            (Path(entry["file_name"]).stem, (int(entry["height"]), int(entry["width"])), masks[number])
            for number, entry in images.items()
        ]
    except OSError as error:
        raise PcasegError(f"{path}: cannot be read ({error.strerror}); download it, or mend --root") from error
    except (ValueError, RecursionError) as error:
        raise PcasegError(f"{path}: not readable as JSON ({error}); download it again") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise PcasegError(
            f"{path}: not the file of Pascal Context's masks (lacks {error}); download it again"
        ) from error
    for name, size, own in found:
        image = root / split.images / f"{name}.jpg"
        yield RawItem(name, partial(_read_masks, path, name, size, own, convert, beside=image))


def _ade_full_items(spec: DataSet, split: Split, root: Path) -> Iterator[RawItem]:
    """Images and `_seg.png` files in folders by scene."""
    convert, folder = id_map(spec), root / split.raw
    for image in files_under(folder, "*.jpg"):
        if isinstance(image, PcasegError):
            raise image
        if not image.name.startswith("."):
            seg = image.with_name(f"{image.stem}_seg.png")
            yield RawItem(image.stem, partial(_read_ade, seg, convert), image)


def _read_png(path: Path, convert: IdMap, *, beside: Path) -> np.ndarray:
    _check_beside(beside)
    return convert(read_label_map(path), path)


def _read_mat(path: Path, convert: IdMap, *, beside: Path) -> np.ndarray:
    _check_beside(beside)
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise MissingDependencyError(f"Matlab files are read by scipy; {install_hint('datasets')}") from error
    try:
        raw = loadmat(path)["LabelMap"]
        if raw.ndim != 2 or raw.dtype.kind not in "ui":
            raise TypeError(f"LabelMap of shape {raw.shape} and type {raw.dtype}")
    except Exception as error:  # on damaged bytes scipy raises almost anything
        raise ImageError(f"{path}: no Matlab file with a LabelMap ({error}); download it again") from error
    return convert(raw.astype(np.int64), path)


def _read_masks(
    path: Path,
    name: str,
    size: tuple[int, int],
    masks: list[tuple[int, Mapping[str, Any]]],
    convert: IdMap,
    *,
    beside: Path,
) -> np.ndarray:
    _check_beside(beside)
    try:
        from pycocotools import mask as coco
    except ImportError as error:
        raise MissingDependencyError(f"COCO masks are read by pycocotools; {install_hint('datasets')}") from error
    raw = np.zeros(size, np.int64)
    for category, mask in masks:
        try:
            if tuple(mask["size"]) != size:
                raise ValueError(f"a mask of {mask['size']} for an image of {list(size)}")
            raw[coco.decode(mask) > 0] = category
        except Exception as error:  # the decoder raises almost anything
            raise ImageError(f"{path}: the masks of {name} are damaged ({error}); download it again") from error
    return convert(raw, path)


def _read_ade(path: Path, convert: IdMap) -> np.ndarray:
    rgb = read_image(path).astype(np.int64)
    return convert(rgb[..., 0] // 10 * 256 + rgb[..., 1], path)


def _check_beside(image: Path) -> None:
    if not is_file(image, error=ImageError):
        raise ImageError(f"{image}: is missing, though its labels are listed; complete the download")


def _listing(path: Path) -> list[str]:
    """The image names in a split's list, one per line."""
    lines = read_lines(path, mend="complete the download, or mend --root")
    for number, name in lines:
        if not _IMAGE_NAME.fullmatch(name):
            raise PcasegError(f"{path}: line {number} ({name[:40]!r}) is no image name; download it again")
    return [name for _, name in lines]
