"""Memory of the folded aggregator's intermediates, and the number of classes at a time that fits a budget.

The unit is one class map, HW x C numbers. Counted over all live tensors of a run with the published sizes (C = 128,
decoder widths 64 and 32), without the weights and the inputs; `tests/deploy/test_memory.py` counts again.
"""

from __future__ import annotations

from pcaseg.configs import MAX_CLASSES
from pcaseg.errors import PcasegError

CACHED_BYTES = 8 * 24 * 24 * 128 * 4
"""Class maps that run at a time on a CPU, so that their intermediates stay in its caches: eight of the published size,
float32."""

MAPS_PER_IMAGE = 130.0
"""The sums of the class attention (32 maps each, three at a time), guidance and its shares."""

MAPS_PER_CLASS = 1.1
"""The tokens themselves, the cost volume and the logits."""

MAPS_PER_CLASS_AT_WORK = 24.0
"""Where most is alive, in the decoder's second block."""


def peak_mib(images: int, classes: int, chunk: int | None, *, map_bytes: int) -> float:
    """Peak memory of the aggregator's intermediates.

    Five windows with 256 classes, all at once and eight at a time, in float32:

    >>> [round(peak_mib(5, 256, chunk, map_bytes=24 * 24 * 128 * 4)) for chunk in (None, 8)]
    [9219, 849]

    Args:
        images: B.
        classes: T; those beyond 256 are dropped before any map is made of them.
        chunk: classes at a time; None for all.
        map_bytes: of one class map.

    Returns:
        MiB.
    """
    kept = min(classes, MAX_CLASSES)
    at_work = kept if chunk is None else min(chunk, kept)
    return images * (MAPS_PER_IMAGE + MAPS_PER_CLASS * kept + MAPS_PER_CLASS_AT_WORK * at_work) * map_bytes / 2**20


def usual_chunk(device: str, images: int, classes: int, *, map_bytes: int) -> int | None:
    """Classes at a time where nothing else is asked for: on a CPU what stays in its caches, elsewhere all.

    >>> [usual_chunk(device, 1, 150, map_bytes=24 * 24 * 128 * 4) for device in ("cpu", "cuda")]
    [8, None]

    Args:
        device: type of the torch device.
        images: B.
        classes: that are aggregated.
        map_bytes: of one class map.

    Returns:
        Classes at a time; None for all at once.
    """
    fits = max(1, CACHED_BYTES // (images * map_bytes))
    return fits if device == "cpu" and fits < classes else None


def largest_chunk(memory_mib: float, images: int, classes: int, *, map_bytes: int) -> int:
    """Classes at a time within a budget: the largest chunk with `peak_mib` of at most `memory_mib`.

    Raises:
        PcasegError: not even one class at a time does; the message names the least budget.
    """
    least = peak_mib(images, classes, 1, map_bytes=map_bytes)
    if memory_mib < least:
        raise PcasegError(
            f"memory_mib={memory_mib:g}: {images} images with {classes} classes need {least:.0f} MiB at least; "
            "raise the budget or give fewer images at a time"
        )
    per_class = images * MAPS_PER_CLASS_AT_WORK * map_bytes / 2**20
    return min(classes, 1 + int((memory_mib - least) / per_class))
