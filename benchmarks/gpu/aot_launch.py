"""The plugins' PTX launched through the CUDA driver, as TensorRT would, and held against the references.

    python -m pcaseg.benchmarks.gpu.aot_launch --rows aot_launch.json

needs a GPU, PyTorch, Triton and cuda-python, and no TensorRT: grid and scalars come from the plugins' own launch rules.
"""

from __future__ import annotations

import ctypes
import importlib
import itertools
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pcaseg.arguments import Parser, some_path
from pcaseg.benchmarks.device import check_device
from pcaseg.deploy.epl import fold_epl
from pcaseg.environment import write_rows
from pcaseg.errors import EngineError, reported
from pcaseg.export.plugins.library import attributes_of
from pcaseg.export.plugins.qdp import MOST_SHARED_BYTES, entry_for
from pcaseg.export.plugins.table import PLUGINS, Integers, Launch, Plugin
from pcaseg.kernels.class_attention import class_attention_reference
from pcaseg.kernels.cost_volume import cost_volume_reference
from pcaseg.kernels.expert_mix import ExpertWeights, expert_mix_reference, pack_vectors
from pcaseg.kernels.registry import DTYPES
from pcaseg.model.epl import EPL
from pcaseg.runtime.cuda import open_driver

SIZES = ((1, 1), (1, 20), (1, 150), (1, 255), (1, 256), (5, 20), (5, 150))
"""B, T."""

TOLERANCE = {"fp32": 2e-4, "fp16": 2e-2}
"""Largest difference from the reference in float64, over its largest value; products in float16 round at 1e-3."""

CALLS = 50


@dataclass(frozen=True)
class AotRow:
    """One plugin at one size; times in milliseconds between events around one launch."""

    plugin: str
    dtype: str
    B: int
    T: int
    grid: tuple[int, int, int]
    relative_error: float
    tolerance: float
    passed: bool
    median_ms: float


@dataclass(frozen=True)
class PluginCase:
    """Inputs as the plugin takes them, and its definition of them in float64."""

    inputs: tuple[Tensor, ...]
    reference: Callable[[], Tensor]


def make_case(plugin: Plugin, dtype: str, sizes: Mapping[str, int], B: int, T: int, device: str) -> PluginCase:
    """Seeded inputs of a plugin with these attributes."""
    torch.manual_seed(0)

    def random(*shape: int, scale: float = 1.0) -> Tensor:
        return (scale * torch.randn(shape)).to(device, DTYPES[dtype])

    C = sizes["channels"]
    if plugin.operator == "cost_volume":
        side, depth, prompts = sizes["width"], sizes["dim"], sizes["prompts"]
        text = torch.randn(T, prompts, depth).to(device)
        given = random(B, side, side, depth), text, random(C, prompts, 7, 7), random(C)
        return PluginCase(given, lambda: cost_volume_reference(*_double(given)))
    if plugin.operator == "class_attention":
        d, pixels = C // sizes["heads"], 576
        weights = [random(C, C, scale=C**-0.5) for _ in range(3)]
        padding = torch.rand(sizes["heads"], d, d).to(device), torch.rand(sizes["heads"], d).to(device)
        attended = random(B, T, pixels, C), random(1, T, 2 * C), *weights, random(C), *padding
        return PluginCase(attended, lambda: class_attention_reference(*_double(attended)))
    side = sizes["width"]
    spatial, semantic = (random(B, T, side, side, C) for _ in range(2))
    folded = ExpertWeights(**{k: v.to(device, DTYPES[dtype]).contiguous() for k, v in fold_epl(EPL(C).eval()).items()})
    columns = plugin.variant(dtype, sizes).constexprs["COLUMNS"]
    packed = folded._asdict() | {"vectors": pack_vectors(folded, columns)}
    named = tuple(packed[name] for name in plugin.inputs[2:])
    weights = _double(folded)
    return PluginCase(
        (spatial, semantic, *named), lambda: expert_mix_reference(spatial.double(), semantic.double(), weights)
    )


