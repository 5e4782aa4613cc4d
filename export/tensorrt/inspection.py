"""Proof of precision: what types the layers of a built engine really compute in, and for how long."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Any

import numpy as np

from pcaseg.errors import EngineError
from pcaseg.runtime.engines import EnginePrecision, LayerShare
from pcaseg.runtime.tensorrt_api import LAYER_REPORT
from pcaseg.runtime.tensorrt_engine import Engine

TYPES = {
    "fp8": "fp8", "float8": "fp8", "int8": "int8", "bf16": "bf16", "bfloat16": "bf16", "fp16": "fp16", "half": "fp16",
    "fp32": "fp32", "float32": "fp32", "float": "fp32",
}  # fmt: skip
"""What the inspector's words mean, the more particular ones first; all others are no floating-point or 8-bit types."""

MOVERS = ("reformat", "noop", "constant", "shape", "signal", "wait", "shuffle", "copy", "cast")
"""Parts of the names of layer types that only move or rename data: what they hold says nothing of the arithmetic."""

LEAST_SHARES = {"fp16": 0.5, "int8": 0.2, "fp8": 0.2}
"""Of the layers, or of their time where it is known, that must be of the type asked for. Not all: norms, softmax and
sums over classes stay float32 in every precision, and only products with constant weights become 8-bit."""

_PROFILED_CALLS = 10

_REPORTED = re.compile(
    r"Name: (?P<name>.*?), LayerType: (?P<kind>\w+), Inputs: \[(?P<inputs>.*)Outputs: \[(?P<rest>.*)"
)
_CONSTANTS = re.compile(r"\], Constants: \[.*")
_DATATYPE = re.compile(r"Datatype: (\w+)")
_MADE_OF = re.compile(r"\[ONNX Layer: ([^\]]*)\]")
"""A line of the builder's report, the constants among its inputs, types, the ONNX nodes that a layer was made of."""


def layer_types(engine: Any, trt: Any) -> dict[str, str]:
    """The type that each layer of an engine computes in, by the layer's name; movers of data left out.

    Raises:
        EngineError: the engine's own report is not readable: it was built without detailed names.
    """
    text = engine.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON)
    try:
        layers = json.loads(text)["Layers"]
    except (ValueError, KeyError, TypeError) as error:
        raise EngineError(
            f"the engine inspector's report is not readable ({error}); report this with your TensorRT"
        ) from error
    if not layers or not all(isinstance(layer, dict) for layer in layers):
        raise EngineError("the engine inspector names no layer's types; build with detailed verbosity")
    return _types(layers)


def reported_layers(report: str | None, *, source: str) -> list[dict[str, Any]]:
    """The layers of a finished engine as the engine inspector gives them, from what the builder says of them.

    Args:
        report: of `pcaseg.runtime.tensorrt_api.capture_log`.
        source: what messages call the engine.

    Raises:
        EngineError: the builder gave no report, or in another form.
    """
    lines = (report or "").removeprefix(LAYER_REPORT).split("\n\n")[0].splitlines()
    found = [_REPORTED.match(line) for line in lines]
    if not found or not all(found):
        raise EngineError(f"{source}: the builder does not name the types of its layers; report this with your version")
    return [
        {
            "Name": match["name"],
            "LayerType": match["kind"],
            "Inputs": [{"Datatype": kind} for kind in _DATATYPE.findall(_CONSTANTS.sub("", match["inputs"]))],
            "Outputs": [{"Datatype": kind} for kind in _DATATYPE.findall(match["rest"])],
            "Made of": _MADE_OF.findall(match["rest"]),
        }
        for match in found
        if match
    ]


def reported_types(report: str | None, *, source: str) -> dict[str, str]:
    """As `layer_types`, from what the builder says.

    Raises:
        EngineError: as `reported_layers`.
    """
    return _types(reported_layers(report, source=source))


