"""A module `tensorrt`, or `tensorrt_rtx`, that computes with ONNX Runtime and has exactly a real version's names.

Every access is held against the listing of that version (`tensorrt_listing.py`): a name that the version lacks is an
AttributeError here as there, so `hasattr` branches go the way they would go. Calls are held against the listed number
of arguments. Plans are JSON with the graph inside; running one queues the work on the fake driver.
"""

from __future__ import annotations

import base64
import enum
import json
from collections.abc import Callable
from types import ModuleType
from typing import Any

import onnx
from cuda_fake import FakeDriver
from tensorrt_fake_run import Context, Engine, Inspector, Runtime, RuntimeCache, RuntimeConfig, report
from tensorrt_listing import RTX, arity, listing

TYPES = {1: "FLOAT", 10: "HALF", 6: "INT32", 7: "INT64", 2: "UINT8"}


def fake_tensorrt(version: str, driver: FakeDriver | None) -> ModuleType:
    """A module for `sys.modules["tensorrt"]`.

    Args:
        version: one of `tensorrt_listing.LISTINGS`.
        driver: its GPU; None for a machine without one, on which TensorRT-RTX builds all the same.
    """
    return _Maker(version, driver).module


class _Guarded:
    """Instances have only the attributes that the version's class has; `_`-names are the fake's own."""

    _names: frozenset[str]
    _arity: dict[str, list[tuple[int, int]]]

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("_"):
            return object.__getattribute__(self, name)
        kind = type(self)
        if name not in kind._names and not _added(kind, name):
            raise AttributeError(f"{kind.__name__} has no {name} in this version")
        value = object.__getattribute__(self, name)
        return _counted(name, value, kind._arity.get(name)) if callable(value) else value

    def __setattr__(self, name: str, value: Any) -> None:
        if not name.startswith("_") and name not in type(self)._names and not _added(type(self), name):
            if not any(base is _Guarded for base in type(self).__bases__):  # what users add to their subclasses
                object.__setattr__(self, name, value)
                return
            raise AttributeError(f"{type(self).__name__} has no {name} in this version")
        object.__setattr__(self, name, value)


def _added(kind: type, name: str) -> bool:
    """Whether a subclass of the code under test brings the attribute itself."""
    return _Guarded not in kind.__bases__


def _counted(name: str, call: Callable[..., Any], arities: list[tuple[int, int]] | None) -> Callable[..., Any]:
    def checked(*arguments: Any, **named: Any) -> Any:
        given = len(arguments) + len(named)
        if arities and not any(low <= given <= high for low, high in arities):
            raise TypeError(f"{name}() takes {arities} arguments, {given} were given")
        return call(*arguments, **named)

    return checked


class _Maker:
    """Makes one module."""

    def __init__(self, version: str, driver: FakeDriver | None) -> None:
        data = listing(version)
        self.names = data["modules"]["tensorrt"]
        self.module: Any = ModuleType("tensorrt_rtx" if version == RTX else "tensorrt")
        self.module.__version__ = data["version"]
        self.module._driver = driver
        self.module._say = []
        self.module._fail = None
        for name, what in self.names.items():
            if "members" in what and "." not in name:
                setattr(self.module, name, _members(name, what["members"]))
        for name, behaviour in _BEHAVIOURS.items():
            if name in self.names:
                self._class(name, behaviour)
        self.module.ILogger.Severity = _members("Severity", self.names["ILogger.Severity"]["members"])
        self.module.init_libnvinfer_plugins = lambda log, namespace: True

    def _class(self, name: str, behaviour: type) -> None:
        attributes = self.names[name]["attributes"]
        arities = {key: [arity(text) for text in texts] for key, texts in attributes.items()}
        space = {"_names": frozenset(attributes), "_arity": arities, "_trt": self.module}
        space |= {key: value for key, value in vars(behaviour).items() if key not in ("__dict__", "__weakref__")}
        setattr(self.module, name, type(name, (_Guarded,), space))


def _members(name: str, members: dict[str, int]) -> Any:
    return enum.IntEnum(name, members)


