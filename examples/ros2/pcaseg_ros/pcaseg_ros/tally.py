"""Counts and times of a node's frames, and what they say of its health. Nothing here needs ROS."""

from __future__ import annotations

import threading
from collections import Counter, deque
from dataclasses import dataclass
from typing import Literal

import numpy as np

Kind = Literal["received", "labelled", "failed", "overtaken", "overflowed", "paced", "lost"]
"""Of frames: those that came; of them labelled, unreadable, dropped for newer ones (mode `latest`), dropped because
`depth` of them waited, left out for `max_rate`; and those that the transport lost before they came."""

OK, WARN, ERROR = range(3)
"""Levels, as `diagnostic_msgs/DiagnosticStatus` numbers them."""

REMEMBERED = 300
"""Frames that the percentiles are of."""

PATIENCE_S = 3.0
"""A node without frames for so long is not well."""

_WORDS: dict[Kind, str] = {
    "received": "frames received",
    "labelled": "frames labelled",
    "failed": "frames failed",
    "overtaken": "frames dropped, overtaken by newer ones",
    "overflowed": "frames dropped, too many waiting",
    "paced": "frames left out for max_rate",
    "lost": "frames lost in transport",
}


@dataclass(frozen=True)
class Health:
    """What the frames of the last period say.

    Attributes:
        level: `OK`, `WARN` or `ERROR`.
        message: one sentence.
        values: names and values in words.
    """

    level: int
    message: str
    values: dict[str, str]


class Tally:
    """Counts of one activation; safe from several threads."""

    def __init__(self, topic: str, now_s: float) -> None:
        """Begins at zero.

        Args:
            topic: of the images.
            now_s: the time, seconds of a clock that does not jump.
        """
        self._topic, self._lock = topic, threading.Lock()
        self._counts: Counter[Kind] = Counter()
        self._before: Counter[Kind] = Counter()
        self._latencies_ms: deque[float] = deque(maxlen=REMEMBERED)
        self._error = ""
        self._asked_s = self._came_s = now_s

    def count(self, kind: Kind, number: int = 1) -> None:
        """Counts frames."""
        with self._lock:
            self._counts[kind] += number

    def came(self, now_s: float) -> None:
        """Counts a frame that came."""
        with self._lock:
            self._counts["received"] += 1
            self._came_s = now_s

    def labelled(self, latency_ms: float) -> None:
        """Counts a frame whose labels were published, so long after it came."""
        with self._lock:
            self._counts["labelled"] += 1
            self._latencies_ms.append(latency_ms)

    def failed(self, error: str) -> None:
        """Counts a frame that could not be labelled, and why."""
        with self._lock:
            self._counts["failed"] += 1
            self._error = error

    def health(self, now_s: float, publishers: int) -> Health:
        """The state of the period since the last call.

        Args:
            now_s: the time.
            publishers: of the images.
        """
        with self._lock:
            fresh = self._counts - self._before
            rate = fresh["labelled"] / max(now_s - self._asked_s, 1e-9)
            self._before, self._asked_s = Counter(self._counts), now_s
            values = {"frames per second": f"{rate:.1f}"}
            if self._latencies_ms:
                percentiles = np.percentile(self._latencies_ms, (50, 90, 99))
                values |= {f"latency ms p{at}": f"{ms:.1f}" for at, ms in zip((50, 90, 99), percentiles, strict=True)}
            values |= {words: str(self._counts[kind]) for kind, words in _WORDS.items()}
            values["last error"] = self._error
            return Health(*self._judge(fresh, rate, now_s, publishers), values)

    def _judge(self, fresh: Counter[Kind], rate: float, now_s: float, publishers: int) -> tuple[int, str]:
        if fresh["failed"]:
            return ERROR, f"{fresh['failed']} frames could not be labelled; {self._error}"
        if now_s - self._came_s > PATIENCE_S:
            fits = "its publishers may offer another qos" if publishers else "nothing publishes there"
            return WARN, f"no frame of {self._topic} for {now_s - self._came_s:.0f} s; {fits}"
        for kind in ("lost", "overflowed"):
            if fresh[kind]:
                return WARN, f"{fresh[kind]} {_WORDS[kind]}"
        return OK, f"{rate:.1f} frames per second"
