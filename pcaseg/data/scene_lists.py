"""Lists of names for scenes: in training true names and hard negatives, in evaluation also a label for every pixel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from pcaseg.data.scene_names import (
    BACKGROUNDS,
    COLOURS,
    HELD_OUT,
    OBJECTS,
    PART_NAMES,
    PARTS,
    SEEN_PAIRS,
    THING,
    THINGS,
    Meaning,
    NameKind,
    meaning_of,
    pair_name,
)
from pcaseg.data.scenes import Scene

ListKind = Literal["pair", "plain", "part"]

KIND_SHARES: dict[ListKind, float] = {"pair": 0.45, "plain": 0.15, "part": 0.4}
"""Share of the training lists of each kind. Their true names are of it, with the backgrounds; `plain` are kinds of
objects or colours of things."""

MOST_TRUE = 0.6
"""Largest share of a list that occurs: the rest are names that do not occur."""

HARD_SHARE = 0.75
"""Share of the names that do not occur which differ from one that does in its colour or object alone."""

_KINDS: dict[ListKind, tuple[NameKind, ...]] = {"pair": ("pair",), "plain": ("plain", "thing"), "part": ("part",)}
_NAMES: dict[ListKind, tuple[str, ...]] = {"pair": SEEN_PAIRS, "plain": (*OBJECTS, *THINGS), "part": PART_NAMES}
TRAINING_NAMES = (*SEEN_PAIRS, *OBJECTS, *THINGS, *PART_NAMES, *BACKGROUNDS)
"""All that training lists may name: 74, without the held-out pairs."""


def training_list(scene: Scene, length: int, rng: np.random.Generator) -> tuple[str, ...]:
    """A list of names for a training scene, in random order, no held-out pair among them.

    Args:
        scene: of the split `training`.
        length: T, up to 74.
        rng: what decides.
    """
    kind = list(KIND_SHARES)[int(rng.choice(len(KIND_SHARES), p=list(KIND_SHARES.values())))]
    true = [name for part in _KINDS[kind] for name in scene.present(part)]
    true = _shuffled([*true, *scene.present("background")], rng)[: max(1, int(MOST_TRUE * length))]
    absent = [name for name in TRAINING_NAMES if name not in scene.painted]
    hard = _shuffled(sorted(set(absent) & {other for name in true for other in neighbours(name)}), rng)
    same = _shuffled([name for name in absent if name in _NAMES[kind] or name in BACKGROUNDS], rng)
    wanted = round(HARD_SHARE * (length - len(true)))
    chosen = _first_distinct([*true, *hard[:wanted], *same, *_shuffled(absent, rng)], length)
    if len(chosen) < length:
        chosen = _first_distinct([*chosen, *_shuffled(TRAINING_NAMES, rng)], length)
    return tuple(_shuffled(chosen, rng))


def evaluation_list(scene: Scene, kind: Literal["pair", "part"], length: int, rng: np.random.Generator) -> list[str]:
    """A list that has a name for every object and background of a scene, filled with hard distractors.

    Args:
        scene: of any split.
        kind: `pair` names objects with their colours, `part` their parts; held-out pairs are names like others.
        length: T; the list is longer where the scene shows more.
        rng: what decides.

    Returns:
        The names in random order. Distractors first differ from what is there in colour or object alone.
    """
    true = [*scene.present(kind), *scene.present("background")]
    names = (*SEEN_PAIRS, *HELD_OUT, *BACKGROUNDS) if kind == "pair" else (*PART_NAMES, *BACKGROUNDS)
    near = {other for name in true for other in neighbours(name)}
    hard = _shuffled([name for name in names if name in near], rng)
    chosen = _first_distinct([*true, *hard, *_shuffled(names, rng)], max(length, len(true)))
    return _shuffled(chosen, rng)


def neighbours(name: str) -> tuple[str, ...]:
    """The names of the same kind that differ in one word, held-out pairs among them.

    >>> neighbours("car wheel")
    ('car body', 'car window')
    >>> neighbours("red thing")[:2]
    ('orange thing', 'yellow thing')

    Raises:
        VocabularyError: scenes do not know the name.
    """
    meaning = meaning_of(name)
    others = _neighbours(meaning)
    return tuple(other for other in others if other != name)


def _neighbours(meaning: Meaning) -> Sequence[str]:
    if meaning.background is not None:
        return BACKGROUNDS
    if meaning.part is not None:
        assert meaning.object is not None
        alike = [f"{kind} {meaning.part}" for kind in OBJECTS if kind != meaning.object and meaning.part in PARTS[kind]]
        return [*(f"{meaning.object} {part}" for part in PARTS[meaning.object]), *alike]
    if meaning.colour is None:
        return OBJECTS
    if meaning.object is None:
        return [pair_name(colour, THING) for colour in COLOURS]
    return [
        *(pair_name(colour, meaning.object) for colour in COLOURS),
        *(pair_name(meaning.colour, kind) for kind in OBJECTS),
    ]


def _shuffled(names: Sequence[str], rng: np.random.Generator) -> list[str]:
    return [names[index] for index in rng.permutation(len(names))]


def _first_distinct(names: Sequence[str], count: int) -> list[str]:
    return list(dict.fromkeys(names))[:count]
