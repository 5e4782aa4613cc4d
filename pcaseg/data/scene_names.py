"""Names of all that scenes show, and their meanings: "red car", "car", "red thing", "car wheel", "sky"."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Literal

from pcaseg.errors import VocabularyError

COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "white", "black")
OBJECTS = ("car", "house", "tree", "boat", "ball", "mug")
BACKGROUNDS = ("sky", "grass", "water", "road", "sand")
PARTS = {
    "car": ("body", "wheel", "window"),
    "house": ("wall", "roof", "door", "window"),
    "tree": ("trunk", "crown"),
    "boat": ("hull", "sail"),
    "ball": ("stripe",),
    "mug": ("body", "rim", "handle"),
}
"""Named parts of each object. A boat's mast and a ball beside its stripe belong to no part."""

HELD_OUT = (
    "blue car", "yellow house", "white house", "purple tree", "red boat", "green ball", "orange mug", "black mug",
)  # fmt: skip
"""Pairs that no training scene shows and no training list names. Each colour is held out with one object; every
object keeps at least six colours."""

THING = "thing"
"""Word for an object of any kind, as in "red thing"."""

NameKind = Literal["pair", "plain", "thing", "part", "background"]


@dataclass(frozen=True)
class Meaning:
    """Meaning of a name for a pixel; what is None is left open.

    Attributes:
        object: one of `OBJECTS`.
        colour: one of `COLOURS`.
        part: one of `PARTS[object]`.
        background: one of `BACKGROUNDS`, alone.
    """

    object: str | None = None
    colour: str | None = None
    part: str | None = None
    background: str | None = None

    def covers(self, other: Meaning) -> bool:
        """True where all that this says holds for `other`, which says everything of one pixel."""
        mine = (self.object, self.colour, self.part, self.background)
        theirs = (other.object, other.colour, other.part, other.background)
        return all(wanted in (None, found) for wanted, found in zip(mine, theirs, strict=True))


def pair_name(colour: str, kind: str) -> str:
    """
    >>> pair_name("red", "car")
    'red car'
    """
    return f"{colour} {kind}"


PAIRS = tuple(pair_name(colour, kind) for kind in OBJECTS for colour in COLOURS)
SEEN_PAIRS = tuple(pair for pair in PAIRS if pair not in HELD_OUT)
THINGS = tuple(pair_name(colour, THING) for colour in COLOURS)
PART_NAMES = tuple(f"{kind} {part}" for kind, parts in PARTS.items() for part in parts)


@lru_cache(maxsize=1)
def meanings() -> dict[str, Meaning]:
    """Every name that scenes know, the held-out pairs among them, and its meaning."""
    table = {pair_name(colour, kind): Meaning(kind, colour) for kind in OBJECTS for colour in COLOURS}
    table |= {kind: Meaning(kind) for kind in OBJECTS}
    table |= {pair_name(colour, THING): Meaning(colour=colour) for colour in COLOURS}
    table |= {f"{kind} {part}": Meaning(kind, part=part) for kind, parts in PARTS.items() for part in parts}
    return table | {name: Meaning(background=name) for name in BACKGROUNDS}


def meaning_of(name: str) -> Meaning:
    """
    >>> meaning_of("car wheel")
    Meaning(object='car', colour=None, part='wheel', background=None)

    Raises:
        VocabularyError: scenes do not know the name.
    """
    if name not in meanings():
        raise VocabularyError(f"{name!r}: no name that scenes know; give one such as 'red car', 'car wheel' or 'sky'")
    return meanings()[name]


@cache
def names_covering(paint: Meaning) -> frozenset[str]:
    """The names that hold for what `paint` says of one pixel; there are some two hundred such meanings."""
    return frozenset(name for name, meaning in meanings().items() if meaning.covers(paint))


def names_of(kind: NameKind) -> tuple[str, ...]:
    """All names of a kind, held-out pairs among them.

    >>> len(names_of("pair")), len(names_of("part"))
    (48, 15)
    """
    table: dict[NameKind, tuple[str, ...]] = {
        "pair": PAIRS, "plain": OBJECTS, "thing": THINGS, "part": PART_NAMES, "background": BACKGROUNDS,
    }  # fmt: skip
    return table[kind]
