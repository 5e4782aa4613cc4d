"""TensorRT imported on first use, its log captured, and what differs between its versions in one place.

What a version offers is asked with `hasattr`, never guessed from its number.
"""

from __future__ import annotations

import ctypes
import importlib
from pathlib import Path
from typing import Any

from pcaseg.errors import EngineError, MissingDependencyError, install_hint
from pcaseg.files import sha256_of
from pcaseg.paths import real_path

_KEPT_MESSAGES = 20


def import_tensorrt() -> Any:
    """The module `tensorrt`.

    Raises:
        MissingDependencyError: it, or a library that it needs, is not installed.
    """
    try:
        return importlib.import_module("tensorrt")
    except (ImportError, OSError) as error:
        raise MissingDependencyError(f"TensorRT cannot be imported ({error}); {install_hint('tensorrt')}") from error


def capture_log(trt: Any, path: Path | None = None) -> Any:
    """A TensorRT logger that keeps what it is told.

    Args:
        trt: the module.
        path: a file that gets every message, one a line; None for none.

    Returns:
        An `ILogger` with `problems`, the last warnings and errors, newest last, `errors`, the last errors, and
        `error_count`, the number of all.
    """

    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.problems: list[str] = []
            self.errors: list[str] = []
            self.error_count = 0
            self.file = None if path is None else open(path, "a", encoding="utf-8")  # noqa: SIM115

        def log(self, severity: Any, message: str) -> None:
            if self.file is not None:
                self.file.write(f"{severity}: {message}\n")
                self.file.flush()
            level = int(severity)
            if level <= int(trt.ILogger.Severity.WARNING):
                self.problems = [*self.problems[1 - _KEPT_MESSAGES :], message]
            if level <= int(trt.ILogger.Severity.ERROR):
                self.errors = [*self.errors[1 - _KEPT_MESSAGES :], message]
                self.error_count += 1

        def close(self) -> None:
            if self.file is not None:
                self.file.close()

    return Log()


def load_plugin_library(path: Path) -> str:
    """Loads a C++ plugin library, which makes its plugins known to TensorRT; gives its SHA-256.

    Raises:
        EngineError: it cannot be loaded.
    """
    try:
        ctypes.CDLL(str(real_path(path)), mode=ctypes.RTLD_GLOBAL)
        return sha256_of(path)
    except OSError as error:
        raise EngineError(
            f"{path}: is no plugin library that can be loaded ({error}); build it for this TensorRT"
        ) from error


def last_error(log: Any, otherwise: str = "no reason given") -> str:
    """Last complaint of TensorRT, for a message."""
    return " ".join(log.errors[-1].split()) if log.errors else otherwise


def start(kind: Any, log: Any, trt: Any) -> Any:
    """A `Builder` or `Runtime`.

    Raises:
        EngineError: TensorRT cannot use a GPU here.
    """
    try:
        made = kind(log)
    except (TypeError, RuntimeError) as error:
        reason = log.problems[-1] if log.problems else str(error)  # 8.5 only warns of it
        raise EngineError(
            f"TensorRT {trt.__version__} finds no usable GPU ({' '.join(reason.split())}); install NVIDIA's driver, "
            "or run this on the machine that will run the engine"
        ) from error
    return made


def deserialize(trt: Any, plan: bytes, log: Any, *, source: str, host_code: bool) -> Any:
    """An engine from a plan whose hash was checked before.

    Args:
        trt: the module.
        plan: serialised engine.
        log: of `capture_log`.
        source: what messages call the plan.
        host_code: whether the plan is version compatible: such plans bring code that runs on the host.

    Raises:
        EngineError: no usable GPU, or TensorRT refuses the plan.
    """
    runtime = start(trt.Runtime, log, trt)
    if host_code and hasattr(runtime, "engine_host_code_allowed"):
        runtime.engine_host_code_allowed = True
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise EngineError(
            f"{source}: TensorRT {trt.__version__} refuses the engine ({last_error(log)}); build it "
            "anew with pcaseg build"
        )
    return engine


def device_memory_of(engine: Any) -> int:
    """Bytes of activations that a context needs at the largest shapes."""
    names = ("device_memory_size_v2", "device_memory_size")  # the second was there until 10.x, the first since
    return int(next(getattr(engine, name) for name in names if hasattr(engine, name)))
