"""Operators of the kernels: the rule who computes, the record of it, and checks of inputs.

The rule: tensors on a CUDA device go to the Triton kernel, all others and float64 to the PyTorch reference. Nothing
falls back silently: the first call on CUDA imports `pcaseg.kernels.triton`, and without Triton that is an error.
`recording` shows which path ran. Within `plain_operators` the references stand in a traced graph instead of the
operators.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any, Literal

import torch
from torch import Tensor

from pcaseg.errors import PcasegError

Path = Literal["triton", "reference"]

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
"""Types that the kernels compute in, by Triton's names."""

_last: dict[str, Path] = {}
_records: list[list[tuple[str, Path]]] = []
_plain = 0
_plain_lock = threading.Lock()


def path_for(tensor: Tensor) -> Path:
    """The path that computes on this tensor."""
    return "triton" if tensor.is_cuda and tensor.dtype != torch.float64 else "reference"


def record(name: str, path: Path) -> None:
    """Notes that the operator `name` ran on `path`."""
    _last[name] = path
    for entries in _records:
        entries.append((name, path))


def last_path(name: str) -> Path | None:
    """The path on which the operator ran last; None if it has not run in this process."""
    return _last.get(name)


@contextlib.contextmanager
def recording() -> Iterator[list[tuple[str, Path]]]:
    """Yields a list that fills with (operator, path), a pair for each call within."""
    entries: list[tuple[str, Path]] = []
    _records.append(entries)
    try:
        yield entries
    finally:
        _records[:] = [other for other in _records if other is not entries]


@contextlib.contextmanager
def plain_operators() -> Iterator[None]:
    """Makes every operator its reference, in all threads: for graphs that must hold PyTorch's operators alone.

    Blocks may overlap; the operators are back when the last one ends.
    """
    global _plain
    with _plain_lock:
        _plain += 1
    try:
        yield
    finally:
        with _plain_lock:
            _plain -= 1


def operator(
    name: str,
    *,
    reference: Callable[..., Any],
    kernel: Callable[..., Any],
    fake: Callable[..., Any],
    cpu: Callable[..., Any] | None = None,
) -> Callable[..., Any]:
    """Registers the operator `pcaseg::NAME`, which `torch.compile` and `torch.export` see as one.

    Args:
        name: the operator's.
        reference: the definition; its annotations make the operator's schema.
        kernel: the same arguments; allocates the outputs and launches the kernel.
        fake: the same arguments; empty outputs of the right shapes, contiguous.
        cpu: the reference in the order that suits a CPU; itself if None.

    Returns:
        What calls the operator, or within `plain_operators` the reference.
    """
    by_reference = cpu or reference

    def compute(*arguments: Any) -> Any:
        path = path_for(arguments[0])
        if path == "triton":
            with torch.cuda.device(arguments[0].device):  # Triton launches on the current one
                result = kernel(*arguments)
        else:
            result = by_reference(*arguments)
        record(name, path)
        return result.contiguous() if isinstance(result, Tensor) else tuple(part.contiguous() for part in result)

    schema = torch.library.infer_schema(reference, mutates_args=())
    registered = torch.library.custom_op(f"pcaseg::{name}", compute, mutates_args=(), schema=schema)
    registered.register_fake(fake)

    def call(*arguments: Any) -> Any:
        return reference(*arguments) if _plain else registered(*arguments)

    return call


def dtype_name(tensor: Tensor) -> str:
    """Triton's name of the tensor's dtype: fp32, fp16 or bf16.

    Raises:
        PcasegError: the kernels do not take it.
    """
    for name, dtype in DTYPES.items():
        if tensor.dtype == dtype:
            return name
    raise PcasegError(f"{tensor.dtype}: the kernels take float32, float16 and bfloat16; convert the tensor")


def architecture(tensor: Tensor) -> str:
    """The device's architecture, such as `sm_90`; `default` where the tensor is not on a GPU."""
    if not tensor.is_cuda:
        return "default"
    major, minor = torch.cuda.get_device_capability(tensor.device)
    return f"sm_{major}{minor}"


def check_tensor(name: str, tensor: Tensor, shape: tuple[int | None, ...], *, like: Tensor | None = None) -> None:
    """Checks an argument of a kernel.

    Args:
        name: the argument's.
        tensor: its value.
        shape: wanted lengths; None where any will do.
        like: tensor whose dtype and device it must have.

    Raises:
        PcasegError: another shape, dtype or device, or the tensor is not contiguous.
    """
    found = tuple(tensor.shape)
    fits = len(found) == len(shape) and all(b is None or a == b for a, b in zip(found, shape, strict=True))
    if not fits or 0 in found:
        wanted = ", ".join("any" if length is None else str(length) for length in shape)
        raise PcasegError(f"{name} has shape {found}; give ({wanted})")
    if like is not None and (tensor.dtype != like.dtype or tensor.device != like.device):
        raise PcasegError(f"{name} is {tensor.dtype} on {tensor.device}; give {like.dtype} on {like.device}")
    if not tensor.is_contiguous():
        raise PcasegError(f"{name} is not contiguous; call .contiguous() on it first")
