"""The CUDA driver behind one small interface, so that all above it can be tested without a GPU.

The implementation calls the driver API through NVIDIA's `cuda-python`; nothing of the CUDA toolkit is needed, and any
driver that TensorRT accepts will do. Handles of streams, events and graphs are integers, as TensorRT takes them.
"""

from __future__ import annotations

import ctypes
import importlib
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from pcaseg.errors import EngineError, MissingDependencyError, PcasegError, install_hint

MIB = 1 << 20


@dataclass(frozen=True)
class Gpu:
    """A GPU: its name and compute capability, such as `9.0`."""

    name: str
    compute_capability: str

    @property
    def arch(self) -> str:
        """Target that kernels are compiled for, such as `sm_90`."""
        return "sm_" + self.compute_capability.replace(".", "")


class Driver(Protocol):
    """One GPU. All sizes are in bytes; every call raises `EngineError` where the driver refuses it."""

    @property
    def gpu(self) -> Gpu:
        """The GPU itself."""
        ...

    def activate(self) -> None:
        """Makes the GPU's context the calling thread's current one."""
        ...

    def memory(self) -> tuple[int, int]:
        """Free and total device memory."""
        ...

    def allocate(self, size: int) -> int:
        """Device memory; its address."""
        ...

    def free(self, address: int) -> None:
        """Gives device memory back."""
        ...

    def allocate_host(self, size: int) -> np.ndarray:
        """Pinned host memory as uint8 `(size,)`; valid until `free_host`."""
        ...

    def free_host(self, array: np.ndarray) -> None:
        """Gives pinned memory back; the array must not be touched any more."""
        ...

    def copy_in(self, address: int, host: np.ndarray, size: int, stream: int) -> None:
        """Queues a copy from pinned memory to the device."""
        ...

    def copy_out(self, host: np.ndarray, address: int, size: int, stream: int) -> None:
        """Queues a copy from the device to pinned memory."""
        ...

    def copy(self, to: int, address: int, size: int, stream: int) -> None:
        """Queues a copy within the device."""
        ...

    def create_stream(self) -> int:
        """A stream that does not wait for the default one."""
        ...

    def destroy_stream(self, stream: int) -> None:
        """Ends a stream."""
        ...

    def synchronize(self, stream: int) -> None:
        """Waits until everything queued is done."""
        ...

    def create_event(self) -> int:
        """An event that takes the time."""
        ...

    def destroy_event(self, event: int) -> None:
        """Ends an event."""
        ...

    def record(self, event: int, stream: int) -> None:
        """Queues an event."""
        ...

    def wait(self, stream: int, event: int) -> None:
        """Lets a stream wait for an event."""
        ...

    def elapsed_ms(self, start: int, end: int) -> float:
        """Milliseconds between two events that have happened."""
        ...

    def begin_capture(self, stream: int) -> None:
        """Records, instead of running it, all that the calling thread queues from here on."""
        ...

    def end_capture(self, stream: int) -> int:
        """A graph of what was recorded, ready to launch."""
        ...

    def launch(self, graph: int, stream: int) -> None:
        """Queues a graph."""
        ...

    def destroy_graph(self, graph: int) -> None:
        """Ends a graph."""
        ...


def open_driver(device: str | None) -> CudaDriver:
    """The driver of a device `cuda` or `cuda:N`; None for `cuda:0`.

    Raises:
        PcasegError: an unknown device.
        MissingDependencyError: cuda-python is not installed.
        EngineError: no driver, or no such GPU.
    """
    kind, colon, index = (device or "cuda").partition(":")
    if kind != "cuda" or (colon and not index.isdecimal()):
        raise PcasegError(f"device={device!r}: TensorRT runs on cuda or cuda:N")
    return CudaDriver(int(index or "0"))


