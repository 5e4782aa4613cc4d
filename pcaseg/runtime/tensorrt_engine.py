"""Runs one TensorRT engine: profiles chosen by shape, memory kept, a CUDA graph replayed while shapes stay the same.

A change of shapes changes a context's inner state, which graphs captured before may read. So a lane keeps one graph,
and drops it when shapes or addresses change; the next call then runs plainly, which settles the state, and the one
after it is captured.
"""

from __future__ import annotations

import queue
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from pcaseg.errors import EngineError
from pcaseg.runtime.cuda import MIB, DeviceArray, Driver, Staging, foreign_array
from pcaseg.runtime.engines import Shape, ShapeProfile
from pcaseg.runtime.tensorrt_api import device_memory_of, last_error
from pcaseg.runtime.tensorrt_kernels import Kernels

DTYPES = {"FLOAT": "float32", "HALF": "float16", "INT32": "int32", "INT64": "int64", "UINT8": "uint8"}
"""NumPy's name of TensorRT's types that inputs and outputs of a bundle have."""

KEPT_INPUTS = ("text",)
"""Inputs that stay the same over many calls: they are compared with what is on the GPU before they are sent again."""

Array = np.ndarray | DeviceArray


class Engine:
    """A deserialised engine with `contexts` lanes, each of which runs one call at a time; calls beyond that wait."""

    def __init__(
        self,
        engine: Any,
        profiles: tuple[ShapeProfile, ...],
        *,
        driver: Driver,
        log: Any,
        source: str,
        contexts: int,
        kernels: Kernels | None = None,
    ) -> None:
        """Prepares to run.

        Args:
            engine: of `deserialize`.
            profiles: of the sidecar, in the engine's order.
            driver: of the GPU.
            log: TensorRT's.
            source: what messages call the engine.
            contexts: calls that run at once.
            kernels: those compiled just in time, where the library does so.

        Raises:
            EngineError: the engine's tensors or profiles are not what the sidecar says.
        """
        self.engine, self.profiles, self.driver, self.log, self.source = engine, profiles, driver, log, source
        self.kernels = kernels
        names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        self.inputs = [name for name in names if engine.get_tensor_mode(name).name == "INPUT"]
        self.outputs = [name for name in names if name not in self.inputs]
        self.dtypes = {name: self._dtype(name) for name in names}
        if set(self.inputs) != set(profiles[0].shapes) or engine.num_optimization_profiles != len(profiles):
            raise EngineError(
                f"{source}: takes {', '.join(self.inputs)} in {engine.num_optimization_profiles} profiles, which is "
                "not what its sidecar says; build it anew with pcaseg build"
            )
        self._lanes: queue.LifoQueue[Lane] = queue.LifoQueue()
        self._all = [Lane(self) for _ in range(contexts)]
        for lane in self._all:
            self._lanes.put(lane)

    def choose(self, shapes: Mapping[str, Shape]) -> int | None:
        """The profile for these shapes: of those that cover them the one with the smallest largest shape."""
        fitting = [i for i, profile in enumerate(self.profiles) if profile.covers(shapes)]
        return min(fitting, key=lambda i: self.profiles[i].largest(), default=None)

    @contextmanager
    def lane(self) -> Iterator[Lane]:
        """A lane that nobody else uses meanwhile."""
        lane = self._lanes.get()
        try:
            yield lane
        except BaseException:
            lane.settle()  # copies may still be under way from and to its memory
            raise
        finally:
            self._lanes.put(lane)

    def close(self) -> None:
        """Gives back streams, memory and graphs; no call may be running."""
        for lane in self._all:
            lane.close()

    def _dtype(self, name: str) -> np.dtype:
        kind = self.engine.get_tensor_dtype(name).name
        if kind not in DTYPES:
            raise EngineError(f"{self.source}: {name} is {kind}; build the engine from a bundle of pcaseg")
        return np.dtype(DTYPES[kind])


@dataclass(frozen=True)
class Binding:
    """Settings of a lane's context."""

    profile: int
    inputs: dict[str, Shape]
    outputs: dict[str, Shape]


