"""What a measurement was made on, stored with its rows."""

from __future__ import annotations

import os
import platform
from pathlib import Path

from pcaseg.versions import installed_versions

RECORDED_PACKAGES = ("pcaseg", "torch", "onnxruntime", "onnxruntime-gpu", "open_clip_torch", "timm", "numpy")


def environment() -> dict[str, object]:
    """Processor, cores, system, Python and the versions of what computes."""
    return {
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": installed_versions(RECORDED_PACKAGES),
    }


def _cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or "unknown"
