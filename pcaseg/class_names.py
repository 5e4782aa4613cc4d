"""From the class names a user gives to the prompts that the text tower reads.

Shared by the eager model and the torch-free runtime, so that both see the same prompt.
"""

from __future__ import annotations

import csv
import json
import os
import re
import unicodedata
from collections.abc import Sequence

from pcaseg.class_lists import class_list, class_list_names
from pcaseg.cleaning import clean_text, invisible_character, reading
from pcaseg.configs import CONTEXT_LENGTH, MOST_CLASSES
from pcaseg.errors import VocabularyError
from pcaseg.text_files import read_lines

PROMPT_TEMPLATE = "A photo of a {} in the scene"
"""The one published prompt (PCA-Seg and CAT-Seg configurations)."""

LIST_FILES = (".txt", ".csv", ".tsv", ".json")
"""Endings of the files that `read_class_names` reads."""

MAX_NAME_CHARACTERS = 500
"""Longer names are refused as mistakes before they are tokenized, see `refuse_cut`."""

_ID_HEADER = re.compile(r"(.*[_-])?(id|idx|index|no|nr|number|label|value|pixel)|(class|label|train)id")
_NAME_HEADER = re.compile(r"(.*[_-])?(name|class|label|category)|class ?name")
_ID = re.compile('\\s*"?(\\d+)"?\\s*([:,;\t\uff1a\uff0c\uff1b]|[-=]>)\\s*(.*)', re.DOTALL)
_LOOSE_ID = re.compile(r"\(?([0-9]+)(\s*[=|]\s*|[.)]?\s+(?:- )?)(\S.*)")
_ID_BEHIND = re.compile(r"\D.*[:,;=\t]\s*[0-9]+")
_SEVERAL_NUMBERS = re.compile(r"([0-9]+[\s,;:]+){3}")
_ENTITY = re.compile(r"&#?\w+;")
_OTHER_MARKS = (
    (
        r"[-+*\u2022%]\s|//|;|\||-[0-9]+\s*[:,;\t]",
        "begins with the mark of a list, table or comment; write the name alone",
    ),
    (
        "['\u2018\u201c\u00ab].*['\u2019\u201d\u00bb][,;]?$",
        "has single quotes or slanted ones around its name; take them away",
    ),
    (r".*[:{}]$|\w+:\s*\[", 'is of a file of another kind; write a name per line, or put " around the name'),
    (r".*;\s*[^\s,;]", 'holds a semicolon; put commas between synonyms, or " around the name'),
)
"""What a name does not look like, and the mend."""


def check_class_names(
    names: Sequence[str], *, source: str = "class list", lines: Sequence[int] | None = None
) -> tuple[str, ...]:
    """Returns `names` as a tuple, or says what is wrong with them.

    Args:
        names: class names; comma-separated synonyms within one name are allowed.
        source: what the message calls the list, such as a file name.
        lines: the line of each name, for the message; None where the list is no file.

    Raises:
        VocabularyError: the list is empty, a bare string or longer than `MOST_CLASSES`; a name is not a string, blank,
            longer than `MAX_NAME_CHARACTERS`, holds a character that nobody sees (`invisible_character`), or is read
            by the text tower as another one is. Of the last, pairs that stand in a published list are exempt.
        MissingDependencyError: a name needs ftfy, which is not installed.
    """
    if isinstance(names, (str, bytes)):
        raise VocabularyError(f"{source}: expected a list of names, got one string; write [{names!r}] instead")
    names = tuple(names)
    if not names:
        raise VocabularyError(f"{source}: no class names; give at least one")
    check_class_count(len(names), source=source)
    seen: dict[str, int] = {}
    for index, name in enumerate(names):
        place = _place(index, lines)
        if not isinstance(name, str):
            raise VocabularyError(f"{source}: {place} is {type(name).__name__}, not a string; give names only")
        if len(name) > MAX_NAME_CHARACTERS:
            raise VocabularyError(
                f"{source}: {place} ({name[:30]!r}...) has {len(name)} characters; "
                f"shorten it to {MAX_NAME_CHARACTERS} or fewer"
            )
        if (unseen := invisible_character(name)) is not None:
            raise VocabularyError(
                f"{source}: {place} ({name[:60]!a}) holds the invisible character {unseen}; remove it"
            )
        if not clean_text(first_synonym(name)):
            raise VocabularyError(f"{source}: {place} is blank ({name[:60]!r}); remove it or name it")
        other = seen.setdefault(reading(prompt_for(name)), index)
        if other != index and not _published_together(names[other], name):
            former = f"{_place(other, lines)} ({_spelling(names[other])})"
            raise VocabularyError(
                f"{source}: {former} and {place} ({_spelling(name)}) are one to the text tower; keep one"
            )
    return names


