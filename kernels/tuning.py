"""Tuning points: block sizes, warps and stages of each kernel, measured offline and read from JSON.

`tuning.json` beside this file holds for each kernel its named points, and which of them an architecture uses for a
dtype; an architecture without its own entry uses `default`. A file of the same form in the user's cache folder adds
points and overrides choices. Nothing is ever tuned while images wait.
"""

from __future__ import annotations

import functools
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pcaseg.errors import PcasegError

PACKAGED = Path(__file__).with_name("tuning.json")
LAUNCH_OPTIONS = ("num_warps", "num_stages")


@dataclass(frozen=True)
class TuningPoint:
    """One choice of block sizes.

    Attributes:
        name: as in the file.
        constexprs: the kernel's block sizes by name.
        options: `num_warps` and `num_stages`.
    """

    name: str
    constexprs: dict[str, int]
    options: dict[str, int]


def user_file() -> Path:
    """Where a user's own tuning lies: `pcaseg/tuning.json` in the cache folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pcaseg" / "tuning.json"


def tuning_point(kernel: str, architecture: str, dtype: str) -> TuningPoint:
    """The point that a kernel uses.

    Args:
        kernel: its name, such as `cost_volume`.
        architecture: such as `sm_90`, or `default`.
        dtype: `fp32`, `fp16` or `bf16`.

    Raises:
        PcasegError: a file is malformed or names a point that does not exist.
    """
    return _tuning_point(kernel, architecture, dtype, user_file())


def tuning_points(kernel: str) -> dict[str, TuningPoint]:
    """All named points of a kernel."""
    merged: dict[str, Any] = {}
    for path in (PACKAGED, user_file()):
        merged |= _read(path).get(kernel, {}).get("points", {})
    return {name: _point(name, values) for name, values in merged.items()}


@functools.cache
def _tuning_point(kernel: str, architecture: str, dtype: str, user: Path) -> TuningPoint:
    points = tuning_points(kernel)
    for path in (user, PACKAGED):
        use = _read(path).get(kernel, {}).get("use", {})
        for key in (architecture, "default"):
            name = use.get(key, {}).get(dtype)
            if name is None:
                continue
            if name not in points:
                raise PcasegError(f"{path}: {kernel} uses the point {name!r}; choose one of {', '.join(points)}")
            return points[name]
    raise PcasegError(f"{PACKAGED}: {kernel} has no point for {dtype}")


def _read(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PcasegError(f"{path}: no readable tuning file ({error}); mend or delete it") from error
    if not isinstance(content, dict):
        raise PcasegError(f"{path}: no tuning file; mend or delete it")
    return content


def _point(name: str, values: dict[str, int]) -> TuningPoint:
    constexprs = {key: value for key, value in values.items() if key not in LAUNCH_OPTIONS}
    return TuningPoint(name, constexprs, {key: values[key] for key in LAUNCH_OPTIONS})
