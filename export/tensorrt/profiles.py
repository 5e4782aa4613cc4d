"""The shapes that engines are built for: named sets of optimisation profiles, in one table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

from pcaseg.configs import CONTEXT_LENGTH, MAX_CLASSES, MOST_INDEXED, check_choice
from pcaseg.runtime.engines import GraphRole, Shape, ShapeProfile
from pcaseg.runtime.manifest import Manifest

ProfileSet = Literal["edge", "default", "large"]
"""What `--profile` takes."""

Range = tuple[int, int, int]
"""Smallest, usual (tactics are timed there) and largest."""


@dataclass(frozen=True)
class Ranges:
    """Ranges of one graph under one set: classes, images of a call in each profile, sides of frames of a free size."""

    classes: Range
    images: dict[str, Range]
    height: Range = (64, 480, 1080)
    width: Range = (64, 640, 1920)


TABLE: dict[ProfileSet, dict[GraphRole, Ranges]] = {
    "edge": {
        "main": Ranges((1, 20, 64), {"one": (1, 1, 1), "several": (2, 5, 5)}),
        "text": Ranges((1, 20, 64), {"one": (1, 1, 1)}),
    },
    "default": {
        "main": Ranges((1, 150, MAX_CLASSES), {"one": (1, 1, 1), "several": (2, 5, 10)}),
        "text": Ranges((1, 64, MAX_CLASSES), {"one": (1, 1, 1)}),
    },
    "large": {
        "main": Ranges((1, 150, MAX_CLASSES), {"one": (1, 1, 1), "several": (2, 5, 10)}),
        "large": Ranges((MAX_CLASSES + 1, 847, 1024), {"one": (1, 1, 1), "several": (2, 5, 5)}),
        "text": Ranges((1, 64, MAX_CLASSES), {"one": (1, 1, 1)}),
    },
}
"""One window, and the five of the sliding protocol, have a profile each: tactics for one are slow for the other. In a
graph of labels an image is a frame, whose windows are made inside."""


def roles(profile: ProfileSet) -> tuple[GraphRole, ...]:
    """The graphs that a set builds.

    Raises:
        PcasegError: no such set.
    """
    check_choice(profile, ProfileSet, what="profile")
    return tuple(TABLE[profile])


def shape_profiles(manifest: Manifest, role: GraphRole, profile: ProfileSet) -> tuple[ShapeProfile, ...]:
    """The optimisation profiles of one graph, in the engine's order."""
    ranges = TABLE[profile][role]
    if role == "text":
        return (ShapeProfile("prompts", {"tokens": _three(lambda T: (T, CONTEXT_LENGTH), ranges.classes)}),)
    prompts = () if manifest.text.prompts == 1 else (manifest.text.prompts,)
    text = _three(lambda T: (T, *prompts, manifest.text.embed_dim), _classes(manifest, role, ranges.classes))
    return tuple(
        ShapeProfile(f"{profile}-{name}", {"image": _images(manifest, ranges, counts), "text": text})
        for name, counts in ranges.images.items()
    )


def _classes(manifest: Manifest, role: GraphRole, classes: Range) -> Range:
    """The range of classes; with a shortlist the main graph ends at its length, and the large one begins there."""
    if manifest.shortlist is None:
        return classes
    if role == "large":
        return manifest.shortlist + 1, classes[1], MOST_INDEXED
    low, usual, high = (min(length, manifest.shortlist) for length in classes)
    return low, usual, high


def _images(manifest: Manifest, ranges: Ranges, counts: Range) -> tuple[Shape, Shape, Shape]:
    side = manifest.image.size_px
    if manifest.graph == "logits":
        return _three(lambda N: (N, 3, side, side), counts)
    heights, widths = ranges.height, ranges.width
    if manifest.image_size is not None:
        heights, widths = ((length,) * 3 for length in manifest.image_size)
    low, usual, high = ((N, H, W, 3) for N, H, W in zip(counts, heights, widths, strict=True))
    return low, usual, high


def _three(shape: Callable[[int], Shape], lengths: Range) -> tuple[Shape, Shape, Shape]:
    low, usual, high = (shape(length) for length in lengths)
    return low, usual, high


def describe_sets() -> str:
    """For the command line's help."""
    return ", ".join(
        f"{name} up to {max(r.classes[2] for role, r in TABLE[name].items() if role != 'text')} classes"
        for name in get_args(ProfileSet)
    )
