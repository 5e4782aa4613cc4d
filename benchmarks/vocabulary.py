"""The vocabularies that measurements run with."""

from __future__ import annotations

from pcaseg.class_lists import class_list

LARGEST = 847


def first_names(count: int) -> tuple[str, ...]:
    """The first `count` names of `ade20k_847`: a vocabulary of any size up to 847.

    >>> first_names(2)
    ('wall', 'building, edifice')
    """
    return class_list("ade20k_847")[:count]
