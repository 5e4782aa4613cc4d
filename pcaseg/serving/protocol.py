"""The Open Inference Protocol (KServe v2) over HTTP: bytes to tensors and back, in JSON and in its binary extension.

The binary extension puts tensors behind the JSON, in the order of the JSON's list, and its length into the header
`Inference-Header-Content-Length`. A string (BYTES) is four bytes of length, little-endian, and its bytes.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pcaseg.serving.limits import RequestError

HEADER_LENGTH = "Inference-Header-Content-Length"
EXTENSIONS = ("binary_tensor_data",)

_DTYPES = {"UINT8": np.uint8, "UINT16": np.uint16, "FP32": np.float32}
_MOST_DIMENSIONS = 8


@dataclass(frozen=True, eq=False)
class ProtocolTensor:
    """A tensor of a request.

    Attributes:
        name, datatype: as the protocol calls them.
        shape: sizes from 0.
        values: an array of the shape; of BYTES, a flat list.
        binary: whether it came by the binary extension.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    values: Any
    binary: bool


@dataclass(frozen=True, eq=False)
class InferRequest:
    """A request for inference.

    Attributes:
        id: the caller's, which the answer repeats; None where it gave none.
        inputs: by name.
        outputs: names asked for, each with whether it is to be binary; None for all.
        binary: whether outputs that say nothing are binary.
        parameters: of the request.
    """

    id: str | None
    inputs: dict[str, ProtocolTensor]
    outputs: dict[str, bool] | None
    binary: bool
    parameters: Mapping[str, Any]


def parse_request(body: bytes, header_length: str | None) -> InferRequest:
    """Reads the body of a request.

    Args:
        body: JSON, and behind it the binary tensors.
        header_length: value of the header `HEADER_LENGTH`; None where the body is JSON alone.

    Raises:
        RequestError: 400, it is none.
    """
    length = len(body)
    if header_length is not None:
        if not (header_length.isascii() and header_length.isdigit() and int(header_length[:20]) <= length):
            raise _bad(f"header {HEADER_LENGTH}: {header_length[:40]!r} is no length within the body; give the JSON's")
        length = int(header_length)
    head = read_json(body[:length])
    rest = memoryview(body)[length:]
    inputs: dict[str, ProtocolTensor] = {}
    for given in _objects(head, "inputs", required=True):
        name = _text(given, "name", "an input")
        if name in inputs:
            raise _bad(f"input {name!r}: stands twice; give it once")
        inputs[name], rest = _tensor(name, given, rest)
    if len(rest):
        raise _bad(f"body: {len(rest)} bytes behind the last tensor; check binary_data_size and {HEADER_LENGTH}")
    parameters = _parameters(head, "request")
    binary = parameters.get("binary_data_output") is True
    outputs = None
    if head.get("outputs"):
        outputs = {}
        for asked in _objects(head, "outputs"):
            name = _text(asked, "name", "an output")
            own = _parameters(asked, f"output {name!r}")
            if unknown := own.keys() & {"classification", "shared_memory_region"}:
                raise _bad(f"output {name!r}: this server has no {min(unknown)}; leave it out")
            outputs[name] = bool(own.get("binary_data", binary))
    id_ = head.get("id")
    if id_ is not None and not isinstance(id_, str):
        raise _bad("id: is no string; give one, or leave it out")
    return InferRequest(id_, inputs, outputs, binary, parameters)


def write_response(
    request: InferRequest, found: Mapping[str, np.ndarray | list[bytes]], head: Mapping[str, Any]
) -> tuple[bytes, int | None]:
    """The body of the answer.

    Args:
        request: what was asked.
        found: all outputs by name: arrays of uint16 or float32, or a list for BYTES.
        head: further entries of the JSON.

    Returns:
        The body, and the length of its JSON where binary tensors follow.

    Raises:
        RequestError: 400, an output was asked for that is not there.
    """
    asked = dict.fromkeys(found, request.binary) if request.outputs is None else request.outputs
    described, parts = [], []
    for name, binary in asked.items():
        if name not in found:
            raise _bad(f"output {name!r}: is unknown; ask for {', '.join(found)}")
        values = found[name]
        entry: dict[str, Any] = {"name": name, "datatype": datatype_of(values)}
        entry["shape"] = [len(values)] if isinstance(values, list) else list(values.shape)
        if binary:
            parts.append(_packed(values))
            entry["parameters"] = {"binary_data_size": len(parts[-1])}
        elif isinstance(values, list):
            entry["data"] = [value.decode() for value in values]
        else:
            entry["data"] = values.ravel().tolist()
        described.append(entry)
    body = dict(head) | ({} if request.id is None else {"id": request.id}) | {"outputs": described}
    text = json_bytes(body)
    return (b"".join([text, *parts]), len(text)) if parts else (text, None)


def datatype_of(values: np.ndarray | list[bytes]) -> str:
    """The protocol's name of a kind of values."""
    if isinstance(values, list):
        return "BYTES"
    return next(name for name, dtype in _DTYPES.items() if values.dtype == dtype)


def read_json(text: bytes) -> dict[str, Any]:
    """A JSON object.

    Raises:
        RequestError: 400, the text is none.
    """
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        said = "is nested too deeply" if isinstance(error, RecursionError) else "cannot be read as JSON"
        raise _bad(f"body: {said}; send one JSON object") from error
    if not isinstance(found, dict):
        raise _bad("body: is JSON, but not an object; send one JSON object")
    return found


