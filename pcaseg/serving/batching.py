"""Batching: images of several requests that share a vocabulary run through the network together."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from pcaseg.runtime.result import Result
from pcaseg.runtime.vocabulary import Vocabulary

Run = Callable[[Sequence[np.ndarray], Vocabulary], list[Result]]
"""Images `(H, W, 3)` uint8 and their vocabulary to a result for each."""


@dataclass(eq=False)
class _Waiting:
    image: np.ndarray
    vocabulary: Vocabulary
    arrived: float
    answer: asyncio.Future[Result]


class Batcher:
    """Runs images one batch after the other in a thread of its own; the oldest image chooses the vocabulary.

    An image waits for others of its vocabulary only while the network has nothing else to do.
    """

    def __init__(self, run: Run, *, most: int, wait_ms: float, seen: Callable[[int], object]) -> None:
        """Starts within a running event loop.

        Args:
            run: called in the thread.
            most: images of a batch.
            wait_ms: that an image waits for others, at most.
            seen: called with the size of each batch.
        """
        self._run, self._most, self._wait_s, self._seen = run, most, wait_ms / 1e3, seen
        self._loop = asyncio.get_running_loop()
        self._queue: deque[_Waiting] = deque()
        self._arrived = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, "pcaseg-network")
        self._task = self._loop.create_task(self._work())

    async def submit(self, image: np.ndarray, vocabulary: Vocabulary) -> Result:
        """The labels of one image.

        Raises:
            PcasegError: as `run` for this image alone.
        """
        one = _Waiting(image, vocabulary, self._loop.time(), self._loop.create_future())
        self._queue.append(one)
        self._arrived.set()
        return await one.answer

    async def close(self) -> None:
        """Ends the thread once what it runs is done; whoever still waits is let go."""
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task
        for one in self._queue:
            one.answer.cancel()
        await self._loop.run_in_executor(None, self._thread.shutdown)

    async def _work(self) -> None:
        while True:
            await self._arrived.wait()
            if self._queue:
                await self._fill(self._queue[0].arrived + self._wait_s)
                await self._answer(self._take())
            else:
                self._arrived.clear()

    async def _fill(self, deadline: float) -> None:
        """Waits until a batch is full or the deadline, which has passed where the network was busy meanwhile."""
        while self._alike() < self._most and (left := deadline - self._loop.time()) > 0:
            self._arrived.clear()
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._arrived.wait(), left)
        self._arrived.set()

    def _alike(self) -> int:
        return sum(one.vocabulary is self._queue[0].vocabulary for one in self._queue)

    def _take(self) -> list[_Waiting]:
        taken: list[_Waiting] = []
        vocabulary, left = self._queue[0].vocabulary, deque[_Waiting]()
        for one in self._queue:
            if one.answer.done():  # whoever asked has gone
                continue
            fits = one.vocabulary is vocabulary and len(taken) < self._most
            (taken if fits else left).append(one)
        self._queue = left
        return taken

    async def _answer(self, batch: list[_Waiting]) -> None:
        """Answers each of a batch; where the batch fails, each image by itself, so that none fails for another."""
        if not batch:
            return
        images = [one.image for one in batch]
        try:
            results = await self._loop.run_in_executor(self._thread, self._run, images, batch[0].vocabulary)
        except Exception as error:
            if len(batch) == 1:
                if not batch[0].answer.done():
                    batch[0].answer.set_exception(error)
                return
            for one in batch:
                await self._answer([one])
            return
        self._seen(len(batch))
        for one, result in zip(batch, results, strict=True):
            if not one.answer.done():
                one.answer.set_result(result)
