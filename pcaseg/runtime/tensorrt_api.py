"""TensorRT or TensorRT-RTX imported on first use, its log captured, and what differs between versions in one place.

What a version offers is asked with `hasattr`, never guessed from its number.
"""

from __future__ import annotations

import ctypes
import importlib
import weakref
from pathlib import Path
from typing import Any

from pcaseg.errors import EngineError, MissingDependencyError, install_hint
from pcaseg.files import sha256_of
from pcaseg.paths import real_path
from pcaseg.runtime.engines import TITLES, EngineRuntime

LAYER_REPORT = "Layers:\n"
"""Beginning of the message in which a builder lists the layers of a finished engine, one a line."""

_KEPT_MESSAGES = 20

_LOGS: weakref.WeakSet[Any] = weakref.WeakSet()
"""Logs of `capture_log` that are in use."""


def import_tensorrt(runtime: EngineRuntime = "tensorrt") -> Any:
    """The module `tensorrt` or `tensorrt_rtx`.

    Raises:
        MissingDependencyError: it, or a library that it needs, is not installed.
    """
    name = TITLES[runtime]
    try:
        return importlib.import_module(_module(name))
    except (ImportError, OSError) as error:
        raise MissingDependencyError(f"{name} cannot be imported ({error}); {install_hint(name.lower())}") from error


def title(trt: Any) -> str:
    """Name and version of the library, such as `TensorRT 10.13.3.9`."""
    return f"{next(name for name in TITLES.values() if _module(name) == trt.__name__)} {trt.__version__}"


def _module(name: str) -> str:
    return name.lower().replace("-", "_")


def capture_log(trt: Any, path: Path | None = None) -> Any:
    """A TensorRT logger that keeps what any logger of this module is told: TensorRT tells the first that it was given.

    Args:
        trt: the module.
        path: a file that gets every message, one a line; None for none.

    Returns:
        An `ILogger` with `problems`, the last warnings and errors, newest last, `errors`, the last errors,
        `error_count`, the number of all, and `report`, the builder's list of an engine's layers, where it gave one.
    """

    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.problems: list[str] = []
            self.errors: list[str] = []
            self.error_count = 0
            self.report: str | None = None
            self.file = None if path is None else open(path, "a", encoding="utf-8")  # noqa: SIM115

            _LOGS.add(self)

        def log(self, severity: Any, message: str) -> None:
            for log in {self, *_LOGS}:
                if isinstance(log, trt.ILogger):
                    log.keep(severity, message)

        def keep(self, severity: Any, message: str) -> None:
            if self.file is not None:
                self.file.write(f"{severity}: {message}\n")
                self.file.flush()
            level = int(severity)
            if level <= int(trt.ILogger.Severity.WARNING):
                self.problems = [*self.problems[1 - _KEPT_MESSAGES :], message]
            if level <= int(trt.ILogger.Severity.ERROR):
                self.errors = [*self.errors[1 - _KEPT_MESSAGES :], message]
                self.error_count += 1
            if message.startswith(LAYER_REPORT):
                self.report = message

        def close(self) -> None:
            _LOGS.discard(self)
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
            f"{title(trt)} finds no usable GPU ({' '.join(reason.split())}); install NVIDIA's driver, "
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
            f"{source}: {title(trt)} refuses the engine ({last_error(log)}); build it anew with pcaseg build"
        )
    return engine


def device_memory_of(engine: Any) -> int:
    """Bytes of activations that a context needs at the largest shapes."""
    names = ("device_memory_size_v2", "device_memory_size")  # the second was there until 10.x, the first since
    return int(next(getattr(engine, name) for name in names if hasattr(engine, name)))


def known_capabilities(trt: Any) -> dict[str, Any]:
    """Compute capabilities that the library can be told to build for, such as `8.9`, oldest first.

    Raises:
        EngineError: it builds for the GPU at hand alone.
    """
    if not hasattr(trt, "ComputeCapability"):
        raise no_choice(trt)
    members = trt.ComputeCapability.__members__.items()
    named = {f"{name[2:-1]}.{name[-1]}": member for name, member in members if name.startswith("SM")}
    return dict(sorted(named.items(), key=lambda item: [int(part) for part in item[0].split(".")]))


def no_choice(trt: Any) -> EngineError:
    """The error of a library that builds for the GPU at hand alone."""
    return EngineError(
        f"{title(trt)} builds for the GPU at hand; leave --compute-capability out, or take --runtime rtx"
    )
