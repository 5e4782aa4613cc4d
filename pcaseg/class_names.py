"""From the class names a user gives to the prompts that the text tower reads.

Shared by the eager model and the torch-free runtime, so that both see the same prompt.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Sequence

from pcaseg.errors import VocabularyError

PROMPT_TEMPLATE = "A photo of a {} in the scene"
"""The one published prompt (PCA-Seg and CAT-Seg configurations)."""

MAX_NAME_CHARACTERS = 500
"""Longer names are refused as mistakes. The text tower reads 77 tokens of a prompt and drops the rest: of names
beyond some 200 characters it may miss the end."""


def check_class_names(names: Sequence[str], *, source: str = "class list") -> tuple[str, ...]:
    """Returns `names` as a tuple, or says what is wrong with them.

    Args:
        names: class names; comma-separated synonyms within one name are allowed.
        source: what the message calls the list, such as a file name.

    Raises:
        VocabularyError: the list is empty or a bare string; a name is not a string, blank, longer than
            `MAX_NAME_CHARACTERS`, holds control characters, or occurs twice (case and outer spaces aside: the
            tower cannot tell them apart).
    """
    if isinstance(names, (str, bytes)):
        raise VocabularyError(f"{source}: expected a list of names, got one string; write [{names!r}] instead")
    names = tuple(names)
    if not names:
        raise VocabularyError(f"{source}: no class names; give at least one")
    seen: dict[str, int] = {}
    for index, name in enumerate(names):
        if not isinstance(name, str):
            raise VocabularyError(f"{source}: class {index} is {type(name).__name__}, not a string; give names only")
        if not first_synonym(name).strip():
            raise VocabularyError(f"{source}: class {index} is blank ({name[:60]!r}); remove it or name it")
        if any(unicodedata.category(character) in ("Cc", "Cs") for character in name):
            raise VocabularyError(f"{source}: class {index} ({name[:30]!r}) holds a control character; remove it")
        if len(name) > MAX_NAME_CHARACTERS:
            raise VocabularyError(
                f"{source}: class {index} ({name[:30]!r}...) has {len(name)} characters; "
                f"shorten it to {MAX_NAME_CHARACTERS} or fewer"
            )
        key = name.strip().lower()
        if key in seen:
            raise VocabularyError(f"{source}: {name.strip()!r} is both class {seen[key]} and class {index}; keep one")
        seen[key] = index
    return names


def first_synonym(name: str) -> str:
    """The part of a name before its first comma, which stands for the class.

    >>> first_synonym("tv monitor, television")
    'tv monitor'
    """
    return name.split(",", 1)[0]


def prompt_for(name: str) -> str:
    """The prompt of a class.

    >>> prompt_for("tv monitor, television")
    'A photo of a tv monitor in the scene'
    """
    return PROMPT_TEMPLATE.format(first_synonym(name))


def split_class_names(text: str) -> list[str]:
    """Splits a command-line list at semicolons if it has any (synonyms keep their commas), else at commas.

    >>> split_class_names("cat, grass")
    ['cat', 'grass']
    >>> split_class_names("cat; tv monitor, television")
    ['cat', 'tv monitor, television']
    """
    return [part.strip() for part in text.split(";" if ";" in text else ",")]


def read_class_names(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """Reads a UTF-8 text file with one class name per line; blank lines are skipped.

    Raises:
        VocabularyError: the file cannot be read as text or `check_class_names` refuses its names.
    """
    try:
        with open(path, encoding="utf-8-sig") as file:
            lines = [line.strip() for line in file]
    except OSError as error:
        raise VocabularyError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    except UnicodeDecodeError as error:
        raise VocabularyError(f"{path}: not UTF-8 text; save it as UTF-8 with one class name per line") from error
    return check_class_names([line for line in lines if line], source=str(path))
