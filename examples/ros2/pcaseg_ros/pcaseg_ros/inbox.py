"""Frames between a subscription and a stream. Nothing here needs ROS."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator

from pcaseg.runtime import Frame


class Inbox(Iterator[Frame]):
    """Source of a stream that others fill: `depth` frames wait at most, and the oldest goes for a new one."""

    def __init__(self, depth: int) -> None:
        """Begins empty.

        Args:
            depth: frames that wait at most.
        """
        self._waiting: deque[Frame] = deque()
        self._depth, self._closed = depth, False
        self._changed = threading.Condition()

    def put(self, frame: Frame) -> int:
        """Adds a frame, and gives how many had to go for it; behind the end, nothing is added."""
        with self._changed:
            if self._closed:
                return 0
            gone = len(self._waiting) == self._depth
            if gone:
                self._waiting.popleft()
            self._waiting.append(frame)
            self._changed.notify_all()
            return int(gone)

    def __next__(self) -> Frame:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            if self._closed:
                raise StopIteration
            return self._waiting.popleft()

    def close(self) -> None:
        """Ends the stream; frames that wait are lost."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


class Pace:
    """Takes so many frames a second at most, evenly."""

    def __init__(self) -> None:
        self._due_s = -float("inf")

    def takes(self, now_s: float, max_rate: float) -> bool:
        """True for a frame that is taken.

        Args:
            now_s: when it came, seconds.
            max_rate: frames per second; 0 for all.
        """
        if max_rate == 0:
            return True
        if now_s < self._due_s:
            return False
        self._due_s = max(self._due_s + 1 / max_rate, now_s)
        return True
