"""Doctests in docstrings are shown as code: an extension of griffe, which reads the docstrings for mkdocstrings."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object

_DOCTEST = re.compile(r"^>>> .*(?:\n.+)*", re.MULTILINE)


class Doctests(Extension):
    """Puts every doctest that stands in plain text between fences."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Called for each module, class, function and attribute once it is read."""
        if obj.docstring:
            obj.docstring.value = _DOCTEST.sub(lambda doctest: f"```pycon\n{doctest[0]}\n```", obj.docstring.value)