def check_class_count(count: int, *, source: str) -> None:
    """Refuses more classes than 16-bit labels can tell apart.

    Raises:
        VocabularyError: more than `MOST_CLASSES`.
    """
    if count > MOST_CLASSES:
        raise VocabularyError(f"{source}: {count} classes do not fit 16-bit labels; give at most {MOST_CLASSES}")


def refuse_cut(names: Sequence[str], cut: Sequence[int], *, source: str = "class list") -> None:
    """Refuses names of which the text tower would not read the end.

    Args:
        names: all of the list.
        cut: which of them have prompts of more than `CONTEXT_LENGTH` tokens.
        source: what the message calls the list.

    Raises:
        VocabularyError: there are such.
    """
    if cut:
        raise VocabularyError(
            f"{source}: class {cut[0]} ({names[cut[0]][:60]!r}...) takes more than the {CONTEXT_LENGTH} tokens of a "
            "prompt; shorten it"
        )


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


def read_class_names(path: str | os.PathLike[str], *, first_ids: Sequence[int] = (0, 1)) -> tuple[str, ...]:
    """Reads a text file with one class name per line, or a table with a column of names.

    The file is read as `read_lines` says. Where every line begins with an integer and a colon, comma, semicolon or
    tab, that is its id; a space, full stop or bracket is enough where the integers count the lines. A first line such
    as `id,name` names the columns. Quotes keep a line or cell as it is. A JSON list of names, or object of ids and
    names, is read too.

    Args:
        path: the file.
        first_ids: numbers that the ids may begin with; they must go on one by one.

    Raises:
        VocabularyError: the file cannot be read as text, ids are missing or out of order, or `check_class_names`
            refuses its names.
    """
    lines = read_lines(path, error=VocabularyError)
    if lines and re.fullmatch("sep=.?", lines[0][1]):  # by Excel
        lines = lines[1:]
    if lines and lines[0][1][0] in "[{":
        rows = _json_rows(path, lines)
    else:
        rows = _table_rows(path, lines) if lines and _is_header(lines[0][1]) else _list_rows(path, lines)
    numbers = [number for number, _, _ in rows]
    ids = [found for _, found, _ in rows]
    if rows and ids[0] is not None:
        start = int(ids[0]) if ids[0].isdecimal() else -1
        for number, found, wanted in zip(numbers, ids, range(start, start + len(ids)), strict=True):
            if start not in first_ids or found is None or not found.isdecimal() or int(found) != wanted:
                raise VocabularyError(
                    f"{path}: line {number} has {'no id' if found is None else f'the id {found}'}; number the lines "
                    f"one by one from {' or '.join(map(str, first_ids))}, or leave all ids away"
                )
    return check_class_names([name.strip(" ,;") for _, _, name in rows], source=str(path), lines=numbers)


_Row = tuple[int, "str | None", str]


def _list_rows(path: str | os.PathLike[str], lines: Sequence[tuple[int, str]]) -> list[_Row]:
    """Number, id and name of lines without a header; there are ids where the first line and another one have one."""
    if lines and all(_SEVERAL_NUMBERS.match(line) for _, line in lines):
        raise VocabularyError(
            f"{path}: line {lines[0][0]} and all others begin with several numbers; leave colours away, or name the "
            "columns in a header such as r,g,b,name"
        )
    found = [_ID.fullmatch(line) for _, line in lines]
    loose = [_LOOSE_ID.fullmatch(line) for _, line in lines]
    counted = [int(match[1]) for match in loose if match]
    if len(lines) > 1 and counted in ([*range(len(lines))], [*range(1, len(lines) + 1)]):
        found = loose
    if not found or found[0] is None or (len(found) > 1 and not any(found[1:])):
        _refuse_other_lists(path, lines, found)
        return [(number, None, _unquoted(path, number, line)) for number, line in lines]
    return [
        (number, match[1] if match else None, _unquoted(path, number, match[3] if match else line))
        for (number, line), match in zip(lines, found, strict=True)
    ]


