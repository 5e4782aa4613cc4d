"""Kinds of what is segmented, told by names alone: images, recordings of ROS, videos and cameras."""

from __future__ import annotations

import os
from pathlib import Path

from pcaseg.paths import entries, is_folder

RECORDING_SUFFIXES = (".mcap", ".db3", ".bag")
VIDEO_SUFFIXES = (".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi", ".ts", ".mpg", ".mpeg", ".h264", ".hevc")
_LIVE = ("rtsp://", "rtsps://", "rtmp://", "udp://", "srt://", "/dev/video")


def is_recording(path: str | os.PathLike[str]) -> bool:
    """True of a file that ends as recordings do, and of a folder of rosbag2, also of one that was never closed."""
    path = Path(path)
    if not is_folder(path):
        return path.suffix.lower() in RECORDING_SUFFIXES
    inside = list(entries(path))
    return any(one.name == "metadata.yaml" for one in inside) or any(one.suffix == ".mcap" for one in inside)


def is_video(source: str | os.PathLike[str]) -> bool:
    """True of a file that ends as videos do, an address, and a camera's device."""
    name = os.fspath(source)
    addressed = name.startswith(("http://", "https://")) or is_live(name)
    return addressed or (name.lower().endswith(VIDEO_SUFFIXES) and not is_folder(name))


def is_live(source: str | os.PathLike[str]) -> bool:
    """True of a camera, which does not wait."""
    return os.fspath(source).startswith(_LIVE)
