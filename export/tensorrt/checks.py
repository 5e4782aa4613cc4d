"""Checks of what is asked of a build, before it begins."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pcaseg.errors import EngineError, PcasegError
from pcaseg.export.tensorrt.builder import BuildOptions
from pcaseg.paths import is_file
from pcaseg.runtime.bundle import PLUGIN_SEGMENTER_NAME, Bundle
from pcaseg.runtime.cuda import Gpu
from pcaseg.runtime.engines import (
    EIGHT_BITS,
    FP8_COMPUTE_CAPABILITY,
    GRAPH_PRECISION,
    EnginePrecision,
    Plugins,
)
from pcaseg.runtime.tensorrt_api import title

if TYPE_CHECKING:
    from pcaseg.export.tensorrt.quantize import Calibration


def chosen_precision(bundle: Bundle, asked: EnginePrecision | None) -> EnginePrecision:
    """The precision of an engine's main graph: the bundle's own, or 8-bit.

    Raises:
        PcasegError: another one is asked for, which would have to be in the graph.
    """
    own = GRAPH_PRECISION[bundle.manifest.precision]
    if asked is not None and asked != own and asked not in EIGHT_BITS:
        name = next(key for key, value in GRAPH_PRECISION.items() if value == asked)
        raise PcasegError(
            f"{bundle.path}: its graph is {own}, and precision is written in the graph; for {asked} export the bundle "
            f"with --precision {name}"
        )
    return asked or own


def check_plugins(bundle: Bundle, plugins: Plugins, library: Path | None) -> None:
    """Refuses what does not go together, before TensorRT is needed.

    Raises:
        PcasegError: names the option.
    """
    if (plugins == "library") != (library is not None):
        raise PcasegError(f"plugins={plugins!r}: library, and nothing else, takes a file (--plugin-library)")
    if library is not None and not is_file(library):
        raise PcasegError(f"{library}: no such file; make it with python -m pcaseg.export.plugins.library")
    if plugins != "none" and PLUGIN_SEGMENTER_NAME not in bundle.manifest.files:
        raise PcasegError(f"{bundle.path}: has no {PLUGIN_SEGMENTER_NAME}; export it with --plugins")


def check_fp8(trt: Any, gpu: Gpu, options: BuildOptions) -> None:
    """Refuses fp8 where TensorRT or the GPU lacks it.

    Raises:
        EngineError: names which.
    """
    if not hasattr(trt.DataType, "FP8"):
        raise EngineError(f"{title(trt)} has no fp8; take int8 or install a newer one")
    if tuple(map(int, gpu.compute_capability.split("."))) < FP8_COMPUTE_CAPABILITY:
        raise EngineError(f"{gpu.name}: has no fp8 (compute capability {gpu.compute_capability}, not 8.9); take int8")
    if options.hardware == "ampere-and-newer":
        raise EngineError("hardware='ampere-and-newer': Ampere GPUs have no fp8; take int8 or another --hardware")


def read_calibration(
    bundle: Bundle, precision: EnginePrecision, folder: Path | None, plugins: Plugins, options: BuildOptions
) -> Calibration | None:
    """Images that an 8-bit engine is calibrated with; None for other precisions.

    Raises:
        PcasegError: there are none, or the options do not go with them.
    """
    if (precision in EIGHT_BITS) != (folder is not None):
        raise PcasegError(
            f"precision={precision!r}: int8 and fp8, and nothing else, take a folder of images (--calibration)"
        )
    if folder is None:
        return None
    if plugins != "none":
        raise PcasegError(f"precision={precision!r}: the plugins take wider numbers; build without --plugins")
    if options.weight_stripped:
        raise PcasegError(
            f"precision={precision!r}: a bundle holds no quantised weights to refit; build without --strip-weights"
        )
    from pcaseg.export.tensorrt.quantize import Calibration, check_quantisable  # these alone need ONNX Runtime

    check_quantisable(bundle, precision)
    return Calibration.read(folder)
