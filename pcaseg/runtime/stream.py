"""Streams: frames in, results out, with decoding, preparation, network and label map at work at the same time.

    source -> [read] -> intake -> [prepare] -> [network] -> [labels] -> consumer

Each part in brackets is a thread that takes one frame at a time, in order. Frames that have left the intake and were
not taken by the consumer yet are counted, and no more than `queue` of them are under way: a slow consumer holds the
source back, or in `latest` makes the intake let older frames go for newer ones. Nothing else waits or drops.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any, Generic, Literal, TypeVar

from pcaseg.configs import check_choice
from pcaseg.errors import PcasegError, VocabularyError, raised_by
from pcaseg.runtime.result import Result
from pcaseg.runtime.smoothing import Smoother
from pcaseg.runtime.steps import Job, Steps
from pcaseg.runtime.vocabulary import Vocabulary, VocabularySpec

StreamMode = Literal["latest", "every"]
"""`every`: each frame is segmented, and the source waits. `latest`: the newest frame is; those it overtakes are dropped
and counted."""

READER_PATIENCE_S = 1.0
"""How long the end of a stream waits for a source that is asked for a frame and does not answer."""

_Item = TypeVar("_Item")


@dataclass(frozen=True, eq=False)
class Frame:
    """One frame of a source.

    Attributes:
        image: what a call of the segmenter takes; or a function without arguments that gives it, which is called in
            a thread of the stream, and whose exception is that frame's error alone.
        timestamp: kept as it is; of any clock and unit.
        tag: anything that is to arrive with the result, such as a message's header.
    """

    image: Any
    timestamp: Any = None
    tag: Any = None


@dataclass(frozen=True, eq=False)
class StreamItem:
    """A frame that came out of a stream.

    Attributes:
        index: number of the frame in its source, from 0.
        timestamp: the frame's.
        tag: the frame's.
        dropped: frames that were dropped between the item before this one and this one.
        latency_ms: milliseconds from the frame's reading to its taking.
        result: labels with the names that they were made with; None where the frame failed.
        error: what was wrong with the frame; None where it has a result.
    """

    index: int
    timestamp: Any
    tag: Any
    dropped: int
    latency_ms: float
    result: Result | None = None
    error: Exception | None = None


@dataclass
class _Entry:
    """A frame under way."""

    index: int
    frame: Frame
    vocabulary: Vocabulary
    read_s: float = field(default_factory=time.perf_counter)
    job: Job = field(init=False)
    result: Result | None = None
    error: Exception | None = None

    def __post_init__(self) -> None:
        self.job = Job(self.frame.image, self.vocabulary, f"frame {self.index}")
        self.frame = Frame(None, self.frame.timestamp, self.frame.tag)  # the image lives in the job alone


class Stream(Iterator[StreamItem], AbstractContextManager["Stream"]):
    """Iterator over the items of a source; made by `Segmenter.stream`.

    The threads begin with the first item that is asked for. They end with the source, with `close` or `with` of stream
    or segmenter, with an exception in the source, which is raised behind the items of the frames before it, and when
    the iterator is abandoned. One consumer at a time; `set_vocabulary` and `close` are for any thread.
    """

    def __init__(
        self,
        frames: Iterable[Any],
        use: Callable[[], AbstractContextManager[Steps]],
        vocabulary_in_use: Callable[[], Vocabulary | None],
        *,
        mode: StreamMode,
        queue: int,
        smooth: float,
    ) -> None:
        """Prepares the threads.

        Args:
            frames: see `Segmenter.stream`.
            use: gives the segmenter's steps, which stay open meanwhile.
            vocabulary_in_use: gives the segmenter's vocabulary.
            mode: see `StreamMode`.
            queue: frames under way at most.
            smooth: see `pcaseg.runtime.smoothing.Smoother`.

        Raises:
            PcasegError: an unknown mode, a queue below 1, or a weight that is none.
        """
        check_choice(mode, StreamMode, what="mode")
        if type(queue) is not int or queue < 1:
            raise PcasegError(f"queue={queue!r}: give 1 frame or more")
        self._use, past = use, Smoother(smooth) if smooth != 0 else None
        self._pipeline = _Pipeline(iter(frames), use, vocabulary_in_use, past, mode=mode, queue=queue)
        self._last = -1
        self._dropped = 0
        self._end = weakref.finalize(self, self._pipeline.stop)  # also at the end of the program

    @property
    def dropped(self) -> int:
        """Frames dropped so far, up to the item taken last."""
        return self._dropped

    def set_vocabulary(self, spec: VocabularySpec, *, from_frame: int | None = None) -> int:
        """Chooses this stream's classes from a frame on; frames before it keep theirs, none is dropped for it.

        What was chosen before for that frame or later ones is forgotten. The names are encoded here, while frames flow
        on. Until the first call, a frame has the vocabulary that the segmenter has when the frame is read.

        Args:
            spec: as `Segmenter.set_vocabulary` takes it.
            from_frame: number of the frame; None for the next one to be read.

        Returns:
            Number of the first frame with the new classes.

        Raises:
            PcasegError: as `Segmenter.prepare`, or the frame was read already.
        """
        with self._use() as steps:
            return self._pipeline.plan.change(steps.vocabularies.prepare(spec), from_frame)

    def __next__(self) -> StreamItem:
        try:
            entry = self._pipeline.take()
        except BaseException:  # of the source, or Ctrl-C
            self.close()
            raise
        if entry is None:
            self.close()
            raise StopIteration
        dropped, self._last = entry.index - self._last - 1, entry.index
        self._dropped += dropped
        return StreamItem(
            index=entry.index,
            timestamp=entry.frame.timestamp,
            tag=entry.frame.tag,
            dropped=dropped,
            latency_ms=(time.perf_counter() - entry.read_s) * 1e3,
            result=entry.result,
            error=entry.error,
        )

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the threads, and closes a source that has `close`; frames under way are lost. Twice does nothing.

        A source that is asked for a frame then is waited for `READER_PATIENCE_S` at most, and closed when it answers.
        """
        self._end()