class PtxKernel:
    """A loaded entry; calling it queues one launch on PyTorch's current stream."""

    def __init__(self, ptx: str, name: str, threads: int, shared_bytes: int) -> None:
        self._cu: Any = importlib.import_module("cuda.bindings.driver")
        self._threads, self._shared = threads, shared_bytes
        self._module = self._call("cuModuleLoadData", ptx.encode() + b"\0")
        self._function = self._call("cuModuleGetFunction", self._module, name.encode())
        if shared_bytes > MOST_SHARED_BYTES:  # as the C++ library does
            attribute = self._cu.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
            self._call("cuFuncSetAttribute", self._function, attribute, shared_bytes)

    def __call__(self, launch: Launch, inputs: Sequence[Tensor], out: Tensor) -> None:
        values = *(t.data_ptr() for t in inputs), *launch.scalars, out.data_ptr()
        kinds = (
            *[ctypes.c_void_p] * len(inputs),
            *[ctypes.c_int32] * len(launch.scalars),
            ctypes.c_void_p,
        )
        stream = torch.cuda.current_stream().cuda_stream
        block = self._threads, 1, 1
        self._call("cuLaunchKernel", self._function, *launch.grid, *block, self._shared, stream, (values, kinds), 0)

    def close(self) -> None:
        """Unloads it."""
        self._call("cuModuleUnload", self._module)

    def _call(self, name: str, *arguments: Any) -> Any:
        code, *results = getattr(self._cu, name)(*arguments)
        if code != self._cu.CUresult.CUDA_SUCCESS:
            raise EngineError(f"{name}: the CUDA driver answers {code.name}; report it with your driver's version")
        return results[0] if results else None


def measure(plugin: Plugin, dtype: str, sizes: Mapping[str, int], B: int, T: int, arch: str) -> AotRow:
    """Launches one plugin and compares it."""
    case = make_case(plugin, dtype, sizes, B, T, "cuda")
    entry = entry_for(plugin, dtype, sizes, arch)
    shapes = [tuple(tensor.shape) for tensor in case.inputs]
    launch, shape = plugin.launch_for(shapes, dtype, sizes, Integers()), plugin.output(shapes)
    out = torch.full(shape, float("nan"), dtype=DTYPES[dtype], device="cuda")
    kernel = PtxKernel(entry.ptx, entry.name, entry.threads, entry.shared_bytes)
    kernel(launch, case.inputs, out)
    torch.cuda.synchronize()
    error = relative_error(out, case.reference())
    times = []
    for _ in range(CALLS):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        kernel(launch, case.inputs, out)
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end))
    kernel.close()
    limit = TOLERANCE[dtype]
    passed = error <= limit
    return AotRow(plugin.name, dtype, B, T, launch.grid, error, limit, passed, statistics.median(times))


def relative_error(values: Tensor, reference: Tensor) -> float:
    """Largest difference over the largest value of the reference; not a number where a value is none."""
    return float((values.double() - reference.double()).abs().max() / reference.double().abs().max())


def _double(tensors: Sequence[Tensor]) -> list[Tensor]:
    return [tensor.double() for tensor in tensors]


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints a line for each launch; 0 where all agree, 1 where one does not, 2 without a GPU."""
    parser = Parser(prog="python -m pcaseg.benchmarks.gpu.aot_launch", description=__doc__)
    parser.add_argument("--preset", default="eva-b-384")
    parser.add_argument("--rows", type=some_path, required=True, help="JSON file to write")
    options = parser.parse_args(arguments)

    def work() -> int:
        check_device("cuda")
        gpu, rows = open_driver("cuda").gpu, []
        for name, sizes in attributes_of(options.preset).items():
            for dtype, (B, T) in itertools.product(TOLERANCE, SIZES):
                row = measure(PLUGINS[name], dtype, sizes, B, T, gpu.arch)
                rows.append(row)
                verdict = "ok" if row.passed else "FAILED"
                print(f"{name} {dtype} B={B} T={T}: {verdict}, {row.relative_error:.1e}, {row.median_ms:.3f} ms")
        write_rows(options.rows, rows, preset=options.preset, gpu=gpu.name)
        return 0 if all(row.passed for row in rows) else 1

    return reported(work)


if __name__ == "__main__":
    sys.exit(main())
