"""What a measurement was made on, stored with its rows."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from pcaseg.files import atomic_path
from pcaseg.versions import installed_versions

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

RECORDED_PACKAGES = ("pcaseg", "torch", "triton", "onnxruntime", "onnxruntime-gpu", "open_clip_torch", "timm", "numpy")


def environment() -> dict[str, object]:
    """Processor, cores, system, Python and the versions of what computes."""
    return {
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": installed_versions(RECORDED_PACKAGES),
    }


def write_rows(path: str | os.PathLike[str], rows: Sequence[DataclassInstance], **subject: object) -> None:
    """Writes measured rows as JSON, with what was measured and what on.

    Args:
        path: the file.
        rows: one dataclass each.
        subject: what they are of, such as the preset.

    Raises:
        OutputError: the path cannot be written.
    """
    content = {"schema_version": 1, **subject, "environment": environment(), "rows": [asdict(row) for row in rows]}
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or "unknown"
