"""Puts the weights of a bundle into an engine that was built without them."""

from __future__ import annotations

from typing import Any

import onnx

from pcaseg.errors import EngineError
from pcaseg.export.tensorrt.graphs import derive_graph
from pcaseg.runtime.bundle import SEGMENTER_NAME, TEXT_ENCODER_NAME, Bundle
from pcaseg.runtime.engines import GraphRole
from pcaseg.runtime.tensorrt_api import import_tensorrt, last_error


def refit(engine: Any, role: GraphRole, bundle: Bundle, log: Any) -> None:
    """Fills a weight-stripped engine.

    Args:
        engine: deserialised.
        role: the graph it was built from.
        bundle: where the weights are.
        log: TensorRT's.

    Raises:
        EngineError: TensorRT refuses the weights, or some are missing.
    """
    trt = import_tensorrt()
    name = TEXT_ENCODER_NAME if role == "text" else SEGMENTER_NAME
    source = str(bundle.path / name)
    graph = derive_graph(onnx.load_from_string(bundle.read(name)), role, source=source)
    refitter = trt.Refitter(engine, log)
    if not hasattr(trt, "OnnxParserRefitter"):
        raise EngineError(
            f"TensorRT {trt.__version__} cannot fill weight-stripped engines; build without --strip-weights"
        )
    filled = trt.OnnxParserRefitter(refitter, log).refit_from_bytes(graph.SerializeToString())
    if not filled or not refitter.refit_cuda_engine():
        raise EngineError(
            f"{source}: TensorRT refuses its weights for the stripped engine ({last_error(log, 'no reason given')}); "
            "build it anew with pcaseg build"
        )