class _Plan:
    """Vocabularies by frame number; numbers frames as they are read."""

    def __init__(self, in_use: Callable[[], Vocabulary | None]) -> None:
        self._in_use, self._lock = in_use, threading.Lock()
        self._next = 0
        self._changes: list[tuple[int, Vocabulary]] = []

    def change(self, vocabulary: Vocabulary, from_frame: int | None) -> int:
        with self._lock:
            start = self._next if from_frame is None else from_frame
            if type(start) is not int or start < self._next:
                raise PcasegError(
                    f"from_frame={from_frame!r}: the next frame to be read is {self._next}; give it or a later one"
                )
            self._changes = [change for change in self._changes if change[0] < start] + [(start, vocabulary)]
            return start

    def number(self) -> tuple[int, Vocabulary]:
        """Number of the frame just read, and its vocabulary."""
        with self._lock:
            index, self._next = self._next, self._next + 1
            begun = [change for change in self._changes if change[0] <= index]
            if len(begun) > 1:
                self._changes = self._changes[len(begun) - 1 :]
            vocabulary = begun[-1][1] if begun else self._in_use()
        if vocabulary is None:
            raise VocabularyError("no vocabulary: call set_vocabulary with class names before frames flow")
        return index, vocabulary


class _Intake(Generic[_Item]):
    """One place between source and pipeline; a writer waits until it is free, or in `latest` replaces what is there."""

    def __init__(self, mode: StreamMode) -> None:
        self._mode, self._changed = mode, threading.Condition()
        self._held: list[_Item] = []
        self._closed = False

    def put(self, item: _Item, *, last: bool = False) -> None:
        """Hands over an item; the last one replaces none."""
        with self._changed:
            self._changed.wait_for(lambda: not self._held or self._closed or (self._mode == "latest" and not last))
            self._held = [item]
            self._changed.notify_all()

    def take(self) -> _Item | None:
        """The item, waited for; None once closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._held or self._closed)
            item = None if self._closed else self._held.pop()
            self._changed.notify_all()
            return item

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()


class _Pipeline:
    """The threads; they hold no reference to the `Stream`, so that an abandoned one is noticed."""

    def __init__(
        self,
        source: Iterator[Any],
        use: Callable[[], AbstractContextManager[Steps]],
        in_use: Callable[[], Vocabulary | None],
        smoother: Smoother | None,
        *,
        mode: StreamMode,
        queue: int,
    ) -> None:
        self.plan = _Plan(in_use)
        self._source = source
        self._use, self._smoother = use, smoother
        self._stopped = threading.Event()
        self._intake: _Intake[_Entry | BaseException | None] = _Intake(mode)
        self._room = threading.Semaphore(queue)
        self._prepared, self._run, self._done = SimpleQueue[Any](), SimpleQueue[Any](), SimpleQueue[Any]()
        self._starting = threading.Lock()
        self._started = self._finished = False
        self._reader = threading.Thread(target=self._read, name="pcaseg-read", daemon=True)
        self._workers = [
            threading.Thread(target=target, args=arguments, name=f"pcaseg-{name}", daemon=True)
            for name, target, arguments in (
                ("prepare", self._admit, ()),
                ("network", self._pass_on, (self._prepared, self._run, self._network)),
                ("labels", self._pass_on, (self._run, self._done, self._label)),
            )
        ]

    def take(self) -> _Entry | None:
        """The next frame that is done; None behind the last.

        Raises:
            BaseException: of the source.
        """
        self._start()
        if self._finished:
            return None
        found = self._done.get()
        if isinstance(found, _Entry):
            self._room.release()
            return found
        self._finished = True
        if found is not None:
            raise found
        return None

    def stop(self) -> None:
        """Ends all threads."""
        with self._starting:
            self._stopped.set()
            self._finished, started = True, self._started
        self._intake.close()
        self._room.release()
        if not started:
            _close(self._source)
            return
        me = threading.current_thread()  # a thread of these where the garbage collector found the stream in it
        for worker in self._workers:
            if worker is not me:
                worker.join()
        if self._reader is not me:
            self._reader.join(READER_PATIENCE_S)

    def _start(self) -> None:
        with self._starting:
            if not self._started and not self._stopped.is_set():
                self._started = True
                for thread in (self._reader, *self._workers):
                    thread.start()

    def _read(self) -> None:
        """Thread: from the source to the intake, and behind the last frame None or what the source raised."""
        end: BaseException | None = None
        try:
            for given in self._source:
                if self._stopped.is_set():
                    break
                index, vocabulary = self.plan.number()
                self._intake.put(_Entry(index, as_frame(given), vocabulary))
                del given
        except BaseException as error:
            end = error
        _close(self._source)
        self._intake.put(end, last=True)

    def _admit(self) -> None:
        """Thread: from the intake, when there is room, to the network."""
        while True:
            self._room.acquire()
            entry = None if self._stopped.is_set() else self._intake.take()
            if isinstance(entry, _Entry):
                self._work(entry, self._prepare)
            self._prepared.put(entry)
            if not isinstance(entry, _Entry):
                return

    def _pass_on(
        self, inbox: SimpleQueue[Any], outbox: SimpleQueue[Any], step: Callable[[Steps, _Entry], None]
    ) -> None:
        """Thread: one step of each frame that comes, until what is no frame comes."""
        while True:
            entry = inbox.get()
            if isinstance(entry, _Entry):
                self._work(entry, step)
            outbox.put(entry)
            if not isinstance(entry, _Entry):
                return

    def _work(self, entry: _Entry, step: Callable[[Steps, _Entry], None]) -> None:
        """One step of a frame, unless it failed before or the stream ends."""
        if entry.error is not None or self._stopped.is_set():
            return

        def attempt() -> None:
            with self._use() as steps:
                step(steps, entry)

        entry.error = raised_by(attempt)
        if entry.error is not None or entry.result is not None:
            entry.job = Job(None, entry.vocabulary)  # its arrays live on in the result alone

    def _prepare(self, steps: Steps, entry: _Entry) -> None:
        if callable(entry.job.image):
            entry.job.image = entry.job.image()
        steps.read(entry.job)
        steps.prepare(entry.job)

    def _network(self, steps: Steps, entry: _Entry) -> None:
        steps.network([entry.job])

    def _label(self, steps: Steps, entry: _Entry) -> None:
        entry.result = steps.label(entry.job, self._smoother)


def _close(source: Iterator[Any]) -> None:
    """Closes a source that can be, such as a generator; what a broken one says then was said before."""
    with suppress(Exception):
        getattr(source, "close", lambda: None)()


def as_frame(given: Any) -> Frame:
    """A frame as a source gave it: itself, an image, or a pair of a timestamp and an image."""
    if isinstance(given, Frame):
        return given
    if isinstance(given, tuple) and len(given) == 2:
        return Frame(given[1], given[0])
    return Frame(given)
