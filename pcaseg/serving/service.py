"""The service behind both ways to ask for labels: one segmenter, its vocabularies, admission and phases."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Literal, ParamSpec, TypeVar

import numpy as np

from pcaseg.runtime.result import Result
from pcaseg.runtime.segmenter import Segmenter
from pcaseg.runtime.vocabulary import Vocabulary
from pcaseg.serving.batching import Batcher
from pcaseg.serving.inputs import Names, class_lists, given_vocabulary, preparations
from pcaseg.serving.limits import Limits, RequestError, status_of
from pcaseg.serving.metrics import Metrics

Phase = Literal["starting", "ready", "draining"]
"""`draining` requests are still answered, and the caller is told to go elsewhere."""

P = ParamSpec("P")
T = TypeVar("T")

_MOST_READERS = 4


@dataclass(frozen=True)
class Sample:
    """A picture that the page offers.

    Attributes:
        title: said under it.
        png: the file.
        classes: names to begin with.
        parts: names of parts of its objects; empty where it has none.
    """

    title: str
    png: bytes
    classes: tuple[str, ...]
    parts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Offer:
    """All that a server serves.

    Attributes:
        model: its name in addresses.
        open: opens the segmenter; called in a thread, while the server already answers for its health.
        vocabularies: registered ones by name, beside the shipped class lists.
        classes: for requests that name none; None where they must.
        samples: makes the pictures of the page, in that thread.
    """

    model: str
    open: Callable[[], Segmenter]
    vocabularies: Mapping[str, Names]
    classes: Names | None = None
    samples: Callable[[], Sequence[Sample]] = tuple


class Service:
    """Serves one offer within limits; all methods belong to one event loop."""

    def __init__(self, offer: Offer, limits: Limits) -> None:
        self.offer, self.limits, self.metrics = offer, limits, Metrics()
        self.phase: Phase = "starting"
        self.samples: Sequence[Sample] = ()
        self.failure: BaseException | None = None
        self._names: dict[str, Names] = dict(offer.vocabularies)
        self._names |= class_lists()
        self._segmenter: Segmenter | None = None
        self._batcher: Batcher | None = None
        self._default: Vocabulary | None = None
        self._inside = 0
        self._readers = ThreadPoolExecutor(min(_MOST_READERS, os.cpu_count() or 1), "pcaseg-reader")

    async def start(self) -> None:
        """Opens the bundle and prepares what was registered; what goes wrong is left in `failure`."""
        try:
            self._segmenter, self.samples = await self.in_thread(self._open)
        except Exception as error:
            self.failure = error
            return
        self._batcher = Batcher(
            self._run, most=self.limits.batch, wait_ms=self.limits.wait_ms, seen=self.metrics.batch.observe
        )
        if self.phase == "starting":
            self.phase = "ready"

    async def close(self) -> None:
        """Gives everything back; requests must have been answered."""
        if self._batcher is not None:
            await self._batcher.close()
        self._readers.shutdown()
        if self._segmenter is not None:
            self._segmenter.close()

    def drain(self) -> None:
        """Tells callers to go elsewhere, from now on."""
        self.phase = "draining"

    @property
    def segmenter(self) -> Segmenter:
        """The segmenter.

        Raises:
            RequestError: 503, the bundle is still being opened.
        """
        if self._segmenter is None or self._batcher is None:
            raise RequestError(503, "the bundle is still being opened; try again in a moment")
        return self._segmenter

    @property
    def vocabulary_sizes(self) -> dict[str, int]:
        """Classes of each registered vocabulary, by its name."""
        return {name: len(self.names_of(name)) for name in self._names}

    @property
    def default(self) -> Vocabulary | None:
        """The vocabulary of requests that name none."""
        return self._default

    def names_of(self, vocabulary: str) -> tuple[str, ...]:
        """The class names of a registered vocabulary."""
        return self._names[vocabulary].names

    def registered(self) -> dict[str, Callable[[], Vocabulary]]:
        """Preparation of each registered vocabulary, by its name."""
        return preparations(self._names, self.segmenter.prepare)

    @asynccontextmanager
    async def admitted(self, way: str) -> AsyncIterator[None]:
        """Lets a request in, and notes its answer.

        Raises:
            RequestError: 503 before the bundle is open, 429 where the house is full.
        """
        start, status = time.perf_counter(), 500
        try:
            assert self.segmenter
            if self._inside >= self.limits.queue:
                raise RequestError(429, f"{self._inside} requests are waiting already; try again in a moment")
            self._inside += 1
            self.metrics.queue.set(self._inside)
            try:
                yield
            finally:
                self._inside -= 1
                self.metrics.queue.set(self._inside)
            status = 200
        except BaseException as error:
            status = status_of(error)
            raise
        finally:
            self.metrics.answered(way, status, time.perf_counter() - start)

    async def in_thread(self, work: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        """Runs what takes a while beside the event loop; few at once."""
        return await asyncio.get_running_loop().run_in_executor(self._readers, partial(work, *arguments, **named))

    async def segment(self, images: Sequence[np.ndarray], vocabulary: Vocabulary | None) -> list[Result]:
        """The labels of images `(H, W, 3)` uint8, each batched with those of other requests.

        Raises:
            RequestError: 400, it names no vocabulary and the server has none for such requests.
            VocabularyError, ImageError: the bundle does not take them.
        """
        chosen = given_vocabulary(self._default if vocabulary is None else vocabulary)
        chosen = self.segmenter.prepare(chosen)  # refuses one of another text encoder
        assert self._batcher is not None  # the segmenter is there
        found = await asyncio.gather(*(self._batcher.submit(image, chosen) for image in images), return_exceptions=True)
        for one in found:
            if isinstance(one, BaseException):
                raise one
        return [one for one in found if isinstance(one, Result)]

    def _open(self) -> tuple[Segmenter, Sequence[Sample]]:
        segmenter = self.offer.open()
        for names in self.offer.vocabularies.values():
            segmenter.prepare(names)
        if self.offer.classes is not None:
            self._default = segmenter.prepare(self.offer.classes)
        return segmenter, self.offer.samples()

    def _run(self, images: Sequence[np.ndarray], vocabulary: Vocabulary) -> list[Result]:
        with self.metrics.network.time():
            return self.segmenter.segment_batch(images, vocabulary)
