"""Checks of prepared data sets: every file read, every label within the classes, as many as published."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from pcaseg.data.folders import match_files, prepared_folder
from pcaseg.data.specs import data_set
from pcaseg.errors import PcasegError


@dataclass(frozen=True)
class SplitCheck:
    """Findings in one split.

    Attributes:
        split: its name.
        images: pairs of image and labels that are right.
        published: how many there should be.
        problems: a sentence for each file that is missing or malformed, and one if the count is wrong.
    """

    split: str
    images: int
    published: int
    problems: tuple[str, ...]


def check_prepared(
    name: str, root: str | os.PathLike[str], *, splits: Sequence[str] | None = None, progress: bool = False
) -> tuple[SplitCheck, ...]:
    """Reads every file of a prepared data set.

    Args:
        name: of `pcaseg.data.specs.DATA_SETS`.
        root: folder of all data sets.
        splits: those to check; None for all.
        progress: show a progress bar on standard error.

    Raises:
        PcasegError: unknown data set or split.
    """
    spec = data_set(name)
    return tuple(_check_split(name, split, Path(root), progress) for split in splits or tuple(spec.splits))


def _check_split(name: str, split: str, root: Path, progress: bool) -> SplitCheck:
    spec = data_set(name)
    part = spec.split(split)
    pairs, problems = match_files(spec, part, root)
    folder, right = prepared_folder(spec, split, pairs), 0
    for index in tqdm(range(len(folder)), desc=f"{name}, {split}", unit="image", disable=not progress):
        try:
            folder.item(index)
            right += 1
        except PcasegError as error:
            problems.append(str(error))
    if len(pairs) != part.count:
        problems.append(
            f"{root / part.labels}: {len(pairs)} images with labels, but {part.count} are published; complete the "
            "download and run pcaseg datasets prepare"
        )
    return SplitCheck(split, right, part.count, tuple(problems))
