"""Checkpoint files: tensors by name, read without ever running code, written whole or not at all."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save_file
from torch import Tensor

from pcaseg.configs import Aggregation
from pcaseg.errors import CheckpointError
from pcaseg.files import atomic_path
from pcaseg.model.names import AGGREGATOR_PREFIX, DERIVED

FORMAT = "pcaseg-model-1"
"""Value of `format` in the metadata of the files that `save_model` writes."""

_WRAPPERS = ("model", "state_dict", "module")
"""Entries under which detectron2, PyTorch Lightning, open_clip and EVA-CLIP keep the tensors."""


@dataclass(frozen=True)
class Checkpoint:
    """All of a checkpoint's file, read once.

    Attributes:
        path: of the file.
        metadata: what `save_model` wrote beside the tensors: format, preset, aggregation, dense_mode, source; None of a
            checkpoint that it did not write.
        tensors: floats as float32, under the names in the file.
        sha256: of the file's bytes.
    """

    path: Path
    metadata: Mapping[str, str] | None
    tensors: Mapping[str, Tensor]
    sha256: str

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Checkpoint:
        """Reads a file: `.safetensors` by safetensors, anything else by `torch.load(weights_only=True)`.

        Raises:
            CheckpointError: missing, damaged, pickled code, no tensors, or values that are not finite.
        """
        path = _existing_file(path)
        try:
            data = path.read_bytes()
        except OSError as error:
            raise CheckpointError(f"{path}: cannot be read ({error.strerror}); copy it again") from error
        metadata, content = _parse(data, path)
        for key in _WRAPPERS:
            if isinstance(content, dict) and isinstance(content.get(key), dict):
                content = content[key]
        tensors = {}
        if isinstance(content, dict):
            tensors = {name: t for name, t in content.items() if isinstance(name, str) and isinstance(t, Tensor)}
        if not tensors:
            raise CheckpointError(f"{path}: holds no tensors by name; save the model's state_dict and use that file")
        weights = {name: t if DERIVED.search(name) else _weight(t, name, path) for name, t in tensors.items()}
        return cls(path, metadata, weights, hashlib.sha256(data).hexdigest())

    @property
    def aggregation(self) -> Aggregation | None:
        """Aggregation that the names of its tensors are of; None where it holds no aggregator."""
        layers = [name for name in self.tensors if f"{AGGREGATOR_PREFIX}layers." in name]
        if not layers:
            return None
        if any(".fusion_by_channel_" in name for name in layers):
            return "parallel"
        return "added" if any(".swin_block_first." in name for name in layers) else "serial"


def is_model_file(path: Path) -> bool:
    """True for a file that `save_model` wrote.

    Raises:
        CheckpointError: a damaged safetensors file, or one of a training that goes on.
    """
    if not path.is_file():
        return False
    with open(path, "rb") as file:
        if not _is_safetensors(path, file.read(9)):
            return False
    try:
        with safe_open(path, framework="pt") as opened:
            return _own_metadata(opened.metadata() or {}, path) is not None
    except (SafetensorError, OSError) as error:
        raise _damaged(path) from error


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


def _parse(data: bytes, path: Path) -> tuple[dict[str, str] | None, Any]:
    """Own metadata, if there is some, and what else the file holds."""
    return _parse_safetensors(data, path) if _is_safetensors(path, data) else (None, _parse_torch(data, path))


def _parse_safetensors(data: bytes, path: Path) -> tuple[dict[str, str] | None, dict[str, Tensor]]:
    """Own metadata, if there is some, and tensors."""
    try:
        tensors = load(data)
        length = int.from_bytes(data[:8], "little")
        metadata = json.loads(data[8 : 8 + length]).get("__metadata__") or {}
    except (SafetensorError, ValueError) as error:
        raise _damaged(path) from error
    return _own_metadata(metadata, path), tensors


def _own_metadata(metadata: dict[str, str], path: Path) -> dict[str, str] | None:
    """The metadata of a file that `save_model` wrote; None of any other."""
    _refuse_training(metadata, path)
    if metadata.get("format") != FORMAT:
        return None
    if not {"preset", "aggregation", "dense_mode", "source"} <= metadata.keys():
        raise CheckpointError(f"{path}: its metadata lacks entries of {FORMAT}; import the checkpoint again")
    return metadata


def _damaged(path: Path) -> CheckpointError:
    return CheckpointError(f"{path}: not a safetensors file; it is damaged or half-copied: copy it again")


def _refuse_training(metadata: Mapping[str, str], path: Path) -> None:
    if metadata.get("format", "").startswith("pcaseg-training"):
        raise CheckpointError(
            f"{path}: is where a training goes on, with --resume; take the model.safetensors beside it"
        )


def _is_safetensors(path: Path, data: bytes) -> bool:
    """By content, not by name alone: eight bytes of length, then a JSON object."""
    return path.suffix.lower() == ".safetensors" or data[8:9] == b"{"


def _weight(tensor: Tensor, name: str, path: Path) -> Tensor:
    """A weight as float32, if it can be one."""
    if tensor.layout != torch.strided or tensor.is_meta or not tensor.is_floating_point():
        kind = "no values" if tensor.is_meta else f"{tensor.dtype} values, {tensor.layout}".replace("torch.", "")
        raise CheckpointError(f"{path}: {name} holds {kind}, not plain floating numbers; use another checkpoint")
    tensor = tensor.float()
    if not torch.isfinite(tensor).all():
        raise CheckpointError(f"{path}: {name} holds values that are not finite; use another checkpoint")
    return tensor


def _parse_torch(data: bytes, path: Path) -> Any:
    try:
        if zipfile.is_zipfile(io.BytesIO(data)):  # torch.load does not look at the checksums
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                if archive.testzip() is not None:
                    raise CheckpointError(f"{path}: damaged, its checksums do not match; copy it again")
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
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
