"""Class lists of the evaluation data sets, shipped with the package.

Names and their order are those of the published evaluation: embeddings depend on the exact
spelling, so nothing is cleaned here.
"""

from __future__ import annotations

import json
from functools import cache, lru_cache
from importlib import resources
from typing import Any

from pcaseg.errors import VocabularyError

_FOLDER = resources.files("pcaseg") / "data" / "class_lists"


@lru_cache(maxsize=1)
def class_list_names() -> tuple[str, ...]:
    """Names of the class lists, sorted: `ade20k_150`, `voc_20`, ..."""
    return tuple(sorted(f.name[: -len(".json")] for f in _FOLDER.iterdir() if f.name.endswith(".json")))


def class_list(name: str) -> tuple[str, ...]:
    """The class names of a data set, in the order of its label ids.

    >>> class_list("voc_20")[:2]
    ('aeroplane', 'bicycle')

    Raises:
        VocabularyError: `name` is not a shipped list; the message names those that are.
    """
    return tuple(class_facts(name)["classes"])


def first_names(count: int) -> tuple[str, ...]:
    """The first `count` names of `ade20k_847`, for a vocabulary of any size up to 847.

    >>> first_names(2)
    ('wall', 'building, edifice')
    """
    return class_list("ade20k_847")[:count]


@cache
def class_facts(name: str) -> dict[str, Any]:
    """All of a class list's file: names, value of unlabelled pixels, raw ids, names seen in training; do not change it.

    Raises:
        VocabularyError: as `class_list`.
    """
    if name not in class_list_names():
        raise VocabularyError(f"{name}: no such class list; the lists are {', '.join(class_list_names())}")
    return json.loads((_FOLDER / f"{name}.json").read_text(encoding="utf-8"))
