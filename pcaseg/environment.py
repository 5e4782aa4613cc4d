"""Environment of a measurement, stored with its rows."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from pcaseg.files import atomic_path, holds_json, refuse_foreign
from pcaseg.paths import exists, real_path
from pcaseg.versions import installed_versions

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

RECORDED_PACKAGES = (
    "pcaseg",
    "torch",
    "onnxruntime",
    "onnxruntime-gpu",
    "openvino",
    "open_clip_torch",
    "timm",
    "numpy",
    "triton",
    "tensorrt",
    "tensorrt-rtx-cu12",
)


INSTRUCTION_SETS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16", "asimd", "i8mm", "bf16")
"""Of x86 and arm64, by their names in Linux: those that change how fast matrices are multiplied."""


def environment() -> dict[str, object]:
    """Processor, its instruction sets, cores, system, Python and the versions of what computes."""
    return {
        "cpu": _cpu_name(),
        "instruction_sets": " ".join(instruction_sets()),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": installed_versions(RECORDED_PACKAGES),
    }


def instruction_sets() -> list[str]:
    """Those of `INSTRUCTION_SETS` that the processor has; empty where the system does not tell."""
    found = (_proc("/proc/cpuinfo", "flags") or _proc("/proc/cpuinfo", "Features")).split()
    return [name for name in INSTRUCTION_SETS if name in found]


def multiplies_bfloat16() -> bool:
    """True where the processor has instructions for products in bfloat16."""
    return not {"avx512_bf16", "amx_bf16", "bf16"}.isdisjoint(instruction_sets())


def flat_environment() -> dict[str, str]:
    """The same as plain texts by name, with the processor's clock, the load, and the commit of the sources."""
    found = environment()
    flat = {name: str(value) for name, value in found.items() if name != "versions"}
    flat |= {"cpu MHz": _proc("/proc/cpuinfo", "cpu MHz"), "load": _load(), "commit": _commit()}
    return flat | found["versions"]  # type: ignore[operator]


def _load() -> str:
    return f"{os.getloadavg()[0]:.2f}" if hasattr(os, "getloadavg") else ""


def _commit() -> str:
    """The commit of a source checkout, with `+` where files differ from it; empty for an installed package."""
    root = real_path(__file__).parent.parent
    if not exists(root / ".git"):
        return ""
    try:
        run = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--abbrev=12", "--dirty=+"],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return run.stdout.strip()


def peak_host_mib() -> float:
    """Largest resident memory of this process so far."""
    if peak := _proc("/proc/self/status", "VmHWM"):  # ru_maxrss would count what the parent held before this program
        return int(peak.split()[0]) / 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def resident_mib(pid: int | None = None) -> float | None:
    """Resident memory now of a process, by default this one; None where the system does not tell."""
    resident = _proc(f"/proc/{'self' if pid is None else pid}/status", "VmRSS")
    return int(resident.split()[0]) / 1024 if resident else None


def gpu_mib() -> float | None:
    """GPU memory that this process holds now, of all libraries, by NVML; None where NVML does not say."""
    try:
        import pynvml as nvml

        nvml.nvmlInit()
        gpus = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
        processes = [process for gpu in gpus for process in nvml.nvmlDeviceGetComputeRunningProcesses(gpu)]
    except Exception:  # the package's own errors have no base that could be named without it
        return None
    return sum(p.usedGpuMemory or 0 for p in processes if p.pid == os.getpid()) / 2**20 or None


def write_rows(path: str | os.PathLike[str], rows: Sequence[DataclassInstance], **subject: object) -> None:
    """Writes measured rows as JSON, with what was measured and what on.

    Args:
        path: the file.
        rows: one dataclass each.
        subject: what they are of, such as the preset.

    Raises:
        OutputError: as `check_rows_path`.
    """
    refuse_foreign(Path(path), _is_rows, "a file of rows")
    content = {"schema_version": 1, **subject, "environment": environment(), "rows": [asdict(row) for row in rows]}
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def check_rows_path(path: str | os.PathLike[str]) -> None:
    """Refuses, before anything is measured, a place that rows could not be written to in the end.

    Raises:
        OutputError: something else stands there, or no file can be made there.
    """
    refuse_foreign(Path(path), _is_rows, "a file of rows")
    with atomic_path(path, keep=False):
        pass


def _is_rows(path: Path) -> bool:
    return holds_json(path, {"schema_version", "rows"})


def _cpu_name() -> str:
    return _proc("/proc/cpuinfo", "model name") or platform.processor() or "unknown"


def _proc(path: str, name: str) -> str:
    """The first value of that name in one of the kernel's tables; empty where there is none."""
    try:
        lines = Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(name)), "")