def _types(layers: list[dict[str, Any]]) -> dict[str, str]:
    found = {}
    for layer in layers:
        kind = str(layer.get("LayerType", "")).lower()
        if any(mover in kind for mover in MOVERS):
            continue
        types = [_type_of(tensor) for tensor in [*layer.get("Inputs", ()), *layer.get("Outputs", ())]]
        known = Counter(name for name in types if name)
        if known:
            found[str(layer["Name"])] = _narrowest(known)
    return found


def layer_times(engine: Engine, shapes: Mapping[str, tuple[int, ...]], trt: Any) -> dict[str, float]:
    """Mean milliseconds of each layer on zeros of these shapes, on the device."""

    class Profiler(trt.IProfiler):
        def __init__(self) -> None:
            trt.IProfiler.__init__(self)
            self.total: dict[str, float] = defaultdict(float)

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            self.total[layer_name] += ms

    inputs = {name: np.zeros(shape, engine.dtypes[name]) for name, shape in shapes.items()}
    profile = engine.choose(shapes)
    assert profile is not None  # shapes are of one of its profiles
    with engine.lane() as lane:
        lane.run(inputs)
        profiler = Profiler()
        lane.context(profile).profiler = profiler
        for _ in range(_PROFILED_CALLS):
            lane.execute(profile)
            engine.driver.synchronize(lane.stream)
    return {name: total / _PROFILED_CALLS for name, total in profiler.total.items()}


def layer_shares(types: Mapping[str, str], times: Mapping[str, float] | None) -> dict[str, LayerShare]:
    """Layers and milliseconds by type."""
    shares = {}
    for kind in sorted(set(types.values())):
        names = [name for name, found in types.items() if found == kind]
        time_ms = None if times is None else sum(times.get(name, 0.0) for name in names)
        shares[kind] = LayerShare(len(names), time_ms)
    return shares


def check_precision(shares: Mapping[str, LayerShare], precision: EnginePrecision, *, source: str) -> None:
    """Refuses an engine that does not compute as asked.

    Raises:
        EngineError: float32 was asked for and some layer is narrower, or less than `LEAST_SHARES` of the layers
            (of their time, where it was measured) are of the narrower type asked for.
    """
    if not shares:
        raise EngineError(f"{source}: no layer's type is known, so its precision is not proven; report this")
    if precision == "fp32":
        narrow = {kind: share.layers for kind, share in shares.items() if kind != "fp32"}
        if narrow:
            raise EngineError(f"{source}: fp32 was asked for, but TensorRT built layers of {narrow}; report this")
        return
    timed = all(share.time_ms is not None for share in shares.values()) and any(s.time_ms for s in shares.values())
    weight = {kind: float((share.time_ms if timed else share.layers) or 0) for kind, share in shares.items()}
    reached = weight.get(precision, 0.0) / sum(weight.values())
    if reached < LEAST_SHARES[precision]:
        what = "time" if timed else "layers"
        raise EngineError(
            f"{source}: {precision} was asked for, but only {reached:.0%} of the {what} is {precision} "
            f"({describe_shares(shares)}); this TensorRT cannot build it so on this GPU, take --precision fp32"
        )


def describe_shares(shares: Mapping[str, LayerShare]) -> str:
    """For people: `fp16 212 layers, 3.21 ms; fp32 40 layers, 0.35 ms`."""
    parts = []
    for kind, share in shares.items():
        time = "" if share.time_ms is None else f", {share.time_ms:.2f} ms"
        parts.append(f"{kind} {share.layers} layers{time}")
    return "; ".join(parts)


def _type_of(tensor: Any) -> str | None:
    """The floating-point or 8-bit type of an inspected tensor: versions write it under different keys."""
    if not isinstance(tensor, dict):
        return None
    words = " ".join(str(value) for key, value in tensor.items() if "Datatype" in key or "Format" in key).lower()
    return next((name for word, name in TYPES.items() if word in words), None)


def _narrowest(kinds: Counter[str]) -> str:
    """A layer computes in the narrowest type that it reads or writes: a product of halves may write floats."""
    return next(name for name in ("fp8", "int8", "bf16", "fp16", "fp32") if name in kinds)
