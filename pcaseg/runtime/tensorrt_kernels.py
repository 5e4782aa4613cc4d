"""Kernels that TensorRT-RTX compiles just in time on the machine that runs an engine, kept in a file beside it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pcaseg.errors import OutputError
from pcaseg.files import atomic_path

KERNELS_SUFFIX = ".jit"
"""Ending of the file. It belongs to one GPU and driver; TensorRT-RTX refuses another's, and then compiles anew."""


class Kernels:
    """The kernels of one engine: read when it is opened, written after shapes that were new have run."""

    def __init__(self, cache: Any, path: Path, new_context: Callable[[], Any]) -> None:
        """Reads what there is.

        Args:
            cache: TensorRT-RTX's.
            path: the file.
            new_context: makes an execution context of the engine that uses the cache; None where there is no memory.
        """
        self.new_context, self._cache, self._path = new_context, cache, path
        self._kept = _read(path)
        if self._kept and not cache.deserialize(self._kept):
            self._kept = b""

    def keep(self) -> None:
        """Writes what was compiled since; where nothing can be written, it is compiled anew the next time."""
        data = bytes(self._cache.serialize())
        if data == self._kept:
            return
        self._kept = data
        try:
            with atomic_path(self._path) as temporary:
                temporary.write_bytes(data)
        except (OSError, OutputError):
            return


def open_kernels(trt: Any, engine: Any, path: Path) -> Kernels | None:
    """The kernels of an engine of `deserialize`; None where all of them are in the plan.

    Each shape gets kernels of its own at once: the default runs others until these are ready, and a CUDA graph would
    keep the others.
    """
    if not hasattr(trt, "IRuntimeCache"):
        return None
    config = engine.create_runtime_config()
    config.dynamic_shapes_kernel_specialization_strategy = trt.DynamicShapesKernelSpecializationStrategy.EAGER
    cache = config.create_runtime_cache()
    kernels = Kernels(cache, path, lambda: engine.create_execution_context(config))
    config.set_runtime_cache(cache)
    return kernels


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