class Lane:
    """Resources of one call: a stream, a context for each profile, memory of each tensor, CUDA graphs."""

    def __init__(self, parent: Engine) -> None:
        self.parent, self.driver = parent, parent.driver
        self.stream = self.driver.create_stream()
        self.staging = {name: Staging(self.driver) for name in (*parent.inputs, *parent.outputs)}
        self.contexts: dict[int, Any] = {}
        self.graph: int | None = None
        self.graph_refusal: str | None = None
        """Reason why calls are launched one by one, where TensorRT's work cannot be captured."""
        self._bound: Binding | None = None
        self._settled = False  # whether these shapes have run plainly
        self._uploaded: dict[str, Shape] = {}
        self._closed = False

    def run(self, inputs: Mapping[str, Array]) -> dict[str, np.ndarray]:
        """Runs the engine; outputs are copied to the host.

        Raises:
            EngineError: no profile covers the shapes, or TensorRT or the driver refuses.
        """
        shapes = self.enqueue(inputs)
        for name, shape in shapes.items():
            size = self._bytes(name, shape)
            self.driver.copy_out(self.staging[name].host, self.staging[name].address, size, self.stream)
        self.driver.synchronize(self.stream)
        return {
            name: self.staging[name]
            .host[: self._bytes(name, shape)]
            .view(self.parent.dtypes[name])
            .reshape(shape)
            .copy()
            for name, shape in shapes.items()
        }

    def run_device(self, inputs: Mapping[str, Array]) -> dict[str, DeviceArray]:
        """Runs as `run` does; outputs stay on the GPU, in this lane's own memory, until its next call."""
        shapes = self.enqueue(inputs)
        self.driver.synchronize(self.stream)
        return {
            name: DeviceArray(self.staging[name].address, shape, self.parent.dtypes[name], self)
            for name, shape in shapes.items()
        }

    def enqueue(self, inputs: Mapping[str, Array]) -> dict[str, Shape]:
        """Queues copies and work on the lane's stream; gives the outputs' shapes."""
        self.driver.activate()
        shapes = {name: tuple(inputs[name].shape) for name in self.parent.inputs}
        profile = self.parent.choose(shapes)
        if profile is None:
            raise EngineError(f"{self.parent.source}: no profile covers {shapes}: {self._profiles()}")
        outputs = self._bind(profile, shapes)
        for name in self.parent.inputs:
            self._upload(name, inputs[name])
        self._launch(profile)
        return outputs

    def launch_again(self) -> None:
        """Queues the work of the last call anew, on its inputs, which are on the GPU: for timing."""
        assert self._bound is not None  # enqueue has run before
        self._launch(self._bound.profile)

    def context(self, profile: int) -> Any:
        """The execution context of a profile, made at its first use."""
        if profile not in self.contexts:
            kernels, engine = self.parent.kernels, self.parent.engine
            context = engine.create_execution_context() if kernels is None else kernels.new_context()
            if context is None:
                needed, free = device_memory_of(self.parent.engine), self.driver.memory()[0]
                raise EngineError(
                    f"{self.parent.source}: a context needs {needed // MIB} MiB of device memory and {free // MIB} MiB "
                    f"are free ({last_error(self.parent.log)}); build with a smaller --profile, or "
                    "use fewer contexts"
                )
            self._check(context.set_optimization_profile_async(profile, self.stream), "choosing the profile")
            self.driver.synchronize(self.stream)
            self.contexts[profile] = context
        return self.contexts[profile]

    def close(self) -> None:
        """Gives everything back, once."""
        if self._closed:
            return
        self._closed = True
        self.driver.activate()
        self.driver.synchronize(self.stream)
        self._forget_graph()
        self.contexts.clear()
        for staging in self.staging.values():
            staging.release()
        self.driver.destroy_stream(self.stream)

    def _bind(self, profile: int, shapes: Mapping[str, Shape]) -> dict[str, Shape]:
        """Tells the context shapes and addresses; gives the outputs' shapes."""
        if self._bound is not None and (self._bound.profile, self._bound.inputs) == (profile, shapes):
            return self._bound.outputs
        self._bound = None
        self._forget_graph()
        context = self.context(profile)
        for name, shape in shapes.items():
            self._check(context.set_input_shape(name, shape), f"the shape {shape} of {name}")
        missing = context.infer_shapes()
        if missing:
            raise EngineError(f"{self.parent.source}: the shapes of {', '.join(missing)} are not known; build it anew")
        found = {name: tuple(context.get_tensor_shape(name)) for name in self.parent.outputs}
        for name, shape in (*shapes.items(), *found.items()):
            if self._bytes(name, shape) > self.staging[name].size:
                self._uploaded.pop(name, None)  # what was there is lost
                self.staging[name].reserve(self._bytes(name, shape))
        for name, staging in self.staging.items():
            self._check(context.set_tensor_address(name, staging.address), f"the address of {name}")
        self._bound = Binding(profile, dict(shapes), found)
        return found

    def _upload(self, name: str, array: Array) -> None:
        """Queues a copy to the device, unless the same numbers are there already, as a vocabulary's are."""
        staging, dtype = self.staging[name], self.parent.dtypes[name]
        if not isinstance(array, np.ndarray):
            self._copy_foreign(name, array)
            return
        if not np.can_cast(array.dtype, dtype):  # uint8 frames may go into a float32 input
            raise EngineError(f"{self.parent.source}: {name} is {array.dtype}; give {dtype}")
        shape, size = tuple(array.shape), self._bytes(name, tuple(array.shape))
        host = staging.host[:size].view(dtype).reshape(shape)
        if name in KEPT_INPUTS and self._uploaded.get(name) == shape and np.array_equal(host, array):
            return
        np.copyto(host, array)
        self.driver.copy_in(staging.address, staging.host, size, self.stream)
        self._uploaded[name] = shape

    def _copy_foreign(self, name: str, array: Any) -> None:
        source, stream = foreign_array(array, name)
        if source.dtype != self.parent.dtypes[name]:
            raise EngineError(f"{self.parent.source}: {name} is {source.dtype}; give {self.parent.dtypes[name]}")
        event = self.driver.create_event()  # its maker may still be at work, on the default stream if none is named
        self.driver.record(event, stream or 0)
        self.driver.wait(self.stream, event)
        self.driver.destroy_event(event)
        self.driver.copy(self.staging[name].address, source.address, self._bytes(name, source.shape), self.stream)
        self._uploaded.pop(name, None)

    def _launch(self, profile: int) -> None:
        """Runs shapes plainly the first time, captures a graph the second time, and replays it from then on."""
        if self.graph is None and self._settled and not self.graph_refusal:
            self._capture(profile)
        if self.graph is not None:
            self.driver.launch(self.graph, self.stream)
            return
        self.execute(profile)
        self._settled = True
        if self.parent.kernels is not None:
            self.driver.synchronize(self.stream)
            self.parent.kernels.keep()

    def execute(self, profile: int) -> None:
        """Queues TensorRT's work as it is, without a graph."""
        self._check(self.contexts[profile].execute_async_v3(self.stream), "running")

    def settle(self) -> None:
        """After an error: waits for what is queued, and forgets what may be half done."""
        self._bound = None
        self._uploaded.clear()
        self._forget_graph()

    def _capture(self, profile: int) -> None:
        self.driver.synchronize(self.stream)
        self.driver.begin_capture(self.stream)
        refusal = None
        try:
            self.execute(profile)
        except EngineError as error:
            refusal = error
        try:
            self.graph = self.driver.end_capture(self.stream)
        except EngineError as error:
            refusal = refusal or error
        if refusal is not None:
            self._forget_graph()
            self.graph_refusal = str(refusal)

    def _forget_graph(self) -> None:
        self.driver.synchronize(self.stream)
        self._settled = False
        if self.graph is not None:
            self.driver.destroy_graph(self.graph)
            self.graph = None

    def _bytes(self, name: str, shape: Shape) -> int:
        return int(np.prod(shape, dtype=np.int64)) * self.parent.dtypes[name].itemsize

    def _check(self, done: bool, what: str) -> None:
        if not done:
            reason = last_error(self.parent.log)
            raise EngineError(f"{self.parent.source}: TensorRT refuses {what} ({reason}); build the engine anew")

    def _profiles(self) -> str:
        return "; ".join(profile.describe() for profile in self.parent.profiles)
