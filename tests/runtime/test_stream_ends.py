"""Ends of streams: whatever happens, no thread is left and the source is closed."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stream_support import picture, stream_threads, threads_end

from pcaseg.runtime import Segmenter, Stream

pytestmark = pytest.mark.usefixtures("no_thread_is_left")


class Source:
    """An endless source that knows whether it was closed."""

    def __init__(self) -> None:
        self.closed = threading.Event()

    def __iter__(self) -> Iterator[np.ndarray]:
        try:
            index = 0
            while True:
                yield picture(index)
                index += 1
        finally:
            self.closed.set()


@pytest.mark.parametrize("taken", [0, 1, 5])
@pytest.mark.parametrize("mode", ["every", "latest"])
@pytest.mark.parametrize("how", ["with", "close", "abandon", "raise", "segmenter"])
def test_all_threads_end_and_the_source_is_closed(segmenter: Segmenter, how: str, mode: Any, taken: int) -> None:
    source = Source()

    def consume(stream: Stream) -> None:
        for _ in range(taken):
            next(stream)
        assert stream_threads() == (4 if taken else 0)
        if how == "raise":
            raise LookupError("of the consumer")

    stream = segmenter.stream(source, mode=mode)
    if how == "with":
        with stream:
            consume(stream)
    elif how == "raise":
        with pytest.raises(LookupError):
            for _ in (1,):
                consume(stream)
    else:
        consume(stream)
    if how == "close":
        stream.close()
        stream.close()
    elif how == "segmenter":
        segmenter.close()
    if how in ("close", "with", "segmenter"):
        assert stream_threads() == 0
        assert list(stream) == []
    del stream
    assert stream_threads() == 0
    assert source.closed.is_set() or not taken


def test_an_exception_in_a_loop_without_with(segmenter: Segmenter) -> None:
    source = Source()
    with pytest.raises(ZeroDivisionError):
        for item in segmenter.stream(source):
            _ = 1 / (3 - item.index)
    gc.collect()  # the exception's traceback holds the loop, and with it the iterator
    assert threads_end(threading.active_count() - stream_threads())
    assert source.closed.wait(5)


def test_closing_while_the_consumer_waits(segmenter: Segmenter) -> None:
    go = threading.Event()

    def stuck() -> Iterator[np.ndarray]:
        yield picture(0)
        go.wait(20)

    stream = segmenter.stream(stuck())
    assert next(stream).index == 0
    threading.Timer(0.1, go.set).start()
    threading.Timer(0.05, stream.close).start()
    assert list(stream) == []


def test_a_source_that_never_answers_does_not_hold_the_end_up(
    segmenter: Segmenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pcaseg.runtime.stream.READER_PATIENCE_S", 0.05)
    go = threading.Event()

    def stuck() -> Iterator[np.ndarray]:
        yield picture(0)
        go.wait(20)
        yield picture(1)

    with segmenter.stream(stuck()) as stream:
        assert next(stream).index == 0
    assert stream_threads() == 1
    go.set()


CTRL_C = """
import sys, threading, time
sys.path.insert(0, sys.argv[1])
from conftest import FakeBackend
import numpy as np
from pcaseg.runtime import Segmenter

def camera():
    try:
        while True:
            time.sleep(float(sys.argv[2]))
            yield np.zeros((8, 8, 3), np.uint8)
    finally:
        print("released", flush=True)

segmenter = Segmenter(FakeBackend())
print("ready", flush=True)
try:
    for item in segmenter.stream(camera(), ["cat"]):
        print("item", flush=True)
        time.sleep(float(sys.argv[3]))
except KeyboardInterrupt:
    print("interrupted", threading.active_count(), flush=True)
"""


@pytest.mark.parametrize(("source_s", "consumer_s"), [("0.01", "0.01"), ("0.2", "0")], ids=["anywhere", "waiting"])
def test_ctrl_c(source_s: str, consumer_s: str) -> None:
    command = [sys.executable, "-c", CTRL_C, str(Path(__file__).parent), source_s, consumer_s]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        assert process.stdout.readline() == "item\n"
        time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=30)
    assert process.returncode == 0 and errors == ""
    assert "interrupted" in output and output.count("released") == 1
