"""A folder of labelled images, read through once before anything is measured on it."""

from __future__ import annotations

from pathlib import Path

from pcaseg.data.folders import LabelledFolder, open_labelled


def read_labelled(folder: Path) -> LabelledFolder:
    """A folder in the form of `open_labelled`; every pair is read once, so that a bad one is found early.

    Raises:
        PcasegError: as `open_labelled` and `LabelledFolder.item`.
    """
    found = open_labelled(folder)
    for index in range(len(found)):
        found.item(index)
    return found
