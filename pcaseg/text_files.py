"""Lists in text files, as people and other tools write them."""

from __future__ import annotations

import codecs
import os
import re

from pcaseg.errors import PcasegError
from pcaseg.stand_ins import POINTERS_AND_PAGES, kind_of

_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # begins with UTF-16's mark: first
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_LINE_END = re.compile("\r\n|\r|\n")


def read_lines(
    path: str | os.PathLike[str], *, mend: str = "check the path", error: type[PcasegError] = PcasegError
) -> list[tuple[int, str]]:
    """Lines of a text file with their numbers from 1, without spaces around them.

    UTF-8, or UTF-16 and UTF-32 with their marks; any line ends. Blank lines and those that begin with `#` are skipped.

    Args:
        path: the file.
        mend: what to do where there is no such file.
        error: class of the errors.

    Raises:
        PcasegError: or what `error` says, with the line: the file cannot be read or decoded, is a pointer or a web
            page, holds NUL, or has a comment behind other text.
    """
    try:
        with open(path, "rb") as file:
            data = file.read()
    except (OSError, ValueError) as problem:  # ValueError: NUL characters
        said = problem.strerror if isinstance(problem, OSError) else problem
        raise error(f"{path}: cannot be read ({said}); {mend}") from problem
    return lines_in(data, path, error=error)


def lines_in(
    data: bytes, path: str | os.PathLike[str], *, error: type[PcasegError] = PcasegError
) -> list[tuple[int, str]]:
    """Lines of a text file's bytes, as `read_lines` gives them; `path` is for the errors, which are the same."""
    if (kind := kind_of(data, POINTERS_AND_PAGES)) is not None:
        raise error(f"{path}: is {kind.what}; {kind.mend}")
    mark, encoding = next(((mark, name) for mark, name in _MARKS if data.startswith(mark)), (b"", "utf-8"))
    try:
        text = data[len(mark) :].decode(encoding)
    except UnicodeDecodeError as problem:
        before = data[len(mark) : len(mark) + problem.start].decode(encoding)
        raise error(
            f"{path}: line {len(_LINE_END.split(before))} is not {encoding.upper()} text; save the file as UTF-8"
        ) from problem
    lines = []
    for number, line in enumerate(map(str.strip, _LINE_END.split(text)), start=1):
        if "\0" in line:
            raise error(f"{path}: line {number} holds NUL bytes; save the file as UTF-8 text")
        if line and line[0] != "#" and '"' not in line and re.search(r"\s#(\s|$)", line):
            raise error(
                f"{path}: line {number} ({line[:40]!r}) has a comment behind its text; give it a line of its own, or "
                'put " around the text'
            )
        if line and line[0] != "#":
            lines.append((number, line))
    return lines
