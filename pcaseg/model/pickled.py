"""Pickled tensors read as data: a reader that knows tensors and containers alone, and looks nothing else up.

It reads what `torch.save` writes in pickle protocols 1 to 5, as a zip archive or as the older stream; TorchScript
archives, of which it reads the tensors and leaves the code alone; and plain pickles of NumPy arrays, as detectron2's
model zoo has them.
"""

from __future__ import annotations

import io
import pickle
import re
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from pcaseg.errors import CheckpointError
from pcaseg.model.file_kinds import unknown_zip

_STREAM = 0x1950A86A20F9469CFC6C
"""First number of the stream that torch wrote before its zip archives."""

_STORAGES = {
    f"{name}Storage": dtype
    for name, dtype in {
        "Double": torch.float64,
        "Float": torch.float32,
        "Half": torch.float16,
        "BFloat16": torch.bfloat16,
        "Long": torch.int64,
        "Int": torch.int32,
        "Short": torch.int16,
        "Char": torch.int8,
        "Byte": torch.uint8,
        "Bool": torch.bool,
        "ComplexDouble": torch.complex128,
        "ComplexFloat": torch.complex64,
        "Untyped": torch.uint8,
        "QInt8": torch.int8,
        "QUInt8": torch.uint8,
        "QInt32": torch.int32,
    }.items()
}
_DTYPES = {name: value for name, value in vars(torch).items() if isinstance(value, torch.dtype)}