class _Builder:
    def __init__(self, log: Any) -> None:
        if self._trt._driver is None and not hasattr(self._trt, "ComputeCapability"):
            log.log(self._trt.ILogger.Severity.WARNING, "CUDA initialization failure with error: 35")
            raise TypeError("pybind11::init(): factory function returned nullptr")
        self._log = log

    def create_network(self, flags: int = 0) -> Any:
        network = self._trt.INetworkDefinition()
        network._flags = flags
        return network

    def create_builder_config(self) -> Any:
        return self._trt.IBuilderConfig()

    def create_optimization_profile(self) -> Any:
        return self._trt.IOptimizationProfile()

    def build_serialized_network(self, network: Any, config: Any) -> Any:
        trt = self._trt
        if trt._fail:
            self._log.log(trt.ILogger.Severity.ERROR, trt._fail)
            return None
        monitor = getattr(config, "_progress", None)
        if monitor is not None:
            monitor.phase_start("Building Engine", None, 2)
            monitor.step_complete("Building Engine", 0)
            monitor.phase_finish("Building Engine")
        strong = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
        explicit = getattr(trt.NetworkDefinitionCreationFlag, "EXPLICIT_BATCH", None)
        if explicit is not None and strong is None and not network._flags >> int(explicit) & 1:
            self._log.log(trt.ILogger.Severity.ERROR, "the parser needs an explicit batch")
            return None
        plan = {
            "onnx": base64.b64encode(network._onnx).decode(),
            "profiles": [profile._shapes for profile in config._profiles],
            "half": (strong is not None and network._flags >> int(strong) & 1 == 1) or "FP16" in config._flags,
            "flags": sorted(config._flags),
            "constrained": sum(getattr(layer, "_precision", None) is not None for layer in network._layers),
            "capabilities": [target.name for target in config._targets],
        }
        if hasattr(trt, "ComputeCapability"):
            self._log.log(trt.ILogger.Severity.VERBOSE, report(plan))
        config._cache = b"timed " + config._cache
        return json.dumps(plan).encode()


class _Network:
    def __init__(self) -> None:
        self._layers: list[Any] = []

    @property
    def num_layers(self) -> int:
        return len(self._layers)

    def get_layer(self, index: int) -> Any:
        return self._layers[index]


class _Layer:
    def __init__(self) -> None:
        self._precision, self._types = None, {}

    @property
    def name(self) -> str:
        return self._name

    @property
    def type(self) -> Any:
        return self._type

    @property
    def num_outputs(self) -> int:
        return 1

    def get_output(self, index: int) -> Any:
        tensor = self._trt.ITensor()
        tensor._dtype = self._dtype
        return tensor

    @property
    def precision(self) -> Any:
        return self._precision

    @precision.setter
    def precision(self, kind: Any) -> None:
        self._precision = kind

    def set_output_type(self, index: int, dtype: Any) -> None:
        self._types[index] = dtype


class _Tensor:
    @property
    def dtype(self) -> Any:
        return self._dtype


class _Parser:
    def __init__(self, network: Any, log: Any) -> None:
        self._network, self._log, self._errors = network, log, []

    def parse(self, model: bytes, path: str | None = None) -> bool:
        trt = self._trt
        if trt._say:
            self._errors = [_parser_error(trt, *said) for said in trt._say]
            return False
        proto = onnx.shape_inference.infer_shapes(onnx.load_from_string(model))
        self._network._onnx = model
        kinds = {value.name: value.type.tensor_type.elem_type for value in proto.graph.value_info}
        layer_kinds = {"MatMul": "MATRIX_MULTIPLY", "Conv": "CONVOLUTION", "Softmax": "SOFTMAX", "Reshape": "SHUFFLE"}
        for node in proto.graph.node:
            kind = TYPES.get(kinds.get(node.output[0], 0))
            if kind in trt.DataType.__members__:
                layer = trt.ILayer()
                layer._name, layer._dtype = node.name, trt.DataType[kind]
                layer._type = trt.LayerType[layer_kinds.get(node.op_type, "ELEMENTWISE")]
                self._network._layers.append(layer)
        return True

    @property
    def num_errors(self) -> int:
        return len(self._errors)

    def get_error(self, index: int) -> Any:
        return self._errors[index]


