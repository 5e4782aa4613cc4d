"""Shortlists at run time: windows whose graph gives the logits of the classes that it kept, and no other.

A dropped class has the logit -100 everywhere, so one map stands for all classes that no window kept. Memory then
follows the shortlist: of K classes and N windows at most N * K + 1 maps are alive, whatever the vocabulary.
"""

from __future__ import annotations

import numpy as np

from pcaseg.configs import DROPPED_LOGIT, most_kept
from pcaseg.errors import BundleError, PcasegError
from pcaseg.runtime.bundle import SEGMENTER_NAME
from pcaseg.runtime.manifest import Manifest


def join_kept(logits: np.ndarray, classes: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits of windows that kept different classes, on classes that they share.

    Args:
        logits: `(N, K, h, w)` float32.
        classes: `(N, K)` indices below `count`, different ones in each row.
        count: T, the size of the vocabulary.

    Returns:
        logits `(N, U, h, w)`, -100 where a window dropped the class; classes `(U,)`, ascending: all that some window
        kept, and the first that none did, which stands for all such.
    """
    chosen = np.zeros(count, bool)
    chosen[classes] = True
    chosen[np.flatnonzero(~chosen)[:1]] = True
    shared = np.flatnonzero(chosen)
    return all_logits(logits, np.searchsorted(shared, classes), len(shared)), shared


def all_logits(logits: np.ndarray, classes: np.ndarray, count: int) -> np.ndarray:
    """Logits of `count` classes, `(N, count, h, w)`, -100 for all but those given; arguments as of `join_kept`."""
    full = np.full((len(logits), count, *logits.shape[2:]), DROPPED_LOGIT, np.float32)
    full[np.arange(len(logits))[:, None], classes] = logits
    return full


def check_kept(
    logits: np.ndarray, classes: np.ndarray, *, windows: int, classes_of: int, shortlist: int | None
) -> None:
    """Refuses what a graph with a shortlist cannot have given.

    Raises:
        BundleError: other sizes than the call's, or indices that are not ascending or of no class.
    """
    kept = min(classes_of, most_kept(shortlist))
    sizes = logits.ndim == 4 and logits.shape[:2] == classes.shape == (windows, kept)
    if not sizes or (classes < 0).any() or (classes >= classes_of).any() or (np.diff(classes) <= 0).any():
        raise BundleError(
            f"{SEGMENTER_NAME} returned {logits.shape} and {classes.shape}, which are not {kept} of {classes_of} "
            f"classes for {windows} windows; export the bundle anew"
        )


def check_shortlist(manifest: Manifest, asked: int | None) -> None:
    """Refuses another shortlist than a bundle's.

    Raises:
        PcasegError: names the export that it takes.
    """
    if asked is None or most_kept(asked) == manifest.shortlist:
        return
    held = "no shortlist" if manifest.shortlist is None else f"--shortlist {manifest.shortlist}"
    raise PcasegError(
        f"shortlist={asked}: the bundle was exported with {held}; leave it out, or export with --shortlist {asked}"
    )
