"""Checkpoint files: tensors by name, read without ever running code, written whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save_file
from torch import Tensor

from pcaseg.configs import VOCABULARY_FORMAT, Aggregation
from pcaseg.errors import CheckpointError
from pcaseg.files import atomic_path, order_header
from pcaseg.model.file_kinds import existing_file, refuse_known, unknown_file
from pcaseg.model.names import AGGREGATOR_PREFIX, DERIVED, unwrapped
from pcaseg.model.pickled import OddTensor, UnknownFileError, read_pickled
from pcaseg.model.shards import read_shards, refuse_lone_shard, shards_of
from pcaseg.paths import is_file
from pcaseg.typed_json import shown

FORMAT = "pcaseg-model-1"
"""Value of `format` in the metadata of the files that `save_model` writes."""

_CONTAINERS = (
    *("model", "state_dict", "module", "model_state_dict", "model_state", "net", "network", "weights", "params"),
    *("model_ema", "state_dict_ema", "ema_state_dict", "ema_state", "ema", "params_ema"),
)
"""Entries under which detectron2, Lightning, open_clip, EVA-CLIP, DeepSpeed, timm and others keep the tensors: the
first that holds any is taken, an average only where there is nothing else."""

_TENSOR = (Tensor, OddTensor)
_LONGEST_HEADER = 100_000_000
"""Bytes, of safetensors."""


@dataclass(frozen=True)
class Checkpoint:
    """All of a checkpoint's file, read once.

    Attributes:
        path: of the file.
        metadata: what `save_model` wrote beside the tensors: format, preset, aggregation, dense_mode, source; None of a
            checkpoint that it did not write.
        tensors: floats as float32, under the names in the file.
        sha256: of the file's bytes; of an index, followed by those of its shards in order of name.
    """

    path: Path
    metadata: Mapping[str, str] | None
    tensors: Mapping[str, Tensor]
    sha256: str

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Checkpoint:
        """Reads a file of any kind that `read_pickled` knows, a `.safetensors` file, or an index of shards of these.

        Raises:
            CheckpointError: missing, damaged, of another kind, pickled code, no tensors, or values that are not finite.
        """
        path = Path(path)
        data = _bytes_of(path)
        digest = hashlib.sha256(data)
        metadata: Mapping[str, str] | None = None

        def read_shard(shard: Path) -> dict[str, Any]:
            part = _bytes_of(shard)
            digest.update(part)
            return _state_dict(_parse(part, shard)[1], shard)

        shards = shards_of(data, path)
        if shards is not None:
            tensors = read_shards(shards, path, read_shard)
        else:
            refuse_lone_shard(path)
            metadata, content = _parse(data, path)
            tensors = _state_dict(content, path)
        weights = {name: _weight(t, name, path) for name, t in tensors.items()}
        return cls(path, metadata, weights, digest.hexdigest())

    @property
    def aggregation(self) -> Aggregation | None:
        """Aggregation that the names of its tensors are of; None where it holds no aggregator."""
        names = [unwrapped(name) for name in self.tensors]
        layers = [name for name in names if name.startswith((f"{AGGREGATOR_PREFIX}layers.", "aggregator.layers."))]
        if not layers:
            return None
        if any(re.search(r"\.(fusion_by_channel|epl)_", name) for name in layers):
            return "parallel"
        return "added" if any(re.search(r"\.(swin_block|spatial)_first\.", name) for name in layers) else "serial"


def is_model_file(path: Path) -> bool:
    """True for a file that `save_model` wrote.

    Raises:
        CheckpointError: a damaged safetensors file, or one of a training that goes on.
    """
    if not is_file(path, error=CheckpointError):
        return False
    with open(path, "rb") as file:
        if not _is_safetensors(file.read(9)):
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
            order_header(temporary)
        except SafetensorError as error:  # its own errors hide the system's
            raise OSError(None, str(error)) from error


def _bytes_of(path: Path) -> bytes:
    """All of a file, if it may be a checkpoint.

    Raises:
        CheckpointError: it is not, or cannot be read.
    """
    try:
        return existing_file(path).read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror}); copy it again") from error


def _parse(data: bytes, path: Path) -> tuple[dict[str, str] | None, Any]:
    """Own metadata, if there is some, and what else the file holds."""
    if not _is_safetensors(data):
        try:
            return None, read_pickled(data, path)
        except UnknownFileError as error:
            refuse_known(data, path)
            if path.suffix.lower() == ".safetensors":
                raise _damaged(path) from error
            raise unknown_file(data, path) from error
    try:
        tensors = load(data)
        length = int.from_bytes(data[:8], "little")
        metadata = json.loads(data[8 : 8 + length]).get("__metadata__") or {}
    except (SafetensorError, ValueError) as error:
        raise _damaged(path) from error
    if metadata.get("format") == VOCABULARY_FORMAT:
        raise CheckpointError(f"{path}: is a vocabulary of pcaseg; give it as --vocabulary, and here the model")
    return _own_metadata(metadata, path), tensors


def _state_dict(content: Any, path: Path) -> dict[str, Tensor | OddTensor]:
    """The tensors by name, taken out of what a training keeps them in.

    Raises:
        CheckpointError: there are none.
    """
    while isinstance(content, dict) and (held := next(filter(_holds_tensors, map(content.get, _CONTAINERS)), None)):
        content = held
    tensors = {}
    if isinstance(content, dict):
        tensors = {name: t for name, t in content.items() if isinstance(name, str) and isinstance(t, _TENSOR)}
    if not tensors:
        raise CheckpointError(f"{path}: {_what_instead(content)}; save the model's state_dict and use that file")
    return tensors


def _holds_tensors(value: Any) -> bool:
    """True for a mapping with tensors by name, at any depth."""
    return isinstance(value, dict) and any(isinstance(v, _TENSOR) or _holds_tensors(v) for v in value.values())


def _what_instead(content: Any) -> str:
    """Words for a message about what a file holds instead of tensors by name."""
    if not isinstance(content, dict):
        return "holds no tensors by name"
    if "param_groups" in content or "optimizer" in content:
        return "holds the state of an optimizer, and no tensors of a model by name"
    names = ", ".join(shown(str(name)) for name in list(content)[:4])
    return f"holds no tensors by name, but {names or 'nothing'}"


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


def _is_safetensors(head: bytes) -> bool:
    """By content, not by name: eight bytes of a length that safetensors permits, then a JSON object."""
    return head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= _LONGEST_HEADER


def _weight(tensor: Tensor | OddTensor, name: str, path: Path) -> Tensor:
    """A weight as float32, if it can be one; a derived entry as it is."""
    if isinstance(tensor, OddTensor):
        raise _odd(tensor.kind, name, path)
    if DERIVED.search(name):
        return tensor
    if not tensor.is_floating_point():
        raise _odd(f"{tensor.dtype} values".removeprefix("torch."), name, path)
    tensor = tensor.float()
    if not torch.isfinite(tensor).all():
        raise CheckpointError(f"{path}: {name} holds values that are not finite; use another checkpoint")
    return tensor


def _odd(kind: str, name: str, path: Path) -> CheckpointError:
    return CheckpointError(f"{path}: {name} holds {kind}, not plain floating numbers; use another checkpoint")