_BROKEN = (
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    NotImplementedError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What reading a damaged file may raise."""


class OddTensor(NamedTuple):
    """A tensor of a kind that no weight has, such as a sparse one."""

    kind: str


class UnknownFileError(Exception):
    """The file is no pickle."""


def read_pickled(data: bytes, path: Path) -> Any:
    """Whatever a file of pickled tensors holds, of any kind above; no code in it is ever run.

    Args:
        data: of the file.
        path: for messages.

    Returns:
        Containers, numbers and strings, with tensors and `OddTensor`s in them.

    Raises:
        CheckpointError: damaged, a zip archive of something else, or it holds an object beside tensors.
        UnknownFileError: neither a zip archive nor a pickle.
    """
    try:
        if data.startswith(b"PK") and zipfile.is_zipfile(io.BytesIO(data)):
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                return _settled(_read_archive(archive, path))
        return _settled(_read_stream(data, path))
    except CheckpointError:
        raise
    except _BROKEN as error:
        if not re.match(rb"PK|\x80[\x02-\x05]", data):
            raise UnknownFileError from error
        raise CheckpointError(f"{path}: damaged, half-copied or no PyTorch checkpoint; copy it again") from error


def _read_archive(archive: zipfile.ZipFile, path: Path) -> Any:
    """Content of a zip archive of torch; its checksums are those of `zipfile`."""
    names = archive.namelist()
    roots = [name.removesuffix("data.pkl") for name in names if re.fullmatch(r"([^/]+/)?data\.pkl", name)]
    if not roots:
        raise unknown_zip(names, path)
    root = roots[0]
    if f"{root}byteorder" in names and archive.read(f"{root}byteorder") != sys.byteorder.encode():
        raise CheckpointError(f"{path}: was saved by a machine of another byte order; save it on a common one")
    storages: dict[str, Tensor] = {}

    def storage(dtype: torch.dtype, key: str, count: int) -> Tensor:
        if key not in storages:
            storages[key] = _numbers(archive.read(f"{root}data/{key}"), dtype)
        return storages[key]

    return _Reader(io.BytesIO(archive.read(f"{root}data.pkl")), path, storage).load()


def _read_stream(data: bytes, path: Path) -> Any:
    """Content of torch's older stream, where the numbers follow the pickle; or of a plain pickle."""
    storages: dict[str, Tensor] = {}

    def storage(dtype: torch.dtype, key: str, count: int) -> Tensor:
        return storages.setdefault(key, torch.empty(count, dtype=dtype))

    file = io.BytesIO(data)
    first = _Reader(file, path, storage).load()
    if type(first) is not int or first != _STREAM:
        return first
    for _ in ("version", "system"):
        _Reader(file, path, storage).load()
    content = _Reader(file, path, storage).load()
    for key in _Reader(file, path, storage).load():
        target = storages[key]
        count = int.from_bytes(file.read(8), "little")
        target.copy_(_numbers(file.read(count * target.element_size()), target.dtype))
    return content


def _numbers(data: bytes, dtype: torch.dtype) -> Tensor:
    """(n,) tensor of raw numbers, of its own memory."""
    return torch.frombuffer(bytearray(data), dtype=dtype) if data else torch.empty(0, dtype=dtype)


class _Reader(pickle.Unpickler):
    """Unpickler whose whole world is `_WORLD`: every other name is refused before anything is looked up.

    What a pickle gets to call are methods of this class and immutable types, so that it can change nothing either.
    """

    def __init__(self, file: io.BytesIO, path: Path, storage: Callable[[torch.dtype, str, int], Tensor]) -> None:
        super().__init__(file, encoding="latin1")
        self.path, self.storage = path, storage

    def find_class(self, module: str, name: str) -> Any:
        module = module.replace("numpy._core", "numpy.core")
        if module.startswith("__torch__"):
            return type("_Module", (_Module,), {})  # of this one use: a pickle may set attributes
        if module in ("torch", "torch.cuda", "torch.storage") and name in _STORAGES:
            return _STORAGES[name]
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        known = _WORLD.get(f"{module}.{name}")
        if known is None:
            raise CheckpointError(
                f"{self.path}: holds a pickled {f'{module}.{name}'[:80]!r}, as of a whole model or of settings, which "
                "is never loaded since it may run code; where you trust the file, save its state_dict alone"
            )
        return getattr(self, known) if isinstance(known, str) else known

    def persistent_load(self, identity: Any) -> Tensor:
        """The numbers that a tensor is a view of: (n,)."""
        kind, dtype, key, _, count, *view = identity
        if kind != "storage":
            raise pickle.UnpicklingError(kind)
        numbers = self.storage(dtype, key, count)
        if view and view[0] is not None:
            _, offset, count = view[0]
            return numbers[offset : offset + count]
        return numbers

    def tensor(self, storage: Tensor, offset: int, shape: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> Tensor:
        return torch.as_strided(storage, shape, stride, offset)

    def tensor_of_bytes(self, storage: Tensor, *arguments: Any) -> Tensor:
        return self.tensor(storage.view(arguments[5]), *arguments)

    def typed(self, make: Callable[..., Any], kind: Any, arguments: tuple[Any, ...], _: Any) -> Any:
        return make(*arguments)

    def first(self, value: Any, *_: Any) -> Any:
        return value

    def plain(self, *_: Any) -> None:
        """Nothing: classes and devices that a tensor names, and need not."""

    def quantised(self, *_: Any) -> OddTensor:
        return OddTensor("quantised values")

    def sparse(self, *_: Any) -> OddTensor:
        return OddTensor("sparse values")

    def meta(self, *_: Any) -> OddTensor:
        return OddTensor("no values")

    def counted(self, items: Any = ()) -> dict[Any, Any]:
        return dict(items)

    def encode(self, text: str, encoding: str) -> bytes:
        return text.encode({"latin1": "latin1", "utf-8": "utf-8"}[encoding])

    def no_bytes(self) -> bytes:
        return b""

    def nested(self, *_: Any) -> Any:
        raise CheckpointError(f"{self.path}: was written by pickle.dump; save the state_dict with torch.save")

    def array(self, *_: Any) -> _Array:
        return _Array()

    def array_of_buffer(self, data: bytes, dtype: _NumpyType, shape: tuple[int, ...], order: str) -> _Array:
        array = _Array()
        array.__setstate__((1, shape, dtype, order == "F", data))
        return array

    def numpy_type(self, code: str, *_: Any) -> _NumpyType:
        return _NumpyType(code)

    def scalar(self, dtype: _NumpyType, data: bytes) -> Any:
        return np.frombuffer(_raw(data), dtype.dtype)[0].item()


_WORLD: Mapping[str, Any] = {
    "collections.OrderedDict": OrderedDict,
    "collections.Counter": "counted",
    "builtins.set": set,
    "__builtin__.set": set,
    "__builtin__.bytes": "no_bytes",
    "_codecs.encode": "encode",
    "torch.Size": tuple,
    "torch.device": "plain",
    "torch.Tensor": "plain",
    "torch.nn.parameter.Parameter": "plain",
    "torch.nn.parameter.Buffer": "plain",
    "torch.serialization._get_layout": "plain",
    "torch.per_tensor_affine": "plain",
    "torch.per_channel_affine": "plain",
    "torch.per_channel_affine_float_qparams": "plain",
    "torch.storage._load_from_bytes": "nested",
    "torch._utils._rebuild_tensor": "tensor",
    "torch._utils._rebuild_tensor_v2": "tensor",
    "torch._utils._rebuild_tensor_v3": "tensor_of_bytes",
    "torch._utils._rebuild_parameter": "first",
    "torch._utils._rebuild_parameter_with_state": "first",
    "torch._utils._rebuild_qtensor": "quantised",
    "torch._utils._rebuild_sparse_tensor": "sparse",
    "torch._utils._rebuild_meta_tensor_no_storage": "meta",
    "torch._tensor._rebuild_from_type_v2": "typed",
    "torch.jit._pickle.build_intlist": "first",
    "torch.jit._pickle.build_doublelist": "first",
    "torch.jit._pickle.build_boollist": "first",
    "torch.jit._pickle.build_tensorlist": "first",
    "torch.jit._pickle.restore_type_tag": "first",
    "numpy.dtype": "numpy_type",
    "numpy.ndarray": "plain",
    "numpy.core.multiarray._reconstruct": "array",
    "numpy.core.multiarray.scalar": "scalar",
    "numpy.core.numeric._frombuffer": "array_of_buffer",
}
"""Names that a pickle may use: methods of `_Reader`, or types of C that cannot be changed."""


class _Module:
    """A module of a TorchScript archive: its fields by name, none of its code."""

    fields: Mapping[str, Any] = {}

    def __new__(cls, *_: Any) -> _Module:
        return object.__new__(cls)

    def __setstate__(self, state: Any) -> None:
        self.fields = state if isinstance(state, dict) else {}

    def tensors(self) -> dict[str, Any]:
        """Its state dict."""
        found: dict[str, Any] = {}
        for name, value in self.fields.items():
            if isinstance(value, _Module):
                found |= {f"{name}.{inner}": tensor for inner, tensor in value.tensors().items()}
            elif isinstance(value, (Tensor, OddTensor)):
                found[name] = value
        return found


class _NumpyType:
    """NumPy's number type, in native byte order unless its state says otherwise."""

    def __init__(self, code: str) -> None:
        if not re.fullmatch(r"[<>=|]?[biufc]\d{1,2}", code):
            raise ValueError(code)
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state[1] in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(state[1])


class _Array:
    """A NumPy array, filled by its state."""

    tensor: Tensor | OddTensor

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, kind, fortran, data = state
        values = np.frombuffer(_raw(data), kind.dtype).reshape(shape, order="F" if fortran else "C")
        self.tensor = torch.from_numpy(values.astype(kind.dtype.newbyteorder("="), order="C"))


def _raw(data: bytes | str) -> bytes:
    """Bytes that Python 2 may have pickled as a string."""
    return data.encode("latin1") if isinstance(data, str) else data


def _settled(value: Any) -> Any:
    """Content with arrays as tensors and modules as their state dicts."""
    if isinstance(value, dict):
        return {key: _settled(inner) for key, inner in value.items()}
    if isinstance(value, _Module):
        return value.tensors()
    return value.tensor if isinstance(value, _Array) else value
