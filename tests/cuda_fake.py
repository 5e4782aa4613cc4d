"""A CUDA driver of NumPy: nothing that is queued runs before somebody waits for it, and every misuse is an error.

Memory is poisoned when it is handed out, so that what nobody copied shows; a host buffer that is overwritten before its
copy has run sends the new bytes, as it would on a GPU.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np

from pcaseg.errors import EngineError
from pcaseg.runtime.cuda import Gpu

POISON = 0xA5
GPU = Gpu("NVIDIA Test GPU", "9.0")


class FakeDriver:
    """`pcaseg.runtime.cuda.Driver` on the host."""

    def __init__(self, gpu: Gpu = GPU, *, total: int = 4 << 30) -> None:
        self.gpu, self.total = gpu, total
        self.blocks: dict[int, np.ndarray] = {}
        self.pinned: dict[int, np.ndarray] = {}
        self.queues: dict[int, list[Callable[[], None]]] = {0: []}
        self.events: dict[int, float | None] = {}
        self.graphs: dict[int, list[Callable[[], None]]] = {}
        self.captures: dict[int, list[Callable[[], None]]] = {}
        self.refuse_capture = False
        self.clock = 0.0
        self.calls: list[str] = []
        self._next, self._lock = 1 << 20, threading.Lock()

    def activate(self) -> None:
        self.calls.append("activate")

    def memory(self) -> tuple[int, int]:
        return self.total - sum(block.nbytes for block in self.blocks.values()), self.total

    def allocate(self, size: int) -> int:
        if size > self.memory()[0]:
            raise EngineError(f"{size} bytes are needed and {self.memory()[0]} are free")
        address = self._handle(size)
        self.blocks[address] = np.full(size, POISON, np.uint8)
        return address

    def free(self, address: int) -> None:
        self.blocks.pop(address).fill(POISON)

    def allocate_host(self, size: int) -> np.ndarray:
        array = np.full(size, POISON, np.uint8)
        self.pinned[array.ctypes.data] = array
        return array

    def free_host(self, array: np.ndarray) -> None:
        self.pinned.pop(array.ctypes.data)

    def copy_in(self, address: int, host: np.ndarray, size: int, stream: int) -> None:
        assert host.ctypes.data in self.pinned, "an asynchronous copy needs pinned memory"
        self._queue(stream, lambda: self.bytes(address, size).__setitem__(slice(None), host[:size]), "copy_in")

    def copy_out(self, host: np.ndarray, address: int, size: int, stream: int) -> None:
        assert host.ctypes.data in self.pinned, "an asynchronous copy needs pinned memory"
        self._queue(stream, lambda: host.__setitem__(slice(size), self.bytes(address, size)), "copy_out")

    def copy(self, to: int, address: int, size: int, stream: int) -> None:
        self._queue(stream, lambda: self.bytes(to, size).__setitem__(slice(None), self.bytes(address, size)), "copy")

    def create_stream(self) -> int:
        stream = self._handle(1)
        self.queues[stream] = []
        return stream

    def destroy_stream(self, stream: int) -> None:
        assert not self.queues.pop(stream), "a stream ends with work in it"

    def synchronize(self, stream: int) -> None:
        assert stream not in self.captures, "waiting is not allowed while a stream is captured"
        queue = self.queues[stream]
        while queue:
            queue.pop(0)()

    def create_event(self) -> int:
        event = self._handle(1)
        self.events[event] = None
        return event

    def destroy_event(self, event: int) -> None:
        self.events.pop(event)

    def record(self, event: int, stream: int) -> None:
        self._queue(stream, lambda: self._happens(event), "record")

    def wait(self, stream: int, event: int) -> None:
        self._queue(stream, lambda: None, "wait")

    def elapsed_ms(self, start: int, end: int) -> float:
        first, last = self.events[start], self.events[end]
        assert first is not None and last is not None, "an event has not happened yet"
        return last - first

    def begin_capture(self, stream: int) -> None:
        assert not self.queues[stream], "capture begins with work queued"
        self.captures[stream] = []

    def end_capture(self, stream: int) -> int:
        captured = self.captures.pop(stream)
        if self.refuse_capture:
            raise EngineError("cuStreamEndCapture: the CUDA driver answers CUDA_ERROR_STREAM_CAPTURE_INVALIDATED")
        graph = self._handle(1)
        self.graphs[graph] = captured
        return graph

    def launch(self, graph: int, stream: int) -> None:
        for work in self.graphs[graph]:
            self._queue(stream, work, "launch")

    def destroy_graph(self, graph: int) -> None:
        self.graphs.pop(graph)

    def bytes(self, address: int, size: int) -> np.ndarray:
        """The memory at an address, which must be the beginning of a block that is not freed."""
        block = self.blocks[address]
        assert size <= block.nbytes, "a copy beyond the memory's end"
        return block[:size]

    def work(self, stream: int, run: Callable[[], None]) -> None:
        """What a library queues."""
        self._queue(stream, run, "work")

    def idle(self) -> bool:
        """Whether everything has been given back."""
        return not (self.blocks or self.pinned or len(self.queues) > 1 or self.graphs or self.events)

    def _queue(self, stream: int, run: Callable[[], None], name: str) -> None:
        self.calls.append(name)
        self.captures.get(stream, self.queues[stream]).append(run)

    def _happens(self, event: int) -> None:
        if event in self.events:
            self.clock += 1.0
            self.events[event] = self.clock

    def _handle(self, size: int) -> int:
        with self._lock:
            self._next += size + 256
            return self._next
