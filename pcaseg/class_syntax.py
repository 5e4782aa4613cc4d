"""Syntax of what a user writes of classes: synonyms and parts within the entries of a list.

    tv; television            one class with two synonyms
    car: wheel, window        the class "car", and its parts "car wheel" and "car window"
    car; automobile: wheel; tyre, window
    tv monitor, television    one class; of the published lists' synonyms, with commas, the first counts

A colon counts where a space follows, so that "16:9 screen" is a name. In one string with several entries, as on the
command line, a semicolon stands between entries.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from pcaseg.class_names import check_class_names, prompt_for
from pcaseg.cleaning import reading
from pcaseg.errors import VocabularyError

_PARTS = re.compile(r"\s*([^:]*\S)\s*:\s+(\S.*)", re.DOTALL)


@dataclass(frozen=True)
class ClassTree:
    """Classes as they were meant.

    Attributes:
        names: of the classes, in the order of the labels; each object stands before its parts.
        synonyms: names of each class that are encoded, one at least.
        objects: index of the object of each class; its own index where it is no part.
    """

    names: tuple[str, ...]
    synonyms: tuple[tuple[str, ...], ...]
    objects: tuple[int, ...]

    @classmethod
    def plain(cls, names: Sequence[str]) -> ClassTree:
        """Names taken as they are, whatever marks they hold, as those of published lists.

        Raises:
            VocabularyError: as `check_class_names`.
        """
        names = check_class_names(names)
        return cls(names, tuple((name,) for name in names), tuple(range(len(names))))


def has_syntax(text: str) -> bool:
    """True for a string of entries or with parts.

    >>> has_syntax("car: wheel"), has_syntax("cat; dog"), has_syntax("C:names.txt")
    (True, True, False)
    """
    return ";" in text or _PARTS.fullmatch(text) is not None


def split_classes(text: str) -> list[str]:
    """Splits a string of entries: at semicolons if it has any, else at commas if it has no parts.

    >>> split_classes("cat, grass")
    ['cat', 'grass']
    >>> split_classes("cat; tv monitor, television")
    ['cat', 'tv monitor, television']
    >>> split_classes("car: wheel, window")
    ['car: wheel, window']
    """
    if ";" not in text and _PARTS.fullmatch(text):
        return [text.strip()]
    return [part.strip() for part in text.split(";" if ";" in text else ",")]


def read_classes(entries: Sequence[str], *, source: str = "class list") -> ClassTree:
    """Reads the entries of a list.

    >>> read_classes(["car: wheel", "tv; television"]).names
    ('car', 'car wheel', 'tv; television')

    Args:
        entries: see the module.
        source: what messages call the list.

    Raises:
        VocabularyError: as `check_class_names`, or an entry with parts that cannot be told apart, or a name that stands
            twice among all synonyms.
    """
    entries = check_class_names(entries, source=source)
    names: list[str] = []
    synonyms: list[tuple[str, ...]] = []
    objects: list[int] = []
    for entry in entries:
        match, place = _PARTS.fullmatch(entry), len(names)
        whole = entry if match is None else _object_of(entry, match[1], source)
        parts = [] if match is None else _parts_of(entry, match[2], source)
        first = _synonyms(whole)[0]
        named = [tuple(f"{first} {one}" for one in _synonyms(part)) for part in parts]
        names += [whole, *("; ".join(group) for group in named)]
        synonyms += [_synonyms(whole), *named]
        objects += [place] * (1 + len(parts))
    if tuple(names) != entries or any(len(group) > 1 for group in synonyms):
        check_class_names(names, source=source)
        _check_all(names, synonyms, source)
    return ClassTree(tuple(names), tuple(synonyms), tuple(objects))


def _synonyms(name: str) -> tuple[str, ...]:
    if ";" not in name:
        return (name,)  # published names keep their very spelling, spaces too
    return tuple(part.strip() for part in name.split(";") if part.strip(" ,")) or (name,)


def _object_of(entry: str, name: str, source: str) -> str:
    if "," in name:
        raise VocabularyError(
            f"{source}: {entry[:60]!r} has a comma before its parts; put a semicolon between classes, and between "
            "synonyms"
        )
    return name


def _parts_of(entry: str, text: str, source: str) -> list[str]:
    parts = [part.strip() for part in text.split(",")]
    if any(not part.strip(" ;") or re.search(r":(\s|$)", part) for part in parts):
        raise VocabularyError(
            f"{source}: {entry[:60]!r} has a blank part or parts of a part; write 'car: wheel, window', with a "
            "semicolon between classes"
        )
    return parts


def _check_all(names: Sequence[str], synonyms: Sequence[Sequence[str]], source: str) -> None:
    """Refuses synonyms that are one to the text tower; those of plain names were compared before."""
    counted: dict[str, str] = {}
    for name, group in zip(names, synonyms, strict=True):
        for one in group:
            read = reading(prompt_for(one))
            if read in counted and (len(group) > 1 or ";" in counted[read]):
                raise VocabularyError(
                    f"{source}: {one[:60]!r} stands in {counted[read][:60]!r} and again in {name[:60]!r}; keep one"
                )
            counted[read] = name
