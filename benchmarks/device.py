"""GPU services of a benchmark: events, graph replay, memory, energy. On a CPU the plain equivalents.

PyTorch does the timing and counts its own memory; NVML (the package nvidia-ml-py), where it is installed, gives driver,
clocks, the memory of all libraries together, and energy.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from pcaseg.benchmarks.rows import MachineRates
from pcaseg.benchmarks.timing import Timer, perf_timer
from pcaseg.environment import gpu_mib
from pcaseg.errors import PcasegError, first_line

MATMUL_SIDE = 2048
_COPY_MIB = 512


def timer_of(device: str) -> Timer:
    """CUDA events on a GPU, the processor's clock elsewhere."""
    return _event_timer if device == "cuda" else perf_timer


def _event_timer(call: Callable[[], object]) -> float:
    """Milliseconds of a call on the current stream, launches included."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    call()
    end.record()
    end.synchronize()
    return start.elapsed_time(end)


def check_device(device: str) -> None:
    """Refuses a GPU that is not there.

    Raises:
        PcasegError: PyTorch cannot use one; its reason is in the message.
    """
    if device == "cuda":
        try:
            torch.zeros(1, device="cuda")
        except (RuntimeError, AssertionError) as error:
            raise PcasegError(
                f"device='cuda': PyTorch cannot use a GPU here ({first_line(error)}); choose cpu"
            ) from error


def captured(call: Callable[[], object]) -> Callable[[], object]:
    """The replay of a CUDA graph of a call whose tensors stay where they are.

    Raises:
        RuntimeError: something in it cannot be captured.
    """
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay


def energy_of(call: Callable[[], object], device: str, *, calls: int = 20) -> float | None:
    """Joules of one call by NVML's counter; None where there is none."""
    handle = _nvml_handle() if device == "cuda" else None
    if handle is None:
        return None
    nvml, gpu = handle
    try:
        before = nvml.nvmlDeviceGetTotalEnergyConsumption(gpu)
        for _ in range(calls):
            call()
        torch.cuda.synchronize()
        return (nvml.nvmlDeviceGetTotalEnergyConsumption(gpu) - before) / 1e3 / calls
    except nvml.NVMLError:  # older GPUs do not count
        return None


def machine_rates(device: str) -> MachineRates:
    """The best of several products of two float32 matrices, and of several copies beyond the caches."""
    timer = timer_of(device)
    square = torch.ones(MATMUL_SIDE, MATMUL_SIDE, device=device)
    source = torch.ones(_COPY_MIB << 18, device=device)
    target = torch.empty_like(source)
    product_ms = min(timer(lambda: square @ square) for _ in range(8))
    copy_ms = min(timer(lambda: target.copy_(source)) for _ in range(4))
    return MachineRates(
        matmul_gflops=float(f"{2 * MATMUL_SIDE**3 / product_ms / 1e6:.4g}"),
        copy_gb_s=float(f"{2 * source.nbytes / copy_ms / 1e6:.4g}"),
    )


def peak_device_mib(device: str) -> float | None:
    """Device memory of this process: NVML's count of now where it is there, else the peak of PyTorch's own."""
    if device != "cuda":
        return None
    return gpu_mib() or torch.cuda.max_memory_allocated() / 2**20


def describe_gpu(device: str) -> dict[str, str]:
    """Name, compute capability, driver and clocks of the GPU in use; nothing on a CPU."""
    if device != "cuda":
        return {}
    major, minor = torch.cuda.get_device_capability()
    found = {"gpu": torch.cuda.get_device_name(), "compute capability": f"{major}.{minor}"}
    handle = _nvml_handle()
    if handle is not None:
        nvml, gpu = handle
        found["driver"] = str(nvml.nvmlSystemGetDriverVersion())
        found["SM clock MHz"] = str(nvml.nvmlDeviceGetClockInfo(gpu, nvml.NVML_CLOCK_SM))
        found["memory clock MHz"] = str(nvml.nvmlDeviceGetClockInfo(gpu, nvml.NVML_CLOCK_MEM))
    return found


def _nvml_handle() -> tuple[Any, Any] | None:
    """NVML and the GPU in use; None where the package or the library is missing."""
    try:
        import pynvml

        pynvml.nvmlInit()
        uuid = torch.cuda.get_device_properties(torch.cuda.current_device()).uuid
        return pynvml, pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
    except Exception:  # the package's own errors have no base that could be named without it
        return None


def rotation(count_bytes: int, *, beyond: int = 1 << 29, most: int = 64) -> int:
    """Number of inputs of a size that take turns until they are beyond the caches; at most `most`."""
    return int(np.clip(-(-beyond // max(count_bytes, 1)), 2, most))