class CudaDriver:
    """`Driver` over `cuda.bindings.driver`, in the primary context of one GPU, which PyTorch and others share."""

    def __init__(self, index: int) -> None:
        """Takes hold of a GPU.

        Args:
            index: its number.

        Raises:
            MissingDependencyError: cuda-python is not installed.
            EngineError: no driver, or no such GPU.
        """
        try:
            self._cu: Any = importlib.import_module("cuda.bindings.driver")
        except ImportError as error:
            raise MissingDependencyError(f"this needs the package cuda-python; {install_hint('tensorrt')}") from error
        try:
            self._call("cuInit", 0)
        except (RuntimeError, OSError) as error:  # the bindings raise where libcuda itself is missing
            raise EngineError(
                f"no NVIDIA driver can be used here ({error}); install it, or take a backend that needs no GPU"
            ) from error
        count = self._call("cuDeviceGetCount")
        if index >= count:
            raise EngineError(f"device='cuda:{index}': there are {count} GPUs here; choose a lower number")
        device = self._call("cuDeviceGet", index)
        self._context = self._call("cuDevicePrimaryCtxRetain", device)
        self.activate()
        name = self._call("cuDeviceGetName", 128, device)
        attribute = self._cu.CUdevice_attribute
        major, minor = (
            self._call(
                "cuDeviceGetAttribute", getattr(attribute, f"CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_{part}"), device
            )
            for part in ("MAJOR", "MINOR")
        )
        self._gpu = Gpu(name.split(b"\0")[0].decode(), f"{major}.{minor}")

    @property
    def gpu(self) -> Gpu:
        """The GPU itself."""
        return self._gpu

    def activate(self) -> None:
        """Makes the GPU's context the calling thread's current one."""
        self._call("cuCtxSetCurrent", self._context)

    def memory(self) -> tuple[int, int]:
        """Free and total device memory."""
        free, total = self._call("cuMemGetInfo")
        return int(free), int(total)

    def allocate(self, size: int) -> int:
        """Device memory; its address."""
        try:
            return int(self._call("cuMemAlloc", size))
        except EngineError as error:
            free = self.memory()[0]
            raise EngineError(
                f"{size // MIB} MiB of device memory are needed and {free // MIB} MiB are free ({error}); lower the "
                "classes, the images per call or the number of contexts, or close what else uses the GPU"
            ) from error

    def free(self, address: int) -> None:
        """Gives device memory back."""
        self._call("cuMemFree", address)

    def allocate_host(self, size: int) -> np.ndarray:
        """Pinned host memory as uint8 `(size,)`; valid until `free_host`."""
        address = int(self._call("cuMemHostAlloc", size, 0))
        return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))

    def free_host(self, array: np.ndarray) -> None:
        """Gives pinned memory back; the array must not be touched any more."""
        self._call("cuMemFreeHost", array.ctypes.data)

    def copy_in(self, address: int, host: np.ndarray, size: int, stream: int) -> None:
        """Queues a copy from pinned memory to the device."""
        self._call("cuMemcpyHtoDAsync", address, host.ctypes.data, size, stream)

    def copy_out(self, host: np.ndarray, address: int, size: int, stream: int) -> None:
        """Queues a copy from the device to pinned memory."""
        self._call("cuMemcpyDtoHAsync", host.ctypes.data, address, size, stream)

    def copy(self, to: int, address: int, size: int, stream: int) -> None:
        """Queues a copy within the device."""
        self._call("cuMemcpyDtoDAsync", to, address, size, stream)

    def create_stream(self) -> int:
        """A stream that does not wait for the default one."""
        return int(self._call("cuStreamCreate", int(self._cu.CUstream_flags.CU_STREAM_NON_BLOCKING)))

    def destroy_stream(self, stream: int) -> None:
        """Ends a stream."""
        self._call("cuStreamDestroy", stream)

    def synchronize(self, stream: int) -> None:
        """Waits until everything queued is done."""
        self._call("cuStreamSynchronize", stream)

    def create_event(self) -> int:
        """An event that takes the time."""
        return int(self._call("cuEventCreate", 0))

    def destroy_event(self, event: int) -> None:
        """Ends an event."""
        self._call("cuEventDestroy", event)

    def record(self, event: int, stream: int) -> None:
        """Queues an event."""
        self._call("cuEventRecord", event, stream)

    def wait(self, stream: int, event: int) -> None:
        """Lets a stream wait for an event."""
        self._call("cuStreamWaitEvent", stream, event, 0)

    def elapsed_ms(self, start: int, end: int) -> float:
        """Milliseconds between two events that have happened."""
        return float(self._call("cuEventElapsedTime", start, end))

    def begin_capture(self, stream: int) -> None:
        """Records, instead of running it, all that the calling thread queues from here on."""
        mode = self._cu.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        self._call("cuStreamBeginCapture", stream, mode)

    def end_capture(self, stream: int) -> int:
        """A graph of what was recorded, ready to launch."""
        graph = self._call("cuStreamEndCapture", stream)
        try:
            return int(self._call("cuGraphInstantiate", graph, 0))
        finally:
            self._call("cuGraphDestroy", graph)

    def launch(self, graph: int, stream: int) -> None:
        """Queues a graph."""
        self._call("cuGraphLaunch", graph, stream)

    def destroy_graph(self, graph: int) -> None:
        """Ends a graph."""
        self._call("cuGraphExecDestroy", graph)

    def _call(self, name: str, *arguments: Any) -> Any:
        """Calls the driver; its results, without the code."""
        code, *results = getattr(self._cu, name)(*arguments)
        if code != self._cu.CUresult.CUDA_SUCCESS:
            raise EngineError(f"{name}: the CUDA driver answers {code.name}")
        return results[0] if len(results) == 1 else tuple(results)


