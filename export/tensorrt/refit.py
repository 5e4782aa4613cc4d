"""The TensorRT backend of bundles whose engines may have been built without weights, which the bundle then gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pcaseg.errors import EngineError, PcasegError
from pcaseg.runtime.bundle import Bundle
from pcaseg.runtime.engines import EngineKey, EnginePrecision, source_file
from pcaseg.runtime.tensorrt_api import import_tensorrt, last_error, title
from pcaseg.runtime.tensorrt_backend import TensorRTBackend


def open_tensorrt(
    bundle: Bundle,
    *,
    device: str | None = None,
    threads: int | None = None,
    engine_precision: EnginePrecision | None = None,
    plugin_library: Path | None = None,
) -> TensorRTBackend:
    """Opens a bundle's engines, as the backend `tensorrt` is registered; arguments are those of `TensorRTBackend`.

    Raises:
        PcasegError: CPU threads are given, which have no meaning here.
        EngineError: as `TensorRTBackend`.
    """
    _refuse_threads(threads)
    return TensorRTBackend(
        bundle, device=device, precision=engine_precision, plugin_library=plugin_library, refit=refit
    )


def open_tensorrt_rtx(
    bundle: Bundle,
    *,
    device: str | None = None,
    threads: int | None = None,
    engine_precision: EnginePrecision | None = None,
) -> TensorRTBackend:
    """Opens a bundle's engines of TensorRT-RTX, as the backend `tensorrt-rtx` is registered.

    Raises:
        PcasegError: as `open_tensorrt`.
        EngineError: as `TensorRTBackend`.
    """
    _refuse_threads(threads)
    return TensorRTBackend(bundle, device=device, precision=engine_precision, runtime="rtx")


def _refuse_threads(threads: int | None) -> None:
    if threads is not None:
        raise PcasegError(f"threads={threads}: TensorRT uses no CPU threads; leave it out")


def refit(engine: Any, key: EngineKey, bundle: Bundle, log: Any) -> None:
    """Fills a weight-stripped engine.

    Args:
        engine: deserialised.
        key: what it was built for.
        bundle: where the weights are.
        log: TensorRT's.

    Raises:
        EngineError: TensorRT refuses the weights, or some are missing.
    """
    from pcaseg.export.tensorrt.graphs import graph_of  # only a stripped engine needs onnx

    trt = import_tensorrt()
    source = bundle.path / source_file(key.graph, key.plugins)
    graph = graph_of(trt, bundle, key)
    refitter = trt.Refitter(engine, log)
    if not hasattr(trt, "OnnxParserRefitter"):
        raise EngineError(f"{title(trt)} cannot fill weight-stripped engines; build without --strip-weights")
    filled = trt.OnnxParserRefitter(refitter, log).refit_from_bytes(graph.SerializeToString())
    if not filled or not refitter.refit_cuda_engine():
        raise EngineError(
            f"{source}: TensorRT refuses its weights for the stripped engine ({last_error(log)}); "
            "build it anew with pcaseg build"
        )
