"""The classes of the fake TensorRT that run a plan: ONNX Runtime computes what is queued on the fake driver."""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
import onnx
import onnxruntime

NUMPY = {"FLOAT": np.float32, "HALF": np.float16, "INT32": np.int32, "INT64": np.int64, "UINT8": np.uint8}


class Runtime:
    def __init__(self, log: Any) -> None:
        if self._trt._driver is None and not hasattr(self._trt, "ComputeCapability"):
            log.log(self._trt.ILogger.Severity.WARNING, "CUDA initialization failure with error: 35")
            raise TypeError("pybind11::init(): factory function returned nullptr")
        self._log = log

    def deserialize_cuda_engine(self, data: bytes) -> Any:
        engine = self._trt.ICudaEngine()
        try:
            engine._load(json.loads(data))
        except ValueError:
            self._log.log(self._trt.ILogger.Severity.ERROR, "Magic tag does not match")
            return None
        return engine


class Engine:
    def _load(self, plan: dict[str, Any]) -> None:
        self._plan = plan
        options = onnxruntime.SessionOptions()
        options.log_severity_level, options.intra_op_num_threads = 3, 1
        self._session = onnxruntime.InferenceSession(base64.b64decode(plan["onnx"]), options)
        self._inputs = {value.name: value for value in self._session.get_inputs()}
        self._outputs = {value.name: value for value in self._session.get_outputs()}

    @property
    def num_io_tensors(self) -> int:
        return len(self._inputs) + len(self._outputs)

    @property
    def num_optimization_profiles(self) -> int:
        return len(self._plan["profiles"])

    @property
    def device_memory_size(self) -> int:
        return 1 << 20

    @property
    def device_memory_size_v2(self) -> int:
        return 1 << 20

    def get_tensor_name(self, index: int) -> str:
        return [*self._inputs, *self._outputs][index]

    def get_tensor_mode(self, name: str) -> Any:
        return self._trt.TensorIOMode.INPUT if name in self._inputs else self._trt.TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name: str) -> Any:
        value = self._inputs.get(name) or self._outputs[name]
        kinds = {"float": "FLOAT", "float16": "HALF", "int32": "INT32", "int64": "INT64", "uint8": "UINT8"}
        kind = kinds[value.type[7:-1]]
        kind = kind if kind in self._trt.DataType.__members__ else "INT32"  # what 8.5 makes of INT64
        return self._trt.DataType[kind]

    def create_runtime_config(self) -> Any:
        return self._trt.IRuntimeConfig()

    def create_execution_context(self, *setting: Any) -> Any:
        if self._trt._driver.memory()[0] < 1 << 20:
            return None
        context = self._trt.IExecutionContext()
        context._cache = getattr(setting[0], "_cache", None) if setting else None
        context._engine, context._shapes, context._addresses, context._profile = self, {}, {}, None
        return context

    def create_engine_inspector(self) -> Any:
        inspector = self._trt.EngineInspector()
        inspector._engine = self
        return inspector


class RuntimeConfig:
    """Of TensorRT-RTX: what an engine's contexts are made with."""

    def __init__(self) -> None:
        self._cache, self._strategy = None, None

    @property
    def dynamic_shapes_kernel_specialization_strategy(self) -> Any:
        return self._strategy

    @dynamic_shapes_kernel_specialization_strategy.setter
    def dynamic_shapes_kernel_specialization_strategy(self, strategy: Any) -> None:
        self._strategy = strategy

    def create_runtime_cache(self) -> Any:
        return self._trt.IRuntimeCache()

    def set_runtime_cache(self, cache: Any) -> bool:
        self._cache = cache
        return True


class RuntimeCache:
    """What was compiled just in time: the shapes that ran, one a line behind the GPU's name."""

    def __init__(self) -> None:
        self._shapes: list[str] = []

    def serialize(self) -> bytes:
        return "\n".join([self._trt._driver.gpu.name, *self._shapes]).encode()

    def deserialize(self, data: bytes) -> bool:
        gpu, *shapes = data.decode(errors="replace").split("\n")
        if gpu != self._trt._driver.gpu.name:
            return False
        self._shapes = shapes
        return True


