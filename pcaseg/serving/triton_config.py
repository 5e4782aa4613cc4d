"""Configurations of models of NVIDIA Triton Inference Server: `config.pbtxt`, the text form of its `ModelConfig`.

The message is published as model_config.proto; tests read what is written here with the bindings of `tritonclient`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pcaseg.runtime.manifest import TensorSpec

_OF_ARRAYS = {"uint8": "UINT8", "int32": "INT32", "int64": "INT64", "float32": "FP32"}
"""Datatypes of the protocol by those of arrays, of all that graphs of bundles take and give."""

_PRECISION = {"float32": "FP32", "float16": "FP16"}


@dataclass(frozen=True)
class Constant:
    """A value of an enumeration, which stands without quotation marks."""

    name: str


def to_text(message: Mapping[str, Any]) -> str:
    r"""A message in protobuf's text form: mappings are messages, sequences are repeated fields.

    >>> print(to_text({"name": 'a "b"', "input": [{"dims": [-1, 3]}], "optional": True}), end="")
    name: "a \042b\042"
    input {
      dims: -1
      dims: 3
    }
    optional: true
    """
    return "".join(f"{line}\n" for line in _lines(message))


def _lines(message: Mapping[str, Any]) -> Iterator[str]:
    for key, value in message.items():
        for one in value if isinstance(value, Sequence) and not isinstance(value, str) else [value]:
            if isinstance(one, Mapping):
                yield f"{key} {{"
                yield from (f"  {line}" for line in _lines(one))
                yield "}"
            else:
                yield f"{key}: {_scalar(one)}"


def _scalar(value: str | int | bool | Constant) -> str:
    if isinstance(value, Constant):
        return value.name
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{"".join(map(_escaped, value))}"' if isinstance(value, str) else str(value)


def _escaped(letter: str) -> str:
    if letter.isprintable() and letter not in '"\\':
        return letter
    return "".join(f"\\{byte:03o}" for byte in letter.encode())


def model_config(
    name: str,
    backend: str,
    *,
    inputs: Sequence[Mapping[str, Any]],
    outputs: Sequence[Mapping[str, Any]],
    instances: int,
    kind: str,
    parameters: Mapping[str, str],
    **more: Any,
) -> dict[str, Any]:
    """The message of a model without a batch axis of Triton's own.

    Args:
        name: of the model and its folder.
        backend: that runs it, such as `python`.
        inputs: of `tensor`.
        outputs: of `tensor`.
        instances: of the model; of a GPU, on each.
        kind: `CPU` or `GPU`.
        parameters: which the backend reads.
        more: further fields.
    """
    return {
        "name": name,
        "backend": backend,
        "max_batch_size": 0,
        "input": inputs,
        "output": outputs,
        "instance_group": [{"count": instances, "kind": Constant(f"KIND_{kind}")}],
        "parameters": [{"key": key, "value": {"string_value": value}} for key, value in parameters.items()],
        **more,
    }


def tensor(name: str, datatype: str, shape: Sequence[int | str], *, optional: bool = False) -> dict[str, Any]:
    """An input or output: a datatype of the protocol, sizes, and names or -1 for those that are free."""
    sizes = [size if isinstance(size, int) else -1 for size in shape]
    kind = Constant(f"TYPE_{'STRING' if datatype == 'BYTES' else datatype}")
    return {"name": name, "data_type": kind, "dims": sizes} | ({"optional": True} if optional else {})


def graph_tensors(specs: Mapping[str, TensorSpec]) -> list[dict[str, Any]]:
    """Inputs or outputs of a graph as a bundle's manifest describes them."""
    return [tensor(name, _OF_ARRAYS[spec.dtype], spec.shape) for name, spec in specs.items()]


def accelerator(runtime: str, precision: str) -> dict[str, Any]:
    """ONNX Runtime's way on a GPU: `cuda`, without TF32 where the graph says float32, or `tensorrt`.

    Args:
        runtime: `cuda` or `tensorrt`.
        precision: of the bundle.
    """
    options = {"use_tf32": "0"}
    if runtime == "tensorrt":
        options = {"precision_mode": _PRECISION[precision], "trt_layer_norm_fp32_fallback": "1"}
    given = [{"key": key, "value": value} for key, value in options.items()]
    return {"execution_accelerators": {"gpu_execution_accelerator": [{"name": runtime, "parameters": given}]}}