class Staging:
    """One tensor's memory: pinned on the host, and on the device. Grows when it must and never shrinks."""

    def __init__(self, driver: Driver) -> None:
        self._driver, self.size = driver, 0
        self.host = np.empty(0, np.uint8)
        self.address = 0

    def reserve(self, size: int) -> None:
        """Makes room for `size` bytes; where there is too little, addresses change and all that was inside is lost."""
        if size <= self.size:
            return
        room = max(size, 2 * self.size)
        self.release()
        self.address = self._driver.allocate(room)
        try:
            self.host = self._driver.allocate_host(room)
        except EngineError:
            self._driver.free(self.address)
            raise
        self.size = room

    def release(self) -> None:
        """Gives everything back."""
        if self.size:
            host, self.host, self.size = self.host, np.empty(0, np.uint8), 0
            self._driver.free_host(host)
            self._driver.free(self.address)


@dataclass(frozen=True)
class DeviceArray:
    """An array on the GPU, contiguous; `torch.as_tensor` and CuPy take it without a copy.

    Attributes:
        address: of its first number.
        shape: its lengths.
        dtype: of its numbers.
        owner: what keeps the memory.
    """

    address: int
    shape: tuple[int, ...]
    dtype: np.dtype
    owner: object

    @property
    def __cuda_array_interface__(self) -> dict[str, object]:
        return {
            "version": 3,
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self.address, False),
            "strides": None,
            "stream": None,
        }


def foreign_array(array: Any, name: str) -> tuple[DeviceArray, int | None]:
    """An array of another library on the GPU, and the stream that makes it, if it names one.

    Raises:
        PcasegError: it has no `__cuda_array_interface__`, or is not contiguous.
    """
    interface = getattr(array, "__cuda_array_interface__", None)
    if interface is None:
        raise PcasegError(f"{name}: is not on the GPU; pass an array with __cuda_array_interface__, or use logits()")
    shape, dtype = tuple(interface["shape"]), np.dtype(interface["typestr"])
    strides = interface.get("strides")
    if strides is not None and tuple(strides) != _contiguous(shape, dtype.itemsize):
        raise PcasegError(f"{name}: is not contiguous; call .contiguous() on it first")
    return DeviceArray(int(interface["data"][0]), shape, dtype, array), interface.get("stream")


def fetch_array(driver: Driver, array: Any, name: str) -> np.ndarray:
    """A copy, in host memory, of another library's array on the GPU, behind the work that makes it.

    Raises:
        PcasegError: as `foreign_array`.
    """
    source, maker = foreign_array(array, name)
    size = int(np.prod(source.shape, dtype=np.int64)) * source.dtype.itemsize
    if size == 0:
        return np.empty(source.shape, source.dtype)
    staging, stream, event = Staging(driver), driver.create_stream(), driver.create_event()
    try:
        staging.reserve(size)
        driver.record(event, maker or 0)
        driver.wait(stream, event)
        driver.copy_out(staging.host, source.address, size, stream)
        driver.synchronize(stream)
        found: np.ndarray = staging.host[:size].view(source.dtype).reshape(source.shape).copy()
        return found
    finally:
        driver.destroy_event(event)
        driver.destroy_stream(stream)
        staging.release()


def _contiguous(shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    strides = [itemsize]
    for length in reversed(shape[1:]):
        strides.insert(0, strides[0] * length)
    return tuple(strides[: len(shape)])