def layers_of(plan: dict[str, Any]) -> list[dict[str, Any]]:
    """The layers of a plan, as the inspector names them."""
    half = plan["half"]
    layers = []
    proto = onnx.shape_inference.infer_shapes(onnx.load_from_string(base64.b64decode(plan["onnx"])))
    kinds = {value.name: value.type.tensor_type.elem_type for value in proto.graph.value_info}
    wide = "Row major linear FP32"
    words = {1: wide, 10: "Row major linear FP16" if half else wide, 3: "Row major Int8", 17: "Row major FP8"}
    eight = {tensor.name: words.get(tensor.data_type) for tensor in proto.graph.initializer}
    quantised = {n.output[0]: eight[n.input[2]] for n in proto.graph.node if n.op_type == "DequantizeLinear"}
    for node in proto.graph.node:
        tensors = [
            {
                "Name": name,
                "Format/Datatype": quantised.get(name) or words.get(kinds.get(name), "Int32"),
            }
            for name in (*node.input, *node.output)  # real engines fuse what quantises into what computes
        ]
        kind = "Reformat" if node.op_type in ("Cast", "Transpose", "Reshape") else node.op_type
        layers.append({"Name": node.name, "LayerType": kind, "Inputs": [], "Outputs": tensors})
    return layers


def report(plan: dict[str, Any]) -> str:
    """What the builder of TensorRT-RTX says of a plan's layers."""
    words = {"FP32": "Float", "FP16": "Half"}
    lines = ["Layers:"]
    for layer in layers_of(plan):
        kinds = [tensor["Format/Datatype"].split()[-1] for tensor in layer["Outputs"]]
        tensors = ", ".join(f"{{ Name: x, Dimensions: [1,2], Datatype: {words.get(kind, kind)} }}" for kind in kinds)
        lines.append(
            f"Name: {layer['Name']}, LayerType: {layer['LayerType']}, Inputs: [], Constants: [], "
            f"Outputs: [ {tensors}], TacticName: x, StreamId: 0, Metadata: [ONNX Layer: {layer['Name']}]"
        )
    return "\n".join([*lines, "", "Bindings:", "image"])


class Inspector:
    def get_engine_information(self, form: Any) -> str:
        return json.dumps({"Layers": layers_of(self._engine._plan)})


class Context:
    def set_optimization_profile_async(self, index: int, stream: int) -> bool:
        self._profile = index
        return True

    def set_input_shape(self, name: str, shape: Any) -> bool:
        low, _, high = self._engine._plan["profiles"][self._profile][name]
        self._shapes[name] = tuple(shape)
        return len(shape) == len(low) and all(a <= b <= c for a, b, c in zip(low, shape, high, strict=True))

    def infer_shapes(self) -> list[str]:
        return [name for name in self._engine._inputs if name not in self._shapes]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        if name in self._shapes:
            return self._shapes[name]
        known: dict[str, int] = {}
        for key, value in self._engine._inputs.items():
            known |= {axis: length for axis, length in zip(value.shape, self._shapes[key], strict=True)}
        return tuple(axis if isinstance(axis, int) else known[axis] for axis in self._engine._outputs[name].shape)

    def set_tensor_address(self, name: str, address: int) -> bool:
        self._addresses[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        driver, shapes, addresses = self._trt._driver, dict(self._shapes), dict(self._addresses)
        engine, outputs = self._engine, {name: self.get_tensor_shape(name) for name in self._engine._outputs}
        if set(addresses) != {*engine._inputs, *outputs}:
            return False
        profiler = getattr(self, "_profiler", None)
        if self._cache is not None and str(shapes) not in self._cache._shapes:
            self._cache._shapes.append(str(shapes))

        def run() -> None:
            feed = {}
            for name, shape in shapes.items():
                dtype = np.dtype(NUMPY[engine.get_tensor_dtype(name).name])
                data = driver.bytes(addresses[name], int(np.prod(shape)) * dtype.itemsize).view(dtype).reshape(shape)
                feed[name] = data.astype(np.int64) if "int64" in engine._inputs[name].type else data.copy()
            if profiler is not None:  # what comes out does not matter then
                for node in onnx.load_from_string(base64.b64decode(engine._plan["onnx"])).graph.node:
                    profiler.report_layer_time(node.name, 0.001)
                return
            for name, value in zip(outputs, engine._session.run(list(outputs), feed), strict=True):
                driver.bytes(addresses[name], value.nbytes)[:] = np.ascontiguousarray(value).view(np.uint8).ravel()

        driver.work(stream, run)
        return True

    @property
    def profiler(self) -> Any:
        return self._profiler

    @profiler.setter
    def profiler(self, profiler: Any) -> None:
        self._profiler = profiler
