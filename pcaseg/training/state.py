"""The checkpoint of a training: one safetensors file, written whole or not at all, from which it goes on to the bit."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from pcaseg.configs import Aggregation, DenseMode
from pcaseg.errors import CheckpointError
from pcaseg.files import remove_partial
from pcaseg.model.checkpoint_file import write_tensors
from pcaseg.training.learner import Learner
from pcaseg.training.recipes import Recipe

FORMAT = "pcaseg-training-1"
CHECKPOINT = "checkpoint.safetensors"
"""Its name in the folder of a training."""

_SAID = {"start": "SHA-256 of the weights at the start"}
"""Names, for messages, of fields whose own name says too little."""

_MOMENTS = ("step", "exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class Identity:
    """Settings that decide every bit of a training; a checkpoint goes on only with the same.

    Attributes:
        preset: its name.
        aggregation, dense_mode: as of `load_model`.
        recipe: in full.
        seed: of weights and data.
        data: what the stream is, such as `scenes` or a data set's name.
        start: SHA-256 of the weights at the start.
        precision: of the towers' and the aggregator's arithmetic.
    """

    preset: str
    aggregation: Aggregation
    dense_mode: DenseMode
    recipe: Recipe
    seed: int
    data: str
    start: str
    precision: str


@dataclass
class TrainingState:
    """All that changes from step to step. No random numbers: only the stream draws, and from the step's number alone.

    Attributes:
        learner: model and towers' logits.
        optimizer: AdamW.
        scaler: of float16; switched off otherwise.
        average: running average of the model's state by name; empty where none is kept.
        step: steps done.
    """

    learner: Learner
    optimizer: torch.optim.AdamW
    scaler: torch.amp.GradScaler
    average: dict[str, Tensor]
    step: int = 0


def save_state(state: TrainingState, identity: Identity, folder: Path) -> None:
    """Writes the checkpoint; the former one stands until the new one is whole.

    Raises:
        OutputError: it cannot be written, as on a full disk; the former one is intact.
    """
    metadata = {
        "format": FORMAT,
        "step": str(state.step),
        "identity": json.dumps(asdict(identity)),
        "scaler": json.dumps(state.scaler.state_dict()),
    }
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in _named_tensors(state)}
    write_tensors(tensors, folder / CHECKPOINT, metadata)


def restore_state(state: TrainingState, identity: Identity, folder: Path) -> None:
    """Fills `state` from the folder's checkpoint.

    Raises:
        CheckpointError: it is damaged, or of another training; `state` is then untouched.
    """
    path = folder / CHECKPOINT
    remove_partial(path)
    metadata, tensors = _read(path)
    try:
        stored, step = json.loads(metadata["identity"]), int(metadata["step"])
        scaler = json.loads(metadata["scaler"])
    except (KeyError, ValueError) as error:
        raise CheckpointError(f"{path}: its metadata is damaged; start the training anew in another folder") from error
    _check_identity(stored, asdict(identity), path)
    for name, parameter in state.learner.named_parameters():
        if f"moment.exp_avg.{name}" in tensors:
            state.optimizer.state[parameter] = {m: torch.zeros_like(parameter) for m in _MOMENTS[1:]}
            state.optimizer.state[parameter]["step"] = torch.tensor(0.0)
    targets = dict(_named_tensors(state))
    if {name: t.shape for name, t in targets.items()} != {name: t.shape for name, t in tensors.items()}:
        raise CheckpointError(f"{path}: its weights do not fit this training; start it anew in another folder")
    with torch.no_grad():
        for name, target in targets.items():
            target.copy_(tensors[name])
    state.scaler.load_state_dict(scaler)
    state.step = step


def _named_tensors(state: TrainingState) -> Iterator[tuple[str, Tensor]]:
    """Every tensor of the state, the live ones, by name."""
    for name, tensor in state.learner.state_dict().items():
        yield f"learner.{name}", tensor
    for name, parameter in state.learner.named_parameters():
        for moment in _MOMENTS:
            if parameter in state.optimizer.state:
                yield f"moment.{moment}.{name}", state.optimizer.state[parameter][moment]
    for name, tensor in state.average.items():
        yield f"average.{name}", tensor


def _read(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path}: damaged or half-copied ({error}); copy it again, or start the training anew in another folder"
        ) from error
    if metadata.get("format") != FORMAT:
        raise CheckpointError(f"{path}: not a checkpoint of a training; start the training in another folder")
    return metadata, tensors


def _check_identity(stored: Any, wanted: dict[str, Any], path: Path) -> None:
    """Refuses the checkpoint of another training, naming what differs."""
    wanted = json.loads(json.dumps(wanted))  # tuples become lists there
    for name in wanted:
        found = stored.get(name) if isinstance(stored, dict) else None
        if found != wanted[name]:
            what, found, value = _difference(_SAID.get(name, name), found, wanted[name])
            raise CheckpointError(
                f"{path}: is of a training with another {what} ({found}, not {value}); resume with the same options, "
                "or choose another folder"
            )


def _difference(name: str, found: Any, wanted: Any) -> tuple[str, Any, Any]:
    """The first part of `name` that differs, such as `recipe's stage 2's steps`, as found and as wanted."""
    parts: list[tuple[str, Any, Any]] = []
    if isinstance(found, dict) and isinstance(wanted, dict):
        parts = [(f"{name}'s {key}", found.get(key), value) for key, value in wanted.items()]
    elif name.endswith("stages") and isinstance(found, list) and len(found) == len(wanted):
        pairs = zip(found, wanted, strict=True)
        parts = [(f"{name.removesuffix('s')} {place}", *pair) for place, pair in enumerate(pairs, 1)]
    for part, one, other in parts:
        if one != other:
            return _difference(part, one, other)
    return name, found, wanted
