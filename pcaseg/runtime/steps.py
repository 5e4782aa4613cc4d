"""The steps from an image to its labels on one backend: read, prepare, network, labels.

Calls run them one behind the other; streams run them in threads, each on another frame. They share nothing but the
backend, so that any number of images may be under way.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import numpy as np

from pcaseg.configs import Strategy
from pcaseg.errors import ImageError, PcasegError
from pcaseg.images import as_rgb, read_image
from pcaseg.runtime.arrays import host_image
from pcaseg.runtime.backends import Backend, ShortlistBackend
from pcaseg.runtime.parts import choose_parts
from pcaseg.runtime.preparing import VocabularyCache
from pcaseg.runtime.result import Result
from pcaseg.runtime.shortlist import join_kept
from pcaseg.runtime.smoothing import Smoother
from pcaseg.runtime.vocabulary import Vocabulary
from pcaseg.runtime.windows import label_map, merge_windows, prepare_windows

_NOTHING = np.empty(0)


@dataclass
class Job:
    """One image on its way; each step reads what the ones before it left, and lets go of what none behind it needs.

    Attributes:
        image: as given to `Steps.read`.
        vocabulary: of this image alone.
        name: what messages call the image.
        rgb: `(H, W, 3)` uint8, after `read`.
        windows: the network's inputs, after `prepare`.
        logits: `(N, K, h, w)` float32, after `network`, of a graph of logits.
        kept: `(N, K)` indices of the classes of `logits`, where the graph has a shortlist.
        labels: `(H, W)` uint16, at the end.
        confidence: `(H, W)` float32, at the end.
        took_ms: milliseconds of each step.
    """

    image: Any
    vocabulary: Vocabulary
    name: str = "image"
    rgb: np.ndarray = field(default_factory=lambda: _NOTHING)
    windows: np.ndarray = field(default_factory=lambda: _NOTHING)
    logits: np.ndarray = field(default_factory=lambda: _NOTHING)
    kept: np.ndarray | None = None
    labels: np.ndarray = field(default_factory=lambda: _NOTHING)
    confidence: np.ndarray = field(default_factory=lambda: _NOTHING)
    took_ms: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Steps:
    """The steps on one backend.

    Attributes:
        backend: runs the network.
        vocabularies: prepared for it.
        strategy: see `pcaseg.runtime.windows`.
        window_batch: windows, or frames of a graph of labels, that run at once.
        bits: see `pcaseg.images.read_image`.
        bundle_sha256: of the bundle's manifest; None where no bundle on disk was opened.
    """

    backend: Backend
    vocabularies: VocabularyCache
    strategy: Strategy
    window_batch: int
    bits: int | None
    bundle_sha256: str | None

    def run(self, job: Job) -> Result:
        """All steps of one image.

        Raises:
            ImageError: the image cannot be read, or is of another size than the graph's.
            VocabularyError: more names than the graph takes.
            PcasegError: the network returned values that are not numbers.
        """
        self.read(job)
        self.prepare(job)
        self.network([job])
        return self.label(job)

    def read(self, job: Job) -> None:
        """From `image` to `rgb`.

        An array is copied: the caller's camera buffer may hold the next frame when the overlay is drawn.
        """
        with _timed("read", job):
            image, job.image = job.image, None
            if isinstance(image, (str, os.PathLike)):
                job.name = os.fspath(image)
                job.rgb = read_image(image, bits=self.bits)
            else:
                host = host_image(image, self.backend, name=job.name)
                job.rgb = as_rgb(host, name=job.name, bits=self.bits).copy()

    def prepare(self, job: Job) -> None:
        """From `rgb` to `windows`; of a graph of labels, which takes the image itself, a check of the sizes alone."""
        manifest = self.backend.manifest
        if manifest.graph == "labels":
            self._check_size(job)
            return
        with _timed("prepare", job):
            job.windows = prepare_windows(
                job.rgb, self.strategy, image_px=manifest.image.size_px, sliding=manifest.sliding
            )

    def network(self, jobs: Sequence[Job]) -> None:
        """From `windows` to `logits`, or of a graph of labels from `rgb` to `labels`; jobs of one vocabulary."""
        text = jobs[0].vocabulary.embeddings
        with _timed("network", *jobs):
            if self.backend.manifest.graph == "labels":
                for _, alike in groupby(jobs, key=lambda job: job.rgb.shape):
                    group = list(alike)
                    for start in range(0, len(group), self.window_batch):
                        self._run_labels(group[start : start + self.window_batch], text)
            else:
                self._run_windows(jobs, text)

    def label(self, job: Job, smoother: Smoother | None = None) -> Result:
        """From `logits` to the result, averaged with the frames before it where there is a smoother."""
        if self.backend.manifest.graph == "logits":
            with _timed("labels", job):
                self._merge(job, smoother)
        vocabulary = job.vocabulary
        return Result(
            labels=job.labels,
            confidence=job.confidence,
            classes=vocabulary.names,
            image=job.rgb,
            timings_ms=job.took_ms | {"total": sum(job.took_ms.values())},
            backend=self.backend.name,
            weights=self.backend.manifest.weights.kind,
            bundle_sha256=self.bundle_sha256,
            object_of=vocabulary.objects if vocabulary.has_parts else None,
        )

    def _run_windows(self, jobs: Sequence[Job], text: np.ndarray) -> None:
        """Windows of all jobs through a graph of logits, `window_batch` at a time."""
        manifest, step = self.backend.manifest, self.window_batch
        ends = np.cumsum([len(job.windows) for job in jobs])[:-1]
        windows = _joined([job.windows for job in jobs])
        batches = [windows[i : i + step] for i in range(0, len(windows), step)]
        kept: list[np.ndarray | None] = [None] * len(jobs)
        if manifest.shortlist is None:
            logits = _joined([self.backend.logits(batch, text) for batch in batches])
        else:
            parts = [self._shortlisting().kept_logits(batch, text) for batch in batches]
            logits = _joined([part[0] for part in parts])
            kept = list(np.split(_joined([part[1] for part in parts]), ends))
        self._check_finite(logits)
        for job, part, classes in zip(jobs, np.split(logits, ends), kept, strict=True):
            job.windows, job.logits, job.kept = _NOTHING, part, classes

    def _run_labels(self, jobs: Sequence[Job], text: np.ndarray) -> None:
        """Frames of one size through a graph of labels."""
        labels, confidence = self.backend.labels(np.stack([job.rgb for job in jobs]), text)
        self._check_finite(confidence)
        for job, one, sure in zip(jobs, labels, confidence, strict=True):
            job.labels, job.confidence = _of_rows(one.astype(np.uint16), job.vocabulary.class_of_row), sure

    def _merge(self, job: Job, smoother: Smoother | None) -> None:
        """Labels and confidence from a graph of logits."""
        manifest, logits, classes = self.backend.manifest, job.logits, None
        job.logits = _NOTHING
        if job.kept is not None:
            logits, classes = join_kept(logits, job.kept, len(job.vocabulary.embeddings))
        scores = merge_windows(logits, self.strategy, manifest.sliding)
        size = job.rgb.shape[0], job.rgb.shape[1]
        if smoother is not None:
            shown = np.arange(len(scores)) if classes is None else classes
            scores, classes = smoother.mix(scores, shown, (job.vocabulary, size))
        rows, job.confidence = label_map(scores, size)
        class_of_row = job.vocabulary.class_of_row
        if classes is not None:
            class_of_row = _of_rows(classes.astype(np.uint16), class_of_row)
        job.labels = _of_rows(rows, class_of_row)
        if job.vocabulary.has_parts:
            known = np.arange(len(scores)) if class_of_row is None else class_of_row
            choose_parts(scores, known, job.vocabulary.objects, job.labels, job.confidence)

    def _check_size(self, job: Job) -> None:
        size = self.backend.manifest.image_size
        if size is not None and job.rgb.shape[:2] != size:
            raise ImageError(
                f"{job.name}: {job.rgb.shape[0]} x {job.rgb.shape[1]} pixels (height x width), but the bundle takes "
                f"{size[0]} x {size[1]} alone; resize the frame, or export without --image-size"
            )

    def _shortlisting(self) -> ShortlistBackend:
        """The backend, where it runs a graph of logits with a shortlist."""
        if not isinstance(self.backend, ShortlistBackend):
            raise PcasegError(
                f"{self.backend.name}: runs no graph of logits with a shortlist; export without --shortlist"
            )
        return self.backend

    def _check_finite(self, values: np.ndarray) -> None:
        if not np.isfinite(values).all():
            raise PcasegError(
                f"{self.backend.name}: the network returned values that are not finite; check the bundle with "
                "pcaseg check, or export it in float32"
            )


def _of_rows(rows: np.ndarray, class_of_row: np.ndarray | None) -> np.ndarray:
    """Classes of rows; where the two are the same, the array itself."""
    return rows if class_of_row is None else class_of_row[rows]


@contextmanager
def _timed(step: str, *jobs: Job) -> Iterator[None]:
    """Notes what a step took, in equal shares where several jobs took it together."""
    start = time.perf_counter()
    yield
    for job in jobs:
        job.took_ms[step] = (time.perf_counter() - start) * 1e3 / len(jobs)


def _joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)
