"""Standard streams that are closed or full: the work goes on, and what was lost is said."""

from __future__ import annotations

import io
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO


class GuardedStream:
    """A text stream that keeps its first failure instead of raising it; what is written afterwards is dropped."""

    def __init__(self, stream: TextIO, *, pipes: bool) -> None:
        """Wraps a stream.

        Args:
            stream: to write to.
            pipes: whether to raise where the reader at the end of a pipe has gone, which ends a command.
        """
        self._stream, self._pipes = stream, pipes
        self.failure: OSError | None = None

    def write(self, text: str) -> int:
        """Writes, or drops, `text`."""
        if self.failure is None:
            with self._kept():
                self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flushes what was written."""
        if self.failure is None:
            with self._kept():
                self._stream.flush()

    @contextmanager
    def _kept(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if self._pipes and isinstance(error, BrokenPipeError):
                raise
            self.failure = error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class GuardedOutput:
    """Standard output and standard error while a command runs."""

    def __init__(self, out: GuardedStream, err: GuardedStream) -> None:
        self._out, self._err = out, err

    def lost(self) -> bool:
        """Says whether something of standard output could not be written, and then why."""
        with suppress(BrokenPipeError):
            self._out.flush()
        if self._out.failure is not None:
            reason = self._out.failure.strerror or self._out.failure
            self._err.write(
                f"error: standard output: cannot be written ({reason}); what was written to files is whole\n"
            )
        self._err.flush()
        return self._out.failure is not None


@contextmanager
def guarded_output() -> Iterator[GuardedOutput]:
    """Guards `sys.stdout` and `sys.stderr` within the block; closed ones lead nowhere there."""
    former = sys.stdout, sys.stderr
    if None in (sys.__stdin__, sys.__stdout__, sys.__stderr__):
        _occupy_closed()
    guarded = GuardedStream(_opened(sys.stdout), pipes=True), GuardedStream(_opened(sys.stderr), pipes=False)
    if None in former or threading.current_thread() is threading.main_thread():  # others share the streams
        sys.stdout, sys.stderr = guarded
    try:
        yield GuardedOutput(*guarded)
    finally:
        sys.stdout, sys.stderr = former
        for stream in guarded:
            if stream.failure is not None:
                drop_rest(stream)


def drop_rest(stream: TextIO | GuardedStream) -> None:
    """Leads a broken stream nowhere, so that Python's last flush of it cannot fail."""
    with suppress(OSError, ValueError):  # a stream without a file
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _opened(stream: TextIO | None) -> TextIO:
    if stream is None or stream.closed:
        return open(os.devnull, "w", encoding="utf-8")
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")  # a terminal that lacks a letter is no reason to fail
    return stream


def _occupy_closed() -> None:
    """Opens nothing as the standard files that are closed: else the next file opened would be taken for one."""
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(number)
