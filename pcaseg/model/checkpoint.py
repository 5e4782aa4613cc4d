"""Checkpoints in, a model out; never half-loaded, no code in them ever run."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from pcaseg.configs import (
    TRAINED,
    Aggregation,
    DenseMode,
    Preset,
    WeightsKind,
    check_choice,
    get_preset,
    most_kept,
    presets,
)
from pcaseg.errors import CheckpointError, OutputError, PcasegError
from pcaseg.files import refuse_foreign
from pcaseg.model.checkpoint_file import FORMAT, Checkpoint, is_model_file, write_tensors
from pcaseg.model.checkpoint_fit import check_fit, expected_shapes, is_clip
from pcaseg.model.fingerprint import tensors_sha256
from pcaseg.model.names import DERIVED, SEED_ENTRY, canonical_name, from_published, to_published, unwrapped
from pcaseg.model.network import PCASeg, WeightsSource
from pcaseg.model.seeded import seeded_state
from pcaseg.paths import exists, real_path

SHIPPED = Path(__file__).parent.parent / "weights"
"""Folder of the weights that come with the package."""


class SeededWeightsWarning(UserWarning):
    """Some or all weights are drawn from a seed, not trained: labels mean nothing."""


_DRAWING = (Tensor.uniform_, Tensor.normal_, Tensor.erfinv_)
"""What timm draws weights with, beside `torch.nn.init`."""


class _Uninitialised(TorchFunctionMode):
    """Within it, layers are built without drawing weights, which then have to be filled."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if getattr(func, "__module__", None) == nn.init.__name__ or func in _DRAWING:
            return (kwargs or {}).get("tensor", args[0] if args else None)
        return func(*args, **(kwargs or {}))


def load_model(
    preset: str | Preset,
    checkpoint: str | os.PathLike[str] | Checkpoint | Mapping[str, Tensor] | None = None,
    *,
    aggregation: Aggregation = "parallel",
    dense_mode: DenseMode = "csa",
    seed: int = 0,
) -> PCASeg:
    """Builds the model of a preset and fills it.

    Args:
        preset: a name of `pcaseg.presets()`, or a `Preset`.
        checkpoint: a file that `Checkpoint.open` reads, also an opened one, or a mapping, with the published names of
            a whole PCA-Seg or CAT-Seg model or of a CLIP model alone (then the aggregator is drawn from the seed);
            None takes the weights that the package ships for the preset, if it does, and else draws every weight, as
            an empty mapping does. Drawn weights warn with `SeededWeightsWarning`.
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
        opened = checkpoint if isinstance(checkpoint, Checkpoint) else Checkpoint.open(checkpoint)
        model = _fill_from_file(preset, aggregation, dense_mode, opened, seed)
    if model.source.kind not in TRAINED:
        part = "all weights" if model.source.kind == "seeded" else "CLIP's weights are real, those of the aggregator"
        warnings.warn(
            f"{part} are drawn from seed {model.source.seed}, not trained: labels mean nothing",
            SeededWeightsWarning,
            stacklevel=2,
        )
    return model.eval()


def open_model(name_or_path: str | os.PathLike[str], *, shortlist: int | None = None) -> PCASeg:
    """Opens a model by its preset's name or by its file.

    Args:
        name_or_path: a name of `pcaseg.presets()`, for its shipped or seeded weights; or the path of a model file of
            `import_checkpoint` or `save_model`, which states preset, aggregation and dense mode.
        shortlist: the model's own: classes of each window that it aggregates at most, 1 to 256; None for 256.

    Raises:
        PcasegError: `shortlist` is out of range.
        CheckpointError: the file cannot be read, or does not say of which preset it is, as a published one.
    """
    most_kept(shortlist)
    model = _open_model(os.fspath(name_or_path))
    model.shortlist = shortlist
    return model


def _open_model(name: str) -> PCASeg:
    """The model of a preset's name or of a file."""
    if name in presets():
        return load_model(name)
    opened = Checkpoint.open(name)
    if opened.metadata is None:  # its dense mode would be a guess too
        raise CheckpointError(
            f"{name}: does not say its preset; import it first: "
            "pcaseg import CHECKPOINT --preset PRESET --out model.safetensors"
        )
    return load_model(
        opened.metadata["preset"],
        opened,
        aggregation=opened.metadata["aggregation"],  # type: ignore[arg-type]  # load_model checks it
        dense_mode=opened.metadata["dense_mode"],  # type: ignore[arg-type]
    )


