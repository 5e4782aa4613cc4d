"""TensorRT-RTX beside TensorRT: what it does not offer, and what GPUs it is told to build for.

It builds ahead of time with neither GPU nor driver; the machine that runs an engine finishes it just in time.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pcaseg.errors import EngineError, PcasegError
from pcaseg.runtime.engines import FP8_COMPUTE_CAPABILITY, EnginePrecision, Plugins
from pcaseg.runtime.tensorrt_api import known_capabilities, no_choice, title

if TYPE_CHECKING:
    from pcaseg.export.tensorrt.builder import BuildOptions

LEAST_CAPABILITY = (8, 0)
"""Oldest GPUs that run a bundle: on Turing, 7.5, TensorRT-RTX has products neither of float32, which every bundle has,
nor of int8."""

OWN_CHOICE = "8.0+"
"""What an engine runs on where TensorRT-RTX is told nothing."""


def check_offered(options: BuildOptions, plugins: Plugins, timing_cache: Path | None) -> None:
    """Refuses what TensorRT-RTX does not offer, before it is imported.

    Raises:
        PcasegError: names the option.
    """
    absent = {
        "--plugins": plugins != "none",
        "--strip-weights": options.weight_stripped,
        "--version-compatible": options.version_compatible,
        "--timing-cache": timing_cache is not None,
    }
    for name in (name for name, asked in absent.items() if asked):
        raise PcasegError(f"{name}: TensorRT-RTX does not offer it; leave it out, or build with --runtime tensorrt")
    if options.hardware != "this-gpu":
        raise PcasegError(
            f"hardware={options.hardware!r}: TensorRT-RTX is told GPUs by --compute-capability; leave --hardware out"
        )


def with_targets(trt: Any, options: BuildOptions, precision: EnginePrecision) -> BuildOptions:
    """The options with compute capabilities in order, each once, and chosen where `precision` leaves no free choice.

    Raises:
        EngineError: TensorRT-RTX does not know one, or its GPUs lack the precision.
    """
    known = known_capabilities(trt)
    for name in options.compute_capabilities:
        if name not in known:
            raise EngineError(
                f"compute capability {name!r}: {title(trt)} does not build for it; choose from {', '.join(known)}"
            )
    least = FP8_COMPUTE_CAPABILITY if precision == "fp8" else LEAST_CAPABILITY
    able = [name for name in known if _numbers(name) >= least]
    lacking = [name for name in known if name in options.compute_capabilities and name not in able]
    if lacking:
        raise EngineError(
            f"compute capability {lacking[0]}: TensorRT-RTX has no products of {precision} there; choose from "
            f"{', '.join(able)}"
        )
    wanted = options.compute_capabilities or (able if precision == "fp8" else ())
    return dataclasses.replace(options, compute_capabilities=tuple(name for name in able if name in wanted))


def set_targets(trt: Any, config: Any, capabilities: tuple[str, ...]) -> None:
    """Tells the builder what GPUs an engine is to run on.

    Raises:
        EngineError: it builds for the GPU at hand alone, or refuses.
    """
    if not hasattr(config, "set_compute_capability"):
        raise no_choice(trt)
    known = known_capabilities(trt)
    config.num_compute_capabilities = len(capabilities)
    for index, name in enumerate(capabilities):
        if not config.set_compute_capability(known[name], index):
            raise EngineError(f"{title(trt)} refuses compute capability {name}; leave it out")


def _numbers(capability: str) -> tuple[int, int]:
    major, minor = capability.split(".")
    return int(major), int(minor)
