"""Tuning points: block sizes, warps and stages of each kernel, measured offline and read from JSON.

`tuning.json` beside this file holds for each kernel its named points, and which of them an architecture uses for a
dtype; an architecture without its own entry uses `default`. A file of the same form in the user's cache folder adds
points and overrides choices. Nothing is ever tuned while images wait.
"""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pcaseg.errors import PcasegError
from pcaseg.files import atomic_path, cache_folder, found_cache
from pcaseg.paths import exists

PACKAGED = Path(__file__).with_name("tuning.json")
LAUNCH_OPTIONS = ("num_warps", "num_stages")

_forced: dict[str, TuningPoint] = {}


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
    """The file of a user's own tuning: `pcaseg/tuning.json` in the cache folder."""
    return cache_folder() / "tuning.json"


def tuning_point(kernel: str, architecture: str, dtype: str) -> TuningPoint:
    """The point that a kernel uses.

    Args:
        kernel: its name, such as `cost_volume`.
        architecture: such as `sm_90`, or `default`.
        dtype: `fp32`, `fp16` or `bf16`.

    Raises:
        PcasegError: a file is malformed or names a point that does not exist.
    """
    return _forced.get(kernel) or _tuning_point(kernel, architecture, dtype, _found_file())


def tuning_points(kernel: str) -> dict[str, TuningPoint]:
    """All named points of a kernel."""
    merged: dict[str, Any] = {}
    for path in (PACKAGED, _found_file()):
        merged |= _read(path).get(kernel, {}).get("points", {})
    return {name: _point(name, values) for name, values in merged.items()}


@contextlib.contextmanager
def forced(kernel: str, point: TuningPoint) -> Iterator[None]:
    """Makes a kernel use this point, whatever the files say: for measuring one after the other."""
    _forced[kernel] = point
    try:
        yield
    finally:
        del _forced[kernel]


def choose(kernel: str, architecture: str, dtype: str, point: str) -> None:
    """Writes into the user's file which of its named points a kernel uses from now on.

    Raises:
        PcasegError: the kernel has no such point, or the file is malformed.
        OutputError: the file cannot be written.
    """
    if point not in tuning_points(kernel):
        raise PcasegError(f"point={point!r}: {kernel} has {', '.join(tuning_points(kernel))}")
    content = _read(user_file())
    content.setdefault(kernel, {}).setdefault("use", {}).setdefault(architecture, {})[dtype] = point
    with atomic_path(user_file()) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    _tuning_point.cache_clear()


def _found_file() -> Path | None:
    cache = found_cache()
    return cache and user_file()


@functools.cache
def _tuning_point(kernel: str, architecture: str, dtype: str, user: Path | None) -> TuningPoint:
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


def _read(path: Path | None) -> dict[str, Any]:
    if path is None or not exists(path):
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