def json_bytes(value: object) -> bytes:
    """JSON in ASCII, which any character survives."""
    return json.dumps(value, allow_nan=False, separators=(",", ":")).encode("ascii")


def _tensor(name: str, given: Mapping[str, Any], rest: memoryview) -> tuple[ProtocolTensor, memoryview]:
    """An input, and what is left of the binary tensors behind it."""
    datatype = _text(given, "datatype", f"input {name!r}")
    if datatype != "BYTES" and datatype not in _DTYPES:
        raise _bad(f"input {name!r}: datatype {datatype!r} is not taken; give BYTES, UINT8 or FP32")
    shape = given.get("shape")
    if not isinstance(shape, list) or not all(type(size) is int and size >= 0 for size in shape):
        raise _bad(f"input {name!r}: the shape is no list of sizes; give one, such as [2, 480, 640, 3]")
    if not 1 <= len(shape) <= _MOST_DIMENSIONS:
        raise _bad(f"input {name!r}: the shape has {len(shape)} sizes; give 1 to {_MOST_DIMENSIONS}")
    parameters = _parameters(given, f"input {name!r}")
    if "shared_memory_region" in parameters:
        raise _bad(f"input {name!r}: this server has no shared memory; send the values")
    size = parameters.get("binary_data_size")
    count = math.prod(shape)
    if size is None:
        return ProtocolTensor(name, datatype, tuple(shape), _listed(name, given, datatype, shape), False), rest
    if type(size) is not int or not 0 <= size <= len(rest):
        raise _bad(f"input {name!r}: binary_data_size {size!r} is beyond the body; give the bytes that follow")
    if "data" in given:
        raise _bad(f"input {name!r}: has both `data` and binary_data_size; send its values once")
    part, rest = rest[:size], rest[size:]
    if datatype == "BYTES":
        values: Any = _unpacked(name, part, count)
    elif count * np.dtype(_DTYPES[datatype]).itemsize != size:
        raise _bad(f"input {name!r}: {size} bytes for {datatype} of shape {shape}; send as many as the shape has")
    else:
        values = np.frombuffer(part, np.dtype(_DTYPES[datatype]).newbyteorder("<")).reshape(shape)
    return ProtocolTensor(name, datatype, tuple(shape), values, True), rest


def _listed(name: str, given: Mapping[str, Any], datatype: str, shape: list[int]) -> Any:
    """Values from JSON, flat or nested."""
    data = given.get("data")
    if not isinstance(data, list):
        raise _bad(f"input {name!r}: has neither a list `data` nor binary_data_size; send its values")
    if datatype == "BYTES":
        values = data
        while values and all(isinstance(value, list) for value in values):
            values = [one for value in values for one in value]
        if not all(isinstance(value, str) for value in values):
            raise _bad(f"input {name!r}: BYTES in JSON are strings; send strings")
        found: Any = [value.encode("utf-8", "surrogatepass") for value in values]
        held = len(found)
    else:
        try:
            array = np.array(data)
        except ValueError:
            array = np.array(None)
        wanted: np.dtype[Any] = np.dtype(_DTYPES[datatype])
        kinds = "iuf" if wanted.kind == "f" else "iu"
        if array.size and array.dtype.kind not in kinds:
            raise _bad(f"input {name!r}: the values are no {datatype} in one shape; send numbers alone")
        most = 256**wanted.itemsize - 1
        if array.size and wanted.kind == "u" and not 0 <= array.min() <= array.max() <= most:
            raise _bad(f"input {name!r}: values beyond {datatype}; send 0 to {most}")
        with np.errstate(over="ignore"):  # infinite then, and refused as embeddings
            found, held = array.astype(wanted), array.size
    if held != math.prod(shape):
        raise _bad(f"input {name!r}: {held} values for shape {shape}; send as many as the shape has")
    return found if datatype == "BYTES" else found.reshape(shape)


def _unpacked(name: str, part: memoryview, count: int) -> list[bytes]:
    values, at = [], 0
    while at < len(part):
        (length,) = struct.unpack_from("<I", part, at) if at + 4 <= len(part) else (len(part),)
        if at + 4 + length > len(part):
            raise _bad(f"input {name!r}: a string runs past the tensor's end; send 4 bytes of length and the bytes")
        values.append(bytes(part[at + 4 : at + 4 + length]))
        at += 4 + length
    if len(values) != count:
        raise _bad(f"input {name!r}: {len(values)} strings for a shape of {count}; send as many as the shape has")
    return values


def _packed(values: np.ndarray | list[bytes]) -> bytes:
    if isinstance(values, list):
        return b"".join(struct.pack("<I", len(value)) + value for value in values)
    return values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes()


def _objects(head: Mapping[str, Any], key: str, *, required: bool = False) -> list[dict[str, Any]]:
    found = head.get(key)
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found) or (required and not found):
        raise _bad(f"{key}: is no list of JSON objects; see the server's documentation")
    return found


def _text(given: Mapping[str, Any], key: str, what: str) -> str:
    found = given.get(key)
    if not isinstance(found, str):
        raise _bad(f"{what}: has no string {key!r}; give one")
    return found


def _parameters(given: Mapping[str, Any], what: str) -> dict[str, Any]:
    found = given.get("parameters")
    if found is not None and not isinstance(found, dict):
        raise _bad(f"{what}: its parameters are no JSON object; give one, or leave them out")
    return found or {}


def _bad(message: str) -> RequestError:
    return RequestError(400, message)
