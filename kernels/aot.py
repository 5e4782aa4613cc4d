"""Compiles the kernels ahead of time, without a GPU: PTX, machine code, and a manifest of what they need.

Each file in `kernels/triton/` has `variants(dtype, point)`, which lists what is compiled of it: the kernel with fixed
constexprs and argument types, at the shapes of `eva-b-384`.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import itertools
import json
import os
import re
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from pcaseg.errors import OutputError, PcasegError
from pcaseg.files import atomic_path
from pcaseg.kernels.ptx import entry_parameters, without_scratch
from pcaseg.kernels.registry import DTYPES
from pcaseg.kernels.tuning import TuningPoint, tuning_point
from pcaseg.versions import installed_versions

ARCHITECTURES = ("sm_80", "sm_86", "sm_87", "sm_89", "sm_90", "sm_100", "sm_110", "sm_120")
KERNELS = ("cost_volume", "expert_mix", "class_attention", "label_map")


@dataclass(frozen=True)
class Variant:
    """A kernel with everything fixed that is fixed at compile time.

    Attributes:
        name: unique, also the file's name: kernel, what is special, dtype, such as `cost_volume_p1_fp16`.
        kernel: the function under `triton.jit`.
        signature: type of each argument that is not a constexpr, in order: `*fp16`, `*fp32`, `i32`. Pointers must be
            aligned to 16 bytes.
        constexprs: value of each constexpr.
        grid: the number of programs on each axis, in words: `cdiv(H * W, 64), cdiv(T, 16), B`.
        point: the tuning point.
    """

    name: str
    kernel: Any
    signature: dict[str, str]
    constexprs: dict[str, Any]
    grid: str
    point: TuningPoint


@dataclass(frozen=True)
class CompiledVariant:
    """One compiled variant, as the manifest has it; registers and spills are None where there is PTX alone.

    `arguments` are what a launch passes, in order; Triton appends `scratch_arguments` pointers, which are null.
    """

    name: str
    arch: str
    entry: str
    arguments: list[tuple[str, str]]
    scratch_arguments: int
    constexprs: dict[str, Any]
    grid: str
    threads: int
    shared_bytes: int
    registers: int | None
    spill_bytes: int | None
    tuning_point: str
    num_warps: int
    num_stages: int
    ptx: str
    cubin: str | None
    note: str


def variants_of(kernel: str, arch: str, dtype: str) -> list[Variant]:
    """Variants of a kernel that are compiled for an architecture, at the tuning point that it uses."""
    module = importlib.import_module(f"pcaseg.kernels.triton.{kernel}")
    return module.variants(dtype, tuning_point(kernel, arch, dtype))


def arguments_of(kernel: Any) -> list[str]:
    """Names of a kernel's arguments in order, without the constexprs, which alone are annotated."""
    return [name for name in kernel.arg_names if name not in kernel.fn.__annotations__]


def compile_all(
    archs: Sequence[str],
    out: str | os.PathLike[str],
    kernels: Sequence[str] = KERNELS,
    *,
    dtypes: Sequence[str] = tuple(DTYPES),
    workers: int | None = None,
) -> list[CompiledVariant]:
    """Compiles every variant for every architecture.

    Args:
        archs: such as `sm_90`.
        out: folder, made if missing; gets `NAME.ARCH.ptx`, `NAME.ARCH.cubin` and `manifest.json`.
        kernels, dtypes: which ones.
        workers: processes; the number of cores if None.

    Returns:
        The manifest's entries.

    Raises:
        PcasegError: an unknown architecture, kernel or dtype, or Triton runs as an interpreter.
        MissingDependencyError: Triton is not installed.
        OutputError: the folder cannot be written.
    """
    from tqdm import tqdm

    wanted = (("arch", archs, ARCHITECTURES), ("kernel", kernels, KERNELS), ("dtype", dtypes, tuple(DTYPES)))
    for what, given, known in wanted:
        for name in given:
            if name not in known:
                raise PcasegError(f"{what}={name!r}: choose from {', '.join(known)}")
    _check_compiler()
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be made ({error.strerror}); choose another folder") from error
    with ProcessPoolExecutor(workers or os.cpu_count(), mp_context=get_context("spawn")) as pool:
        jobs = list(itertools.product(archs, kernels, dtypes))
        futures = [pool.submit(_compile_job, *job, folder) for job in jobs]
        for _ in tqdm(as_completed(futures), total=len(jobs), desc="compiling", unit="kernel"):
            pass
        entries = [entry for future in futures for entry in future.result()]
    content = {
        "schema_version": 1,
        "versions": installed_versions(("pcaseg", "triton", "torch")),
        "kernels": [asdict(entry) for entry in entries],
    }
    with atomic_path(folder / "manifest.json") as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return entries


@dataclass(frozen=True)
class PluginEntry:
    """A compiled kernel that any caller can launch: inputs, scalars and output are all it takes.

    Attributes:
        name: of the entry.
        ptx: text; it needs the architecture's own target, such as sm_90a.
        threads: of a program.
        shared_bytes: it asks for at the launch.
    """

    name: str
    ptx: str
    threads: int
    shared_bytes: int


