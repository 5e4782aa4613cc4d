"""Kinds of what is segmented, told by names alone: images, recordings of ROS."""

from __future__ import annotations

import os
from pathlib import Path

from pcaseg.paths import entries, is_folder

RECORDING_SUFFIXES = (".mcap", ".db3", ".bag")


def is_recording(path: str | os.PathLike[str]) -> bool:
    """True of a file that ends as recordings do, and of a folder of rosbag2, also of one that was never closed."""
    path = Path(path)
    if not is_folder(path):
        return path.suffix.lower() in RECORDING_SUFFIXES
    inside = list(entries(path))
    return any(one.name == "metadata.yaml" for one in inside) or any(one.suffix == ".mcap" for one in inside)
