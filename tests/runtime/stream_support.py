"""What the tests of streams share."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np

from pcaseg.runtime import Segmenter, StreamItem

NAMES = ["cat", "grass", "sky"]


def picture(index: int, size: tuple[int, int] = (24, 36)) -> np.ndarray:
    return np.random.default_rng(index).integers(0, 256, (*size, 3), dtype=np.uint8)


def threads_end(count: int, *, within_s: float = 5) -> bool:
    """Whether so few threads are left soon."""
    deadline = time.monotonic() + within_s
    while threading.active_count() > count and time.monotonic() < deadline:
        time.sleep(0.005)
    return threading.active_count() <= count


def stream_threads() -> int:
    return sum(thread.name.startswith("pcaseg-") for thread in threading.enumerate())


def check(segmenter: Segmenter, item: StreamItem, image: np.ndarray, names: Any = NAMES) -> None:
    """An item is what a single call gives."""
    wanted = segmenter(image, vocabulary=names)
    assert item.error is None and item.result is not None
    assert item.result.classes == wanted.classes == tuple(names)
    np.testing.assert_array_equal(item.result.labels, wanted.labels)
    np.testing.assert_array_equal(item.result.confidence, wanted.confidence)
    np.testing.assert_array_equal(item.result.image, image)