def _refuse_other_lists(
    path: str | os.PathLike[str], lines: Sequence[tuple[int, str]], ids: Sequence[re.Match[str] | None]
) -> None:
    """Refuses lines that would pass for names, but are marked, quoted or numbered in a way that is not read."""
    for place, ((number, line), match) in enumerate(zip(lines, ids, strict=True)):
        shown, plain = f"{path}: line {number} ({line[:40]!r})", _ENTITY.sub("&", line)
        for pattern, fault in _OTHER_MARKS:
            if line[0] != '"' and re.match(pattern, plain):
                raise VocabularyError(f"{shown} {fault}")
        if match and len(lines) > 1 and (int(match[1]) in (place - 1, place, place + 1) or all(ids[1:])):
            raise VocabularyError(
                f"{shown} has an id, but not every line has; number all, or none, below a header such as id,name"
            )
    if len(lines) > 1 and all(_ID_BEHIND.fullmatch(line) for _, line in lines):
        raise VocabularyError(
            f"{path}: line {lines[0][0]} and all others end in a number; put ids first, or leave them away"
        )
    if len(lines) == 1 and re.search(",\\s*\\S", lines[0][1]) and lines[0][1][0] != '"':
        raise VocabularyError(
            f'{path}: line {lines[0][0]} is the only one and has commas; write a name per line, or put " around a name '
            "and its synonyms"
        )


def _json_rows(path: str | os.PathLike[str], lines: Sequence[tuple[int, str]]) -> list[_Row]:
    """Number, id and name of a JSON list of names, or of an object of ids and names."""
    first = lines[0][0]
    try:
        found = json.loads("\n".join(line for _, line in lines))
    except (ValueError, RecursionError) as error:
        raise VocabularyError(f"{path}: line {first} begins JSON that cannot be read ({error}); mend it") from error
    pairs = list(found.items()) if isinstance(found, dict) else [(None, name) for name in found]
    if not all(isinstance(name, str) for _, name in pairs):
        raise VocabularyError(f'{path}: line {first} begins JSON that is no list of names; write ["sky", "grass"]')
    quoted = [json.dumps(name, ensure_ascii=False) for _, name in pairs]
    numbers = [next((number for number, line in lines if name in line), first) for name in quoted]
    return [(number, place, name) for number, (place, name) in zip(numbers, pairs, strict=True)]


def _table_rows(path: str | os.PathLike[str], lines: Sequence[tuple[int, str]]) -> list[_Row]:
    """Number, id and name of the lines below a header."""
    delimiter = _delimiter(lines[0][1])
    header = _headers(lines[0][1])
    names = max(place for place, word in enumerate(header) if _NAME_HEADER.fullmatch(word))
    names = header.index("name") if "name" in header else names
    ids = next((place for place, word in enumerate(header) if _ID_HEADER.fullmatch(word) and place != names), None)
    rows: list[_Row] = []
    for number, line in lines[1:]:
        cells = _cells(path, number, line, delimiter)
        if len(cells) < len(header) and names >= len(cells):
            raise VocabularyError(f"{path}: line {number} has no {header[names]}; complete it")
        last = None if names == len(header) - 1 else names + 1  # synonyms without quotes, where the names come last
        name = f"{delimiter} ".join(cells[names:last])
        name = name if delimiter == ";" else name.replace(";", ", ")  # so ADE20K's own table writes synonyms
        rows.append((number, None if ids is None else cells[ids].strip(), name))
    return rows


def _is_header(line: str) -> bool:
    words = _headers(line)
    if len(words) == 1:
        return words[0] in ("name", "class_name", "classname")
    has_id, has_name = any(map(_ID_HEADER.fullmatch, words)), any(map(_NAME_HEADER.fullmatch, words[1:]))
    return "name" in words or (has_id and has_name)


def _headers(line: str) -> list[str]:
    return [word.strip(' "').lower() for word in line.split(_delimiter(line))]


def _delimiter(line: str) -> str:
    return next((mark for mark in "\t;:" if mark in line), ",")


def _unquoted(path: str | os.PathLike[str], number: int, line: str) -> str:
    return ", ".join(_cells(path, number, line, ",")) if line.startswith('"') else line


def _cells(path: str | os.PathLike[str], number: int, line: str, delimiter: str) -> list[str]:
    try:
        return next(csv.reader([line], delimiter=delimiter, skipinitialspace=True, strict=True))
    except csv.Error as error:
        raise VocabularyError(f"{path}: line {number} ({line[:40]!r}) is not quoted well ({error}); mend it") from error


def _place(index: int, lines: Sequence[int] | None) -> str:
    return f"class {index}" if lines is None else f"line {lines[index]}"


def _spelling(name: str) -> str:
    """A name in quotes, escaped where its letters have another common form that looks the same."""
    return f"{name[:60]!r}" if unicodedata.is_normalized("NFKC", name) else f"{name[:60]!a}"


def _published_together(first: str, second: str) -> bool:
    """Finds out whether one published list has both names; `ade20k_847` has ten pairs of equal first synonyms."""
    return first != second and any({first, second} <= set(class_list(name)) for name in class_list_names())
