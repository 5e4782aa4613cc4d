"""Steady labels: an exponential average of the scores of a stream's frames, on the network's own grid."""

from __future__ import annotations

from collections.abc import Hashable

import numpy as np

from pcaseg.errors import PcasegError

FORGOTTEN = 1e-3
"""A class that a shortlist dropped is averaged on until its best score is below this."""


def check_smooth(weight: float) -> None:
    """Refuses a weight of the past that is none.

    Raises:
        PcasegError: it is not from 0 to below 1.
    """
    if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0 <= weight < 1:
        raise PcasegError(f"smooth={weight!r}: give the weight of the past, from 0 (none) to below 1")


class Smoother:
    """Average over the frames of one stream, which come in order; not for several threads at once.

    It begins anew with another vocabulary and with another size of frames.
    """

    def __init__(self, weight: float) -> None:
        """Begins without a past.

        Args:
            weight: of the past, 0 to below 1; after n frames a change has come through but for `weight ** n`.

        Raises:
            PcasegError: as `check_smooth`.
        """
        check_smooth(weight)
        self._weight = np.float32(weight)
        self._of: Hashable = None
        self._past: dict[int, np.ndarray] = {}

    def mix(self, scores: np.ndarray, classes: np.ndarray, of: Hashable) -> tuple[np.ndarray, np.ndarray]:
        """The average with a further frame.

        Args:
            scores: `(K, s1, s2)` float32, 0 to 1, of the classes that the frame kept; those of others count as 0.
            classes: `(K,)`, which classes they are.
            of: what frames must share to be averaged.

        Returns:
            scores `(U, s1, s2)` of the classes that this frame or one before it kept, and these, ascending.
        """
        begun, self._of = self._of == of and bool(self._past), of
        past, self._past = self._past if begun else {}, {}
        for index, new in zip(classes.tolist(), scores, strict=True):
            old = past.pop(index, None)
            if begun:
                new = (1 - self._weight) * new + (0 if old is None else self._weight * old)
            self._past[index] = new
        for index, old in past.items():
            faded = self._weight * old
            if faded.max() >= FORGOTTEN:
                self._past[index] = faded
        order = sorted(self._past)
        return np.stack([self._past[index] for index in order]), np.array(order)