def _parser_error(trt: Any, node: int, name: str, text: str) -> Any:
    error = trt.ParserError()
    error._node, error._node_name, error._desc = node, name, text
    return error


class _ParserError:
    def node(self) -> int:
        return self._node

    def node_name(self) -> str:
        return self._node_name

    def node_operator(self) -> str:
        return "TopK"

    def desc(self) -> str:
        return self._desc


class _Config:
    def __init__(self) -> None:
        self._flags: set[str] = {"TF32"}
        self._profiles: list[Any] = []
        self._cache = b""
        self._progress = None
        self._settings: dict[str, Any] = {}
        self._targets: list[Any] = []

    @property
    def num_compute_capabilities(self) -> int:
        return len(self._targets)

    @num_compute_capabilities.setter
    def num_compute_capabilities(self, number: int) -> None:
        self._targets = [self._trt.ComputeCapability.NONE] * number

    def set_compute_capability(self, target: Any, index: int) -> bool:
        self._targets[index] = target
        return True

    def set_memory_pool_limit(self, pool: Any, size: int) -> None:
        self._settings[pool.name] = size

    def set_flag(self, flag: Any) -> None:
        self._flags.add(flag.name)

    def clear_flag(self, flag: Any) -> None:
        self._flags.discard(flag.name)

    def add_optimization_profile(self, profile: Any) -> int:
        self._profiles.append(profile)
        return len(self._profiles) - 1

    def set_tactic_sources(self, mask: int) -> bool:
        return True

    def set_preview_feature(self, feature: Any, enable: bool) -> None:
        self._settings[feature.name] = enable

    def create_timing_cache(self, data: bytes) -> Any:
        cache = self._trt.ITimingCache()
        cache._data = data
        return cache

    def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:
        self._cache = cache._data
        return True

    def get_timing_cache(self) -> Any:
        cache = self._trt.ITimingCache()
        cache._data = self._cache
        return cache

    @property
    def builder_optimization_level(self) -> int:
        return 3

    @builder_optimization_level.setter
    def builder_optimization_level(self, level: int) -> None:
        self._settings["level"] = level

    @property
    def progress_monitor(self) -> Any:
        return self._progress

    @progress_monitor.setter
    def progress_monitor(self, monitor: Any) -> None:
        self._progress = monitor


class _TimingCache:
    def serialize(self) -> bytes:
        return self._data


class _Profile:
    def __init__(self) -> None:
        self._shapes: dict[str, list[list[int]]] = {}

    def set_shape(self, name: str, low: Any, usual: Any, high: Any) -> None:
        assert len(low) == len(usual) == len(high)
        self._shapes[name] = [list(low), list(usual), list(high)]


class _Refitter:
    def __init__(self, engine: Any, log: Any) -> None:
        self._engine = engine

    def refit_cuda_engine(self) -> bool:
        return True


class _OnnxRefitter:
    def __init__(self, refitter: Any, log: Any) -> None:
        self._refitter = refitter

    def refit_from_bytes(self, model: bytes, path: str | None = None) -> bool:
        self._refitter._engine._plan["refitted"] = True
        return True


class _Callback:
    """What users subclass."""

    def __init__(self) -> None:
        pass


_BEHAVIOURS = {
    "Builder": _Builder,
    "INetworkDefinition": _Network,
    "ILayer": _Layer,
    "ITensor": _Tensor,
    "OnnxParser": _Parser,
    "ParserError": _ParserError,
    "IBuilderConfig": _Config,
    "ITimingCache": _TimingCache,
    "IOptimizationProfile": _Profile,
    "Runtime": Runtime,
    "ICudaEngine": Engine,
    "EngineInspector": Inspector,
    "IExecutionContext": Context,
    "IRuntimeConfig": RuntimeConfig,
    "IRuntimeCache": RuntimeCache,
    "Refitter": _Refitter,
    "OnnxParserRefitter": _OnnxRefitter,
    "ILogger": _Callback,
    "IProfiler": _Callback,
    "IProgressMonitor": _Callback,
}
