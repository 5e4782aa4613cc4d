"""Each kernel against its PyTorch reference and what `torch.compile` makes of that, for pytest-benchmark.

    python -m pytest benchmarks/bench_kernels.py --benchmark-json rows.json
    python -m pcaseg.benchmarks.studies.roofline rows.json

On a GPU at the shapes of `eva-b-384` in bfloat16, each call captured in a CUDA graph, so that launching from Python is
not what is measured. On a CPU the references alone run, on small shapes: that shows that the suite works, no more.
Every row holds the bytes and operations by formula and what the device was measured to copy and multiply.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from pcaseg.benchmarks.device import captured
from pcaseg.configs import Sliding
from pcaseg.deploy.epl import fold_epl
from pcaseg.environment import environment
from pcaseg.kernels import class_attention, cost_volume, expert_mix, label_map
from pcaseg.model.epl import EPL

CUDA = torch.cuda.is_available()
DEVICE, DTYPE = ("cuda", torch.bfloat16) if CUDA else ("cpu", torch.float32)
LAUNCHES, ROUNDS = (20, 15) if CUDA else (1, 3)
SIZES = list(itertools.product((1, 5), (20, 150, 256))) if CUDA else [(1, 3)]
"""B, T."""

GRID, CHANNELS, HEADS, DEPTH = (24, 128, 4, 512) if CUDA else (6, 32, 4, 64)
IMAGE = (720, 1280) if CUDA else (30, 40)
PATHS = ("reference", "compiled", "kernel") if CUDA else ("reference",)


@dataclass(frozen=True)
class KernelCase:
    """One kernel at one size: what calls it, its definition, the arguments of both, and what it must do at least."""

    kernel: Callable[..., Any]
    reference: Callable[..., Any]
    arguments: tuple[Any, ...]
    bytes: int
    operations: int


def cost_volume_case(B: int, T: int) -> KernelCase:
    """One prompt per class."""
    given = random(B, GRID, GRID, DEPTH), random(T, 1, DEPTH), random(CHANNELS, 1, 7, 7), random(CHANNELS)
    sizes = B, T, 1, DEPTH, GRID, GRID, CHANNELS
    return KernelCase(
        cost_volume.cost_volume,
        cost_volume.cost_volume_reference,
        given,
        cost_volume.bytes_moved(*sizes, DTYPE.itemsize),
        cost_volume.operations(*sizes),
    )


def expert_mix_case(B: int, T: int) -> KernelCase:
    """Four experts, the weights of an untrained EPL."""
    streams = [random(B, T, GRID, GRID, CHANNELS) for _ in range(2)]
    weights = {name: value.to(DEVICE, DTYPE).contiguous() for name, value in fold_epl(EPL(CHANNELS).eval()).items()}
    sizes = B, T, GRID, GRID, CHANNELS
    return KernelCase(
        expert_mix.expert_mix,
        expert_mix.expert_mix_reference,
        (*streams, expert_mix.ExpertWeights(**weights)),
        expert_mix.bytes_moved(*sizes, experts=4, itemsize=DTYPE.itemsize),
        expert_mix.operations(*sizes, experts=4),
    )


def class_attention_case(B: int, T: int) -> KernelCase:
    """One share for all images."""
    d, N = CHANNELS // HEADS, GRID * GRID
    projections = [random(CHANNELS, CHANNELS) / CHANNELS**0.5 for _ in range(3)]
    padding = torch.rand(HEADS, d, d, device=DEVICE), torch.rand(HEADS, d, device=DEVICE)
    z, share = random(B, T, N, CHANNELS), random(1, T, 2 * CHANNELS)
    return KernelCase(
        class_attention.class_attention,
        class_attention.class_attention_reference,
        (z, share, *projections, random(CHANNELS), *padding),
        class_attention.bytes_moved(B, T, N, CHANNELS, DTYPE.itemsize),
        class_attention.operations(B, T, N, CHANNELS, HEADS),
    )


def label_map_case(B: int, T: int) -> KernelCase:
    """One image: five windows are its sliding ones, one is the image itself."""
    sliding, side, (H, W) = (None if B == 1 else Sliding()), 4 * GRID, IMAGE
    logits = random(B, T, side, side)
    windows = () if sliding is None else (sliding.image_px, sliding.window_px, sliding.stride_px)
    return KernelCase(
        lambda logits: label_map.label_map(logits, IMAGE, sliding=sliding)[1],
        lambda logits: label_map.label_map_reference(logits, IMAGE, windows)[1],
        (logits,),
        label_map.bytes_moved(1, T, side, side, H, W, windows=B, itemsize=DTYPE.itemsize),
        label_map.operations(1, T, side, side, H, W, sliding=sliding),
    )


CASES = {
    "cost_volume": cost_volume_case,
    "expert_mix": expert_mix_case,
    "class_attention": class_attention_case,
    "label_map": label_map_case,
}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(("B", "T"), SIZES)
@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_kernel(benchmark: Any, device_rates: dict[str, float], name: str, B: int, T: int, path: str) -> None:
    """One row."""
    case = CASES[name](B, T)
    compute = case.kernel if path == "kernel" else case.reference
    if path == "compiled":
        torch.compiler.reset()
        compute = torch.compile(compute, dynamic=False)
    check(compute(*case.arguments), case.reference(*case.arguments))
    repeat = repeated(lambda: compute(*case.arguments))
    benchmark.pedantic(repeat, rounds=ROUNDS, warmup_rounds=2)
    benchmark.extra_info |= {
        "kernel": name,
        "path": path,
        "B": B,
        "T": T,
        "dtype": str(DTYPE).removeprefix("torch."),
        "launches": LAUNCHES,
        "bytes": case.bytes,
        "operations": case.operations,
        **device_rates,
        "device": torch.cuda.get_device_name() if CUDA else "cpu",
        "environment": environment(),
    }


@pytest.fixture(scope="session")
def device_rates() -> dict[str, float]:
    """Bytes that this device copies (read and written) and operations it multiplies, per second, on large tensors."""
    source = torch.empty(2**30 if CUDA else 2**26, dtype=torch.uint8, device=DEVICE)
    target, side = torch.empty_like(source), 8192 if CUDA else 1024
    left, right = random(side, side), random(side, side)
    return {
        "copy_bytes_per_s": 2 * source.numel() / seconds(lambda: target.copy_(source)),
        "matmul_operations_per_s": 2 * side**3 / seconds(lambda: left @ right),
    }


def seconds(call: Callable[[], Any]) -> float:
    """The least of some rounds, per call."""
    repeat = repeated(call)
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        repeat()
        best = min(best, time.perf_counter() - start)
    return best / LAUNCHES


def repeated(call: Callable[[], Any]) -> Callable[[], None]:
    """A function that runs the call `LAUNCHES` times and waits for the end; on a GPU from a CUDA graph."""
    run = captured(call) if CUDA else call

    def repeat() -> None:
        for _ in range(LAUNCHES):
            run()
        if CUDA:
            torch.cuda.synchronize()

    return repeat


def check(values: Tensor, reference: Tensor) -> None:
    """Checks that what is timed computes what it should."""
    error = (values.double() - reference.double()).abs().max() / reference.double().abs().max()
    assert error < 0.05, f"relative error {error:.2e}"


def random(*shape: int) -> Tensor:
    """Normal numbers."""
    return torch.randn(shape, device=DEVICE).to(DTYPE)
