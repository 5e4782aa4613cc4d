"""Checkpoint files: tensors by name, read without ever running code, written whole or not at all."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from pcaseg.errors import CheckpointError
from pcaseg.files import atomic_path
from pcaseg.model.names import DERIVED

FORMAT = "pcaseg-model-1"
"""Value of `format` in the metadata of the files that `save_model` writes."""

_WRAPPERS = ("model", "state_dict", "module")
"""Entries under which detectron2, PyTorch Lightning, open_clip and EVA-CLIP keep the tensors."""


def read_checkpoint(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Reads the tensors of a checkpoint, floats as float32, under the names in the file.

    `.safetensors` by safetensors; anything else by `torch.load(weights_only=True)`.

    Raises:
        CheckpointError: missing, damaged, pickled code, no tensors, or values that are not finite.
    """
    path = _existing_file(path)
    content = _read_safetensors(path) if _is_safetensors(path) else _read_torch(path)
    for key in _WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    tensors = {}
    if isinstance(content, dict):
        tensors = {name: t for name, t in content.items() if isinstance(name, str) and isinstance(t, Tensor)}
    if not tensors:
        raise CheckpointError(f"{path}: holds no tensors by name; save the model's state_dict and use that file")
    return {name: t if DERIVED.search(name) else _weight(t, name, path) for name, t in tensors.items()}


def read_metadata(path: str | os.PathLike[str]) -> dict[str, str] | None:
    """What `save_model` wrote beside the tensors: format, preset, aggregation, dense_mode, source.

    Returns:
        None for a checkpoint that `save_model` did not write.

    Raises:
        CheckpointError: missing or damaged file.
    """
    path = _existing_file(path)
    if not _is_safetensors(path):
        return None
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: not a safetensors file; it is damaged or half-copied: copy it again") from error
    _refuse_training(metadata, path)
    if metadata.get("format") != FORMAT:
        return None
    if not {"preset", "aggregation", "dense_mode", "source"} <= metadata.keys():
        raise CheckpointError(f"{path}: its metadata lacks entries of {FORMAT}; import the checkpoint again")
    return metadata


def write_tensors(tensors: Mapping[str, Tensor], path: str | os.PathLike[str], metadata: dict[str, str]) -> None:
    """Writes contiguous tensors that share no memory as safetensors.

    Raises:
        OutputError: the path cannot be written, as on a full disk; what stood there is intact.
    """
    with atomic_path(path) as temporary:
        try:
            save_file(dict(tensors), temporary, metadata=metadata)
        except SafetensorError as error:  # its own errors hide the system's
            raise OSError(None, str(error)) from error


def _existing_file(path: str | os.PathLike[str]) -> Path:
    """`path`, if it is a file.

    Raises:
        CheckpointError: it is not.
    """
    path = Path(path)
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "no such file"
        raise CheckpointError(f"{path}: {what}; give the path of a .pth, .pt or .safetensors file")
    return path


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            _refuse_training(file.metadata() or {}, path)
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: not a safetensors file; it is damaged or half-copied: copy it again") from error


def _refuse_training(metadata: Mapping[str, str], path: Path) -> None:
    if metadata.get("format", "").startswith("pcaseg-training"):
        raise CheckpointError(
            f"{path}: is where a training goes on, with --resume; take the model.safetensors beside it"
        )


def _is_safetensors(path: Path) -> bool:
    """By content, not by name: eight bytes of length, then a JSON object."""
    with open(path, "rb") as file:
        return path.suffix.lower() == ".safetensors" or file.read(9)[8:] == b"{"


def _weight(tensor: Tensor, name: str, path: Path) -> Tensor:
    """A weight as float32, if it can be one."""
    if tensor.layout != torch.strided or tensor.is_meta or not tensor.is_floating_point():
        kind = "no values" if tensor.is_meta else f"{tensor.dtype} values, {tensor.layout}".replace("torch.", "")
        raise CheckpointError(f"{path}: {name} holds {kind}, not plain floating numbers; use another checkpoint")
    tensor = tensor.float()
    if not torch.isfinite(tensor).all():
        raise CheckpointError(f"{path}: {name} holds values that are not finite; use another checkpoint")
    return tensor


def _read_torch(path: Path) -> Any:
    try:
        if zipfile.is_zipfile(path):  # torch.load does not look at the checksums
            with zipfile.ZipFile(path) as archive:
                if archive.testzip() is not None:
                    raise CheckpointError(f"{path}: damaged, its checksums do not match; copy it again")
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path}: damaged, or holds pickled objects beside tensors, which are never loaded; copy it again, or "
            "where you trust it save its state_dict alone"
        ) from error
    except CheckpointError:
        raise
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise CheckpointError(
            f"{path}: not a PyTorch checkpoint; it is damaged or half-copied: copy it again"
        ) from error
