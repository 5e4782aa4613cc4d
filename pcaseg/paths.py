"""Looks at paths that the system may refuse: a refusal is one sentence that names the path and the reason.

Nothing else in the project asks the system about a path: `Path.exists` and its kin raise where a folder may not be
searched, a name is too long or a network drive is gone.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

from pcaseg.errors import PcasegError

LONGEST_NAME = 255
"""Bytes of a file's name on Linux."""

_HASH_DIGITS = 16

_MENDS = {
    errno.ENAMETOOLONG: "shorten it",
    errno.EACCES: "ask for the right to it",
    errno.EPERM: "ask for the right to it",
    errno.ELOOP: "mend its links",
    errno.ENOSPC: "make room",
    errno.EROFS: "choose another place",
}


def refusal(path: str | os.PathLike[str], reason: Exception, error: type[PcasegError] = PcasegError) -> PcasegError:
    """The sentence that a path cannot be used, as an exception of class `error`."""
    said, number = str(reason), getattr(reason, "errno", None)
    if isinstance(reason, OSError) and reason.strerror:
        said = reason.strerror
    name = os.fspath(path)
    shown = name if "\0" not in name else ascii(name)
    return error(f"{shown}: cannot be used ({said}); {_MENDS.get(number or 0, 'check the path and its drive')}")


def status(path: str | os.PathLike[str], *, error: type[PcasegError] = PcasegError) -> os.stat_result | None:
    """The system's facts of a file or folder, links followed; None where there is none.

    Raises:
        PcasegError: `error`: the system does not say.
    """
    try:
        return os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as reason:  # ValueError: NUL characters, or letters that no file name can have
        raise refusal(path, reason, error) from reason


def exists(path: str | os.PathLike[str], *, error: type[PcasegError] = PcasegError) -> bool:
    """True where something is at `path`. Raises as `status`."""
    return status(path, error=error) is not None


def is_file(path: str | os.PathLike[str], *, error: type[PcasegError] = PcasegError) -> bool:
    """True for a plain file. Raises as `status`."""
    found = status(path, error=error)
    return found is not None and stat.S_ISREG(found.st_mode)


def is_folder(path: str | os.PathLike[str], *, error: type[PcasegError] = PcasegError) -> bool:
    """True for a folder. Raises as `status`."""
    found = status(path, error=error)
    return found is not None and stat.S_ISDIR(found.st_mode)


def size_of(path: str | os.PathLike[str], *, error: type[PcasegError] = PcasegError) -> int:
    """Bytes of a file; 0 where there is none. Raises as `status`."""
    found = status(path, error=error)
    return 0 if found is None else found.st_size


def real_path(path: str | os.PathLike[str], *, error: type[PcasegError] = PcasegError) -> Path:
    """The absolute path without links; nothing need be there.

    Raises:
        PcasegError: `error`: the path is none, or relative to a folder that is gone.
    """
    try:
        return Path(os.path.realpath(path))
    except (OSError, ValueError) as reason:
        raise refusal(path, reason, error) from reason


def entries(
    folder: str | os.PathLike[str], pattern: str = "*", *, error: type[PcasegError] = PcasegError
) -> list[Path]:
    """Files and folders directly in a folder, under names like `pattern`, sorted; nothing where there is no folder.

    Raises:
        PcasegError: `error`: the folder cannot be listed.
    """
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as reason:
        raise refusal(folder, reason, error) from reason
    return sorted(Path(folder) / name for name in names if fnmatchcase(name, pattern))


def files_under(folder: str | os.PathLike[str], pattern: str) -> Iterator[Path | PcasegError]:
    """The files in a folder and all folders below it; an error stands for a folder that cannot be listed."""
    refused: list[PcasegError] = []

    def keep(reason: OSError) -> None:
        if not isinstance(reason, FileNotFoundError):
            refused.append(refusal(reason.filename or folder, reason))

    try:
        for place, _, names in os.walk(folder, onerror=keep):
            yield from (Path(place) / name for name in names if fnmatchcase(name, pattern))
    except ValueError as reason:  # NUL characters
        yield refusal(folder, reason)
    yield from refused


def short_name(name: str, room: int) -> str:
    """`name`, if it has at most `room` bytes; else as many of its letters as fit before a hash of the whole.

    >>> short_name("scene", 20)
    'scene'
    >>> short_name("scenes of a long day", 19)
    'sc-f7718515ce283067'
    """
    whole = os.fsencode(name)
    if len(whole) <= room:
        return name
    mark = f"-{hashlib.sha256(whole).hexdigest()[:_HASH_DIGITS]}"
    kept = name[:room]
    while len(os.fsencode(kept)) > room - len(mark):
        kept = kept[:-1]
    return kept + mark