def plugin_entry(variant: Variant, arch: str) -> PluginEntry:
    """Compiles one variant for use outside Triton.

    Raises:
        PcasegError: the kernel needs scratch memory, or Triton runs as an interpreter.
        MissingDependencyError: Triton is not installed.
    """
    _check_compiler()
    compiled, _, _ = _compile(variant, int(arch.removeprefix("sm_")))
    metadata = compiled.metadata
    for need in ("global_scratch_size", "profile_scratch_size"):
        if getattr(metadata, need, 0):
            raise PcasegError(f"{variant.name}: needs {need} of {getattr(metadata, need)} bytes; report this")
    ptx = without_scratch(compiled.asm["ptx"], len(variant.signature))
    return PluginEntry(metadata.name, ptx, 32 * metadata.num_warps, metadata.shared)


def _compile_job(arch: str, kernel: str, dtype: str, folder: Path) -> list[CompiledVariant]:
    return [compile_variant(variant, arch, folder) for variant in variants_of(kernel, arch, dtype)]


def compile_variant(variant: Variant, arch: str, folder: Path) -> CompiledVariant:
    """Compiles one variant and writes its files."""
    compiled, log, note = _compile(variant, int(arch.removeprefix("sm_")))
    metadata, ptx, cubin = compiled.metadata, compiled.asm["ptx"], compiled.asm["cubin"]
    stem = f"{variant.name}.{arch}"
    (folder / f"{stem}.ptx").write_text(ptx, encoding="utf-8")
    if cubin:
        (folder / f"{stem}.cubin").write_bytes(cubin)
    return CompiledVariant(
        name=variant.name,
        arch=arch,
        entry=metadata.name,
        arguments=list(variant.signature.items()),
        scratch_arguments=len(entry_parameters(ptx)) - len(variant.signature),
        constexprs=variant.constexprs,
        grid=variant.grid,
        threads=32 * metadata.num_warps,
        shared_bytes=metadata.shared,
        registers=_number(r"Used (\d+) registers", log) if cubin else None,
        spill_bytes=_number(r"(\d+) bytes spill stores", log) if cubin else None,
        tuning_point=variant.point.name,
        num_warps=variant.point.options["num_warps"],
        num_stages=variant.point.options["num_stages"],
        ptx=f"{stem}.ptx",
        cubin=f"{stem}.cubin" if cubin else None,
        note=note,
    )


def _compile(variant: Variant, capability: int) -> tuple[Any, str, str]:
    """The compiled kernel, the assembler's log, and a note where the assembler does not know the architecture."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    order, arguments = variant.kernel.arg_names, arguments_of(variant.kernel)
    if list(variant.signature) != arguments or set(variant.constexprs) != set(order) - set(arguments):
        raise PcasegError(f"{variant.name}: its signature does not fit {variant.kernel.__name__}{tuple(arguments)}")
    signature = variant.signature | dict.fromkeys(variant.constexprs, "constexpr")
    aligned = {
        (order.index(name),): [["tt.divisibility", 16]] for name, kind in variant.signature.items() if kind[0] == "*"
    }
    source = ASTSource(variant.kernel, {name: signature[name] for name in order}, variant.constexprs, attrs=aligned)
    assembler = _Assembler()
    with triton.knobs.compilation.scope(), triton.knobs.runtime.scope(), triton.knobs.nvidia.scope():
        triton.knobs.compilation.always_compile = True
        triton.knobs.nvidia.dump_ptxas_log = True
        triton.knobs.runtime.add_stages_inspection_hook = assembler.hook
        compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=variant.point.options)
    return compiled, assembler.log, assembler.note


def _check_compiler() -> None:
    """Checks that Triton is there and compiles.

    Raises:
        PcasegError: Triton runs as an interpreter.
        MissingDependencyError: it is not installed.
    """
    from pcaseg.kernels.triton import interpreted

    if interpreted():
        raise PcasegError("TRITON_INTERPRET is set, so nothing can be compiled; unset it")


class _Assembler:
    """A hook around Triton's assembler: keeps its log, and goes on with PTX alone where it fails."""

    def __init__(self) -> None:
        self.log = self.note = ""

    def hook(self, *arguments: Any) -> tuple[str, str] | None:
        """Triton calls it without arguments for its cache's key, and with its table of stages before compiling."""
        if not arguments:
            return "pcaseg", "pcaseg"
        stages = arguments[1]
        assemble = stages["cubin"]

        def cubin(source: Any, metadata: Any) -> bytes:
            output = io.StringIO()
            try:
                with contextlib.redirect_stdout(output):
                    return assemble(source, metadata)
            except Exception as error:
                if "not defined for option 'gpu-name'" not in str(error):
                    raise
                self.note = "PTX alone: Triton's assembler does not know this architecture"
                return b""
            finally:
                self.log = output.getvalue()

        stages["cubin"] = cubin
        return None


def _number(pattern: str, log: str) -> int:
    found = re.search(pattern, log)
    if found is None:
        raise PcasegError(f"Triton's assembler does not report what {pattern!r} looks for; report this")
    return int(found[1])
