"""Puts the weights of a bundle into an engine that was built without them."""

from __future__ import annotations

from typing import Any

from pcaseg.errors import EngineError
from pcaseg.export.tensorrt.graphs import graph_of
from pcaseg.runtime.bundle import Bundle
from pcaseg.runtime.engines import EngineKey, source_file
from pcaseg.runtime.tensorrt_api import import_tensorrt, last_error


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
    trt = import_tensorrt()
    source = bundle.path / source_file(key.graph, key.plugins)
    graph = graph_of(trt, bundle, key)
    refitter = trt.Refitter(engine, log)
    if not hasattr(trt, "OnnxParserRefitter"):
        raise EngineError(
            f"TensorRT {trt.__version__} cannot fill weight-stripped engines; build without --strip-weights"
        )
    filled = trt.OnnxParserRefitter(refitter, log).refit_from_bytes(graph.SerializeToString())
    if not filled or not refitter.refit_cuda_engine():
        raise EngineError(
            f"{source}: TensorRT refuses its weights for the stripped engine ({last_error(log)}); "
            "build it anew with pcaseg build"
        )
