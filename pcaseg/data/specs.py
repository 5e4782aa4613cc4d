"""The published data sets as one table: where their files lie, raw and prepared, and how many there are.

Class lists, id maps and label values stand in `data/class_lists/*.json`; the prepared layout is detectron2's, so that
folders which its tools made are read as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pcaseg.class_lists import class_facts, class_list
from pcaseg.errors import PcasegError

RawKind = Literal["png", "voc", "context_json", "context_mat", "ade_full", "prepared"]
"""Layouts of raw labels: PNG files of the same name, PNG files of a split's list, COCO masks in one JSON file, Matlab
files, the full ADE20K release, or nowhere: published in the prepared layout."""


@dataclass(frozen=True)
class Split:
    """One part of a data set; every path is relative to the root of all data sets.

    Attributes:
        images: folder of prepared images, .jpg.
        labels: folder of prepared labels.
        raw: folder of raw labels or the file that holds them; empty if they are published as prepared.
        listing: file with one image name per line, where the raw layout has one.
        count: images with labels, as published.
    """

    images: str
    labels: str
    raw: str
    count: int
    listing: str = ""


@dataclass(frozen=True)
class DataSet:
    """A published data set.

    Attributes:
        name: also the name of its class list.
        title: as the literature calls it.
        kind: how its raw labels lie.
        splits: by name: `train`, `val`.
        suffix: of prepared labels, `.png` (8-bit) or `.tif` (16-bit).
        images_of: whether the folder of images belongs to this split alone, or holds images of others too.
        background_from: predicted classes from here on count as one, the background; None for no such rule.
    """

    name: str
    title: str
    kind: RawKind
    splits: dict[str, Split]
    suffix: Literal[".png", ".tif"] = ".png"
    images_of: Literal["split", "many"] = "split"
    background_from: int | None = None

    @cached_property
    def facts(self) -> dict[str, Any]:
        """Facts of the class list's file beside the names."""
        return class_facts(self.name)

    @property
    def names(self) -> tuple[str, ...]:
        """The vocabulary, in the order of the label ids."""
        return class_list(self.name)

    @property
    def label_names(self) -> tuple[str, ...]:
        """Names of the label ids: the vocabulary, or with a background rule the classes below it and `background`."""
        if self.background_from is None:
            return self.names
        return (*self.names[: self.background_from], "background")

    @property
    def unlabelled(self) -> int:
        """The value of unlabelled pixels in prepared files: 255 or 65535."""
        return int(self.facts["ignore_label"])

    @property
    def seen(self) -> frozenset[str] | None:
        """Names that training sees, of data sets of parts; None of others."""
        return frozenset(self.facts["base_classes"]) if "base_classes" in self.facts else None

    def split(self, name: str) -> Split:
        """The split of that name.

        Raises:
            PcasegError: there is none; the message names those there are.
        """
        if name not in self.splits:
            raise PcasegError(f"{self.name}: has no split {name!r}; choose from {', '.join(self.splits)}")
        return self.splits[name]

    def describe_raw(self, root: Path) -> str:
        """Places where the raw files are looked for, for messages."""
        return ", ".join(str(root / split.raw) for split in self.splits.values() if split.raw)


_VOC12, _VOC10 = "VOCdevkit/VOC2012", "VOCdevkit/VOC2010"
_ADE, _ADE_FULL = "ADEChallengeData2016", "ADE20K_2021_17_01"


def _coco(split: str, count: int) -> Split:
    return Split(
        images=f"coco-stuff/images/{split}2017",
        labels=f"coco-stuff/annotations_detectron2/{split}2017",
        raw=f"coco-stuff/annotations/{split}2017",
        count=count,
    )


def _voc(labels: str) -> Split:
    return Split(
        images=f"{_VOC12}/JPEGImages",
        labels=f"{_VOC12}/{labels}/val",
        raw=f"{_VOC12}/SegmentationClassAug",
        listing=f"{_VOC12}/ImageSets/Segmentation/val.txt",
        count=1449,
    )


def _context(labels: str, raw: str, listing: str = "") -> Split:
    return Split(
        images=f"{_VOC10}/JPEGImages",
        labels=f"{_VOC10}/annotations_detectron2/{labels}",
        raw=f"{_VOC10}/{raw}",
        listing=listing and f"{_VOC10}/{listing}",
        count=5105,
    )


def _parts(folder: str, split: str, count: int) -> Split:
    return Split(
        images=f"{folder}/images/{split}",
        labels=f"{folder}/annotations_detectron2_part/{split}",
        raw="",
        count=count,
    )


_TABLE = (
    DataSet("coco_stuff_171", "COCO-Stuff", "png", {"train": _coco("train", 118287), "val": _coco("val", 5000)}),
    DataSet(
        "ade20k_150",
        "ADE20K-150",
        "png",
        {
            "val": Split(
                images=f"{_ADE}/images/validation",
                labels=f"{_ADE}/annotations_detectron2/validation",
                raw=f"{_ADE}/annotations/validation",
                count=2000,
            )
        },
    ),
    DataSet(
        "ade20k_847",
        "ADE20K-847",
        "ade_full",
        {
            "val": Split(
                images=f"{_ADE_FULL}/images_detectron2/validation",
                labels=f"{_ADE_FULL}/annotations_detectron2/validation",
                raw=f"{_ADE_FULL}/images/ADE/validation",
                count=2000,
            )
        },
        suffix=".tif",
    ),
    DataSet(
        "pascal_context_59",
        "Pascal Context-59",
        "context_json",
        {"val": _context("pc59_val", "trainval_merged.json")},
        images_of="many",
    ),
    DataSet(
        "pascal_context_459",
        "Pascal Context-459",
        "context_mat",
        {"val": _context("pc459_val", "trainval", "pascalcontext_val.txt")},
        suffix=".tif",
        images_of="many",
    ),
    DataSet("voc_20", "PAS-20", "voc", {"val": _voc("annotations_detectron2")}, images_of="many"),
    DataSet(
        "voc_20b",
        "PAS-20b",
        "voc",
        {"val": _voc("annotations_detectron2_bg")},
        images_of="many",
        background_from=20,
    ),
    DataSet(
        "pascal_part_116",
        "Pascal-Part-116",
        "prepared",
        {"train": _parts("PascalPart116", "train", 8431), "val": _parts("PascalPart116", "val", 850)},
    ),
    DataSet(
        "ade20k_part_234",
        "ADE20K-Part-234",
        "prepared",
        {
            "train": _parts("ADE20KPart234", "training", 7347),
            "val": _parts("ADE20KPart234", "validation", 1016),
        },
        suffix=".tif",
    ),
)

DATA_SETS: dict[str, DataSet] = {one.name: one for one in _TABLE}
"""Every published data set by name."""


def data_set(name: str) -> DataSet:
    """The data set of that name.

    >>> data_set("voc_20b").label_names[-2:]
    ('tvmonitor', 'background')

    Raises:
        PcasegError: there is none; the message names those there are.
    """
    if name not in DATA_SETS:
        raise PcasegError(f"{name}: no such data set; the data sets are {', '.join(DATA_SETS)}")
    return DATA_SETS[name]
