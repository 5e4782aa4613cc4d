"""Tables as text: Markdown for pages, and aligned columns for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pcaseg.errors import MissingDependencyError, install_hint

_WORDS = {"l": "left", "r": "right", "c": "center"}


def markdown_table(headers: Sequence[str], rows: Iterable[Sequence[object]], *, align: str = "l") -> str:
    r"""A table in Markdown, without a newline at its end.

    Args:
        headers: at least one.
        rows: as many cells each, already written as they shall be read; `|` is escaped, a new line becomes a space.
        align: `l`, `r` or `c` for each column; the last letter holds for the columns behind it.

    Raises:
        MissingDependencyError: tabulate is not installed.

    >>> print(markdown_table(["name", "ms"], [["a|b", "1.50"]], align="lr"))
    | name   |   ms |
    |:-------|-----:|
    | a\|b   | 1.50 |
    """
    cells = [[markdown_cell(cell) for cell in row] for row in rows]
    return _laid_out([markdown_cell(header) for header in headers], cells, align=align, style="pipe")


def terminal_table(headers: Sequence[str], rows: Iterable[Sequence[object]], *, align: str = "l") -> str:
    """Aligned columns under their headers. Arguments as of `markdown_table`; nothing is escaped.

    >>> print(terminal_table(["name", "ms"], [["eager", "1.5"], ["folded", "12"]], align="lr"))
    name      ms
    ------  ----
    eager    1.5
    folded    12
    """
    return _laid_out(headers, [[str(cell) for cell in row] for row in rows], align=align, style="simple")


def markdown_cell(cell: object) -> str:
    """Text of a cell for Markdown: on one line, `|` escaped."""
    return " ".join(str(cell).split()).replace("|", "\\|")


def _laid_out(headers: Sequence[str], cells: list[list[str]], *, align: str, style: str) -> str:
    try:
        from tabulate import tabulate
    except ImportError as error:
        raise MissingDependencyError(f"this needs the package tabulate; {install_hint('torch')}") from error
    letters = align[: len(headers)].ljust(len(headers), align[-1])
    columns = [_WORDS[letter] for letter in letters]
    return tabulate(cells, headers, tablefmt=style, colalign=columns, disable_numparse=True)
