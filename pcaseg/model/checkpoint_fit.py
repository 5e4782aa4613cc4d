"""Fit of a checkpoint to a model, and if there is none, all of what does not fit in one message."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Callable, Mapping
from functools import cache
from typing import get_args

import torch
from torch import Tensor

from pcaseg.configs import Aggregation, Preset, get_preset, presets
from pcaseg.errors import CheckpointError
from pcaseg.model.names import CLIP_PREFIX, DERIVED, canonical, to_published
from pcaseg.model.network import PCASeg

LISTED = 8
"""Names listed per kind of mismatch before the message says how many more there are."""

Shapes = dict[str, tuple[int, ...]]


def expected_shapes(model: PCASeg) -> Shapes:
    """Shape by published name of all that a whole checkpoint of this model must hold."""
    return shapes_of(to_published(model.state_dict(), model.preset))


def shapes_of(tensors: Mapping[str, Tensor]) -> Shapes:
    """Shape by name, derived entries left out."""
    return {name: tuple(tensor.shape) for name, tensor in tensors.items() if not DERIVED.search(name)}


def is_clip(name: str) -> bool:
    """True where a canonical published name belongs to CLIP, and not to what PCA-Seg adds."""
    return name.startswith(CLIP_PREFIX)


def check_fit(given: Mapping[str, Tensor], required: Shapes, model: PCASeg, source: str) -> dict[str, Tensor]:
    """The given tensors under their canonical published names, if they are exactly the required ones.

    Raises:
        CheckpointError: two of them are the same entry; or it names, as the file would, what is missing, unexpected
            (with the nearest missing name) and of another shape, and the preset and aggregation that the checkpoint
            does fit, if any.
    """
    tensors, keys = canonical(given, model.preset)
    for names in keys.values():
        if len(names) > 1:
            raise CheckpointError(f"{source}: {names[0]} and {names[1]} are the same entry; leave one of them out")
    shapes = shapes_of(tensors)
    if shapes == required:
        return tensors
    spelt = _spelling({name: names[0] for name, names in keys.items()})
    missing = [name for name in required if name not in shapes]
    unexpected = [name for name in shapes if name not in required]
    misshaped = [name for name in required if name in shapes and shapes[name] != required[name]]
    fits = _fitting(given)
    mend = f"it is one of {fits}: use that" if fits else "use a checkpoint of this preset"
    parts = (
        _listing("missing", missing, spelt),
        _listing("unexpected", unexpected, lambda name: spelt(name) + _nearest(name, missing, spelt)),
        _listing(
            "of another shape", misshaped, lambda n: f"{spelt(n)} {list(shapes[n])} instead of {list(required[n])}"
        ),
    )
    raise CheckpointError(
        f"{source}: does not fit preset {model.preset.name} with aggregation {model.aggregation}; {mend}. "
        + "; ".join(part for part in parts if part)
    )


def _spelling(keys: Mapping[str, str]) -> Callable[[str], str]:
    """Spelling of canonical names in a file: as it has them, or else with the prefixes of their nearest relatives.

    Args:
        keys: the file's name by canonical name.
    """
    prefixes: dict[str, Counter[str]] = {}
    for name, key in keys.items():
        ours, theirs = name.split("."), key.split(".")
        while ours and theirs and ours[-1] == theirs[-1]:
            ours.pop(), theirs.pop()
        prefixes.setdefault(_dotted(ours), Counter())[_dotted(theirs)] += 1

    def spelt(name: str) -> str:
        if name in keys:
            key, last = keys[name], name.rpartition(".")[2]
            return key if key.endswith(last) else f"{last} of {key}"
        prefix = max((prefix for prefix in prefixes if name.startswith(prefix)), key=len, default=None)
        if prefix is None:
            return name
        return prefixes[prefix].most_common(1)[0][0] + name.removeprefix(prefix)

    return spelt


def _dotted(parts: list[str]) -> str:
    return "".join(f"{part}." for part in parts)


def _listing(what: str, names: list[str], describe: Callable[[str], str]) -> str:
    if not names:
        return ""
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return f"{len(names)} {what}: {', '.join(describe(name) for name in names[:LISTED])}{more}"


def _nearest(name: str, candidates: list[str], spelt: Callable[[str], str]) -> str:
    near = difflib.get_close_matches(name, candidates, n=1, cutoff=0.8)
    return f" (nearest: {spelt(near[0])})" if near else ""


def _fitting(given: Mapping[str, Tensor]) -> str | None:
    """The preset and aggregation that a checkpoint fits, if any."""
    for name in presets():
        preset = get_preset(name)
        shapes = shapes_of(canonical(given, preset)[0])
        for aggregation in get_args(Aggregation):
            expected = _shapes_without_memory(preset, aggregation)
            if shapes == expected:
                return f"preset {name} with aggregation {aggregation}"
            if shapes == {name: shape for name, shape in expected.items() if is_clip(name)}:
                return f"preset {name} (CLIP alone)"
    return None


@cache
def _shapes_without_memory(preset: Preset, aggregation: Aggregation) -> Shapes:
    with torch.device("meta"):
        return expected_shapes(PCASeg(preset, aggregation=aggregation, dense_mode="csa"))
