"""Checkpoints in, a model out; never half-loaded, never unpickled."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal, get_args

from torch import Tensor

from pcaseg.configs import TRAINED, Aggregation, DenseMode, Preset, WeightsKind, check_choice, get_preset, presets
from pcaseg.errors import CheckpointError
from pcaseg.files import sha256_of
from pcaseg.model.checkpoint_file import FORMAT, read_checkpoint, read_metadata, write_tensors
from pcaseg.model.checkpoint_fit import check_fit, expected_shapes, is_clip
from pcaseg.model.fingerprint import tensors_sha256
from pcaseg.model.names import SEED_ENTRY, canonical, from_published, to_published
from pcaseg.model.network import PCASeg, WeightsSource
from pcaseg.model.seeded import seeded_state

SHIPPED = Path(__file__).parent.parent / "weights"
"""Folder of the weights that come with the package."""


class SeededWeightsWarning(UserWarning):
    """Some or all weights are drawn from a seed, not trained: labels mean nothing."""


def load_model(
    preset: str | Preset,
    checkpoint: str | os.PathLike[str] | Mapping[str, Tensor] | None = None,
    *,
    aggregation: Aggregation = "parallel",
    dense_mode: DenseMode = "csa",
    seed: int = 0,
) -> PCASeg:
    """Builds the model of a preset and fills it.

    Args:
        preset: a name of `pcaseg.presets()`, or a `Preset`.
        checkpoint: a `.pth`, `.pt` or `.safetensors` file, or a mapping, with the published names of a whole
            PCA-Seg or CAT-Seg model or of a CLIP model alone (then the aggregator is drawn from the seed); None takes
            the weights that the package ships for the preset, if it does, and else draws every weight, as an empty
            mapping does. Drawn weights warn with `SeededWeightsWarning`.
        aggregation: `parallel` (PCA-Seg) or `serial` (CAT-Seg).
        dense_mode: attention of EVA02's last block, `csa` or `qq`; OpenAI's tower has none.
        seed: of drawn weights.

    Returns:
        The model in evaluation mode, float32, on the CPU; its `source` says where the weights came from.

    Raises:
        CheckpointError: the file cannot be read or does not fit; all that does not fit is listed.
        PcasegError: unknown preset, aggregation or dense mode.
    """
    preset = get_preset(preset)
    check_choice(aggregation, Aggregation, what="aggregation")
    check_choice(dense_mode, DenseMode, what="dense_mode")
    if checkpoint is None and (shipped := _shipped(preset, aggregation, dense_mode)):
        model = _fill_from_file(preset, aggregation, dense_mode, shipped, seed)
        model.source = WeightsSource("shipped", None, model.source.sha256, None)
    elif checkpoint is None:
        model = _fill(preset, aggregation, dense_mode, {}, None, seed)
    elif isinstance(checkpoint, Mapping):
        model = _fill(preset, aggregation, dense_mode, checkpoint, None, seed)
    else:
        model = _fill_from_file(preset, aggregation, dense_mode, Path(checkpoint), seed)
    if model.source.kind not in TRAINED:
        part = "all weights" if model.source.kind == "seeded" else "CLIP's weights are real, those of the aggregator"
        warnings.warn(
            f"{part} are drawn from seed {model.source.seed}, not trained: labels mean nothing",
            SeededWeightsWarning,
            stacklevel=2,
        )
    return model.eval()


def open_model(name_or_path: str | os.PathLike[str]) -> PCASeg:
    """Opens a preset's shipped or seeded weights by its name, or a model file by its path.

    Raises:
        CheckpointError: the path is no model file of `save_model`.
    """
    name = os.fspath(name_or_path)
    return load_model(name) if name in presets() else load_saved_model(name)


def save_model(
    model: PCASeg, path: str | os.PathLike[str], *, storage: Literal["float32", "float16"] = "float32"
) -> None:
    """Writes a model as safetensors: published names, and in the metadata all that loading it needs.

    Args:
        model: the model.
        path: the file.
        storage: type of the stored numbers; half of the bytes in float16, read as float32 either way.

    Raises:
        OutputError: the path cannot be written; nothing is left behind.
    """
    metadata = {
        "format": FORMAT,
        "preset": model.preset.name,
        "aggregation": model.aggregation,
        "dense_mode": model.dense_mode,
        "source": json.dumps(asdict(model.source)),
    }
    published = to_published(model.state_dict(), model.preset)
    if storage == "float16":
        published = {name: t.half() if t.is_floating_point() else t for name, t in published.items()}
    write_tensors({name: t.contiguous().clone() for name, t in published.items()}, path, metadata)


def load_saved_model(path: str | os.PathLike[str]) -> PCASeg:
    """Loads a file that `save_model` wrote, as the preset, aggregation and dense mode that it states.

    Raises:
        CheckpointError: another file.
    """
    metadata = read_metadata(path)
    if metadata is None:
        raise CheckpointError(
            f"{path}: does not say its preset; import it first: "
            "pcaseg import CHECKPOINT --preset PRESET --out model.safetensors"
        )
    return load_model(
        metadata["preset"],
        path,
        aggregation=metadata["aggregation"],  # type: ignore[arg-type]  # load_model checks it
        dense_mode=metadata["dense_mode"],  # type: ignore[arg-type]
    )


def _shipped(preset: Preset, aggregation: Aggregation, dense_mode: DenseMode) -> Path | None:
    """The weights that come with the package for this very model; a preset that was changed has none."""
    path = SHIPPED / f"{preset.name}.safetensors"
    if not path.exists() or preset not in map(get_preset, presets()):
        return None
    metadata = read_metadata(path)
    fits = metadata is not None and (metadata["aggregation"], metadata["dense_mode"]) == (aggregation, dense_mode)
    return path if fits else None


def _fill_from_file(preset: Preset, aggregation: Aggregation, dense_mode: DenseMode, path: Path, seed: int) -> PCASeg:
    metadata = read_metadata(path)
    _check_metadata(metadata, dense_mode, path)
    model = _fill(preset, aggregation, dense_mode, read_checkpoint(path), path, seed)
    if metadata is not None:  # a seeded model that was saved stays one
        model.source = replace(model.source, **_origin(metadata, path))
    return model


def _fill(
    preset: Preset,
    aggregation: Aggregation,
    dense_mode: DenseMode,
    given: Mapping[str, Tensor],
    path: Path | None,
    seed: int,
) -> PCASeg:
    """A model with the given tensors; those of an absent aggregator, or all if none are given, are drawn."""
    name = str(path or "checkpoint")
    model = PCASeg(preset, aggregation=aggregation, dense_mode=dense_mode)
    expected = expected_shapes(model)
    drawn = dict(expected)
    tensors: dict[str, Tensor] = {}
    if given:
        clip_only = all(is_clip(key) for key in canonical(given, preset))
        drawn = {key: shape for key, shape in expected.items() if clip_only and not is_clip(key)}
        required = {key: shape for key, shape in expected.items() if key not in drawn}
        tensors = check_fit(given, required, model, name)
    tensors |= seeded_state(drawn, seed, preset.vision_blocks - 1)
    names = [key for key in model.state_dict() if not key.endswith("num_batches_tracked")]
    model.load_state_dict(from_published(tensors, names, preset), strict=False)
    kind: WeightsKind = "checkpoint" if not drawn else "clip-only" if given else "seeded"
    if SEED_ENTRY in given:
        kind, seed = "seeded", _stored_seed(given[SEED_ENTRY], name)
    digest = sha256_of(path) if path else tensors_sha256(model.state_dict())
    stored_seed = None if kind == "checkpoint" else seed
    model.source = WeightsSource(kind, str(path.resolve()) if path else None, digest, stored_seed)
    return model


def _stored_seed(entry: Tensor, name: str) -> int:
    if entry.numel() != 1 or entry.is_floating_point() or entry.is_complex():
        raise CheckpointError(f"{name}: {SEED_ENTRY} is not one whole number; make the checkpoint again")
    return int(entry)


def _origin(metadata: dict[str, str], path: Path) -> dict[str, Any]:
    """Kind and seed of the weights that `save_model` was given."""
    try:
        origin = json.loads(metadata["source"])
        kind, seed = origin["kind"], origin["seed"]
        valid = kind in get_args(WeightsKind) and (seed is None if kind in TRAINED else type(seed) is int)
    except (ValueError, KeyError, TypeError):
        valid = False
    if not valid:
        raise CheckpointError(f"{path}: its metadata does not say where the weights come from; import them again")
    return {"kind": kind, "seed": seed}


def _check_metadata(metadata: dict[str, str] | None, dense_mode: str, path: Path) -> None:
    if metadata is None:
        return
    stored = metadata["dense_mode"]
    if stored not in get_args(DenseMode) or metadata["preset"] not in presets():
        raise CheckpointError(f"{path}: its metadata names an unknown preset or dense mode; import it again")
    if stored != dense_mode:
        raise CheckpointError(f"{path}: was imported with dense_mode={stored!r}, not {dense_mode!r}; use that")