def import_checkpoint(
    checkpoint: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    preset: str,
    aggregation: Aggregation | None = None,
    dense_mode: DenseMode = "csa",
    seed: int = 0,
) -> PCASeg:
    """Turns a published checkpoint into a model file, which says what it is of.

    Args:
        checkpoint: file of PCA-Seg, CAT-Seg, or CLIP alone; it is read once.
        out: model file to write, `.safetensors`; a former one is replaced.
        preset: a name of `pcaseg.presets()`.
        aggregation: None for what the names of the tensors are of, or `parallel`.
        dense_mode: as of `load_model`.
        seed: for the aggregator of a checkpoint of CLIP alone.

    Returns:
        The model that was written.

    Raises:
        CheckpointError: the checkpoint cannot be read or does not fit.
        OutputError: `out` is something else than a model file, or cannot be written.
        PcasegError: unknown preset, aggregation or dense mode, or `out` is no name for a model file.
    """
    get_preset(preset)
    source, target = Path(checkpoint), Path(out)
    if target.suffix != ".safetensors":
        raise PcasegError(f"{target}: a model file ends in .safetensors; rename it")
    if exists(source, error=CheckpointError) and real_path(target, error=OutputError) == real_path(source):
        raise PcasegError(f"{target}: is the checkpoint itself; choose another name")
    refuse_foreign(target, is_model_file, "a model file of pcaseg")
    opened = Checkpoint.open(source)
    chosen = aggregation or opened.aggregation or "parallel"
    model = load_model(preset, opened, aggregation=chosen, dense_mode=dense_mode, seed=seed)
    save_model(model, target)
    return model


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
    source = model.source
    file = Path(source.path).name if source.path else None  # not its folder: the same weights are the same bytes
    metadata = {
        "format": FORMAT,
        "preset": model.preset.name,
        "aggregation": model.aggregation,
        "dense_mode": model.dense_mode,
        "source": json.dumps({"kind": source.kind, "file": file, "sha256": source.sha256, "seed": source.seed}),
    }
    published = to_published(model.state_dict(), model.preset)
    if storage == "float16":
        published = {name: t.half() if t.is_floating_point() else t for name, t in published.items()}
    write_tensors({name: t.contiguous().clone() for name, t in published.items()}, path, metadata)


def _shipped(preset: Preset, aggregation: Aggregation, dense_mode: DenseMode) -> Checkpoint | None:
    """The weights that come with the package for this very model; a preset that was changed has none."""
    path = SHIPPED / f"{preset.name}.safetensors"
    if not exists(path) or preset not in map(get_preset, presets()):
        return None
    opened = Checkpoint.open(path)
    stated = opened.metadata or {}
    fits = (stated.get("aggregation"), stated.get("dense_mode")) == (aggregation, dense_mode)
    return opened if fits else None


def _fill_from_file(
    preset: Preset, aggregation: Aggregation, dense_mode: DenseMode, opened: Checkpoint, seed: int
) -> PCASeg:
    _check_metadata(opened.metadata, dense_mode, opened.path)
    model = _fill(preset, aggregation, dense_mode, opened.tensors, opened, seed)
    if opened.metadata is not None:  # a seeded model that was saved stays one
        model.source = replace(model.source, **_origin(opened.metadata, opened.path))
    return model


def _fill(
    preset: Preset,
    aggregation: Aggregation,
    dense_mode: DenseMode,
    given: Mapping[str, Tensor],
    opened: Checkpoint | None,
    seed: int,
) -> PCASeg:
    """A model with the given tensors; those of an absent aggregator, or all if none are given, are drawn."""
    name = str(opened.path) if opened else "checkpoint"
    with _Uninitialised():
        model = PCASeg(preset, aggregation=aggregation, dense_mode=dense_mode)
    expected = expected_shapes(model)
    drawn = dict(expected)
    tensors: dict[str, Tensor] = {}
    if given:
        clip_only = all(is_clip(canonical_name(key, preset)) for key in given if not DERIVED.search(key))
        drawn = {key: shape for key, shape in expected.items() if clip_only and not is_clip(key)}
        required = {key: shape for key, shape in expected.items() if key not in drawn}
        tensors = check_fit(given, required, model, name)
    tensors |= seeded_state(drawn, seed, preset.vision_blocks - 1)
    names = [key for key in model.state_dict() if not key.endswith("num_batches_tracked")]
    model.load_state_dict(from_published(tensors, names, preset), strict=False)
    kind: WeightsKind = "checkpoint" if not drawn else "clip-only" if given else "seeded"
    for key in given:
        if unwrapped(key) == SEED_ENTRY:
            kind, seed = "seeded", _stored_seed(given[key], name)
    digest = opened.sha256 if opened else tensors_sha256(model.state_dict())
    stored_seed = None if kind == "checkpoint" else seed
    model.source = WeightsSource(kind, str(real_path(opened.path)) if opened else None, digest, stored_seed)
    return model


def _stored_seed(entry: Tensor, name: str) -> int:
    if entry.numel() != 1 or entry.is_floating_point() or entry.is_complex():
        raise CheckpointError(f"{name}: {SEED_ENTRY} is not one whole number; make the checkpoint again")
    return int(entry)


def _origin(metadata: Mapping[str, str], path: Path) -> dict[str, Any]:
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


def _check_metadata(metadata: Mapping[str, str] | None, dense_mode: str, path: Path) -> None:
    if metadata is None:
        return
    stored = metadata["dense_mode"]
    if stored not in get_args(DenseMode) or metadata["preset"] not in presets():
        raise CheckpointError(f"{path}: its metadata names an unknown preset or dense mode; import it again")
    if stored != dense_mode:
        raise CheckpointError(f"{path}: was imported with dense_mode={stored!r}, not {dense_mode!r}; use that")
