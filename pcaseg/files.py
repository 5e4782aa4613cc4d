"""Files that are whole or absent: hashes, atomic writes, and where caches lie."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from glob import escape
from pathlib import Path

from pcaseg.errors import OutputError, PcasegError
from pcaseg.paths import LONGEST_NAME, entries, exists, is_folder, real_path, refusal, short_name, status

_RANDOM = len("..12345678.partial")
"""Letters that a temporary sibling's name has beside the name of the file."""


def cache_folder() -> Path:
    """The user's cache folder of this project: `pcaseg` in XDG_CACHE_HOME, or in `~/.cache`.

    Raises:
        OutputError: the user has no home folder, as in a container under a foreign number.
    """
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pcaseg"
    except RuntimeError as error:
        raise OutputError("the cache: this user has no home folder; set XDG_CACHE_HOME to one for caches") from error


def found_cache() -> Path | None:
    """The cache folder, for reading; None where there is none that can be read."""
    try:
        folder = cache_folder()
        return folder if is_folder(folder) and os.access(folder, os.R_OK | os.X_OK) else None
    except PcasegError:
        return None


def sha256_of(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file's bytes, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def order_header(path: str | os.PathLike[str]) -> None:
    """Sorts a safetensors file's metadata, written in random order by its library: equal files get equal bytes."""
    with open(path, "r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
        assert len(text) <= length, "the library escapes more than JSON asks for"
        file.seek(8)
        file.write(text.ljust(length))


def refuse_foreign(
    path: Path,
    is_ours: Callable[[Path], bool],
    what: str,
    *,
    mend: str = "choose another name",
    error: type[PcasegError] = OutputError,
) -> None:
    """Refuses to replace what stands at `path` and is not `what`; nothing may stand there.

    Args:
        path: what is about to be written.
        is_ours: whether what stands there may be replaced.
        what: what that is, such as `a bundle`.
        mend: what to do instead.
        error: the class of the error.

    Raises:
        OutputError: or what `error` says.
    """
    try:
        refused = exists(path, error=error) and not is_ours(path)
    except OSError as reason:
        raise refusal(path, reason, error) from reason
    if refused:
        raise error(f"{path}: exists and is not {what}; {mend}")


def holds_json(path: Path, keys: AbstractSet[str]) -> bool:
    """True for a JSON file of an object that has these keys, for `refuse_foreign`."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and keys <= content.keys()


@contextmanager
def atomic_path(path: str | os.PathLike[str], *, folder: bool = False, keep: bool = True) -> Iterator[Path]:
    """Yields a temporary sibling of `path` and renames it to `path` when the block succeeds.

    What stood at `path` stays until then, and an error or interrupt leaves it untouched. A process killed outright
    may leave a hidden sibling `.NAME.*.partial`, never a half-written `path`; killed in the instant between the two
    renames that replacing a folder takes, the former folder is `.NAME.*.old`.

    Args:
        path: file, or folder with `folder=True`, to be created or replaced. A link is followed.
        folder: whether to make a folder.
        keep: False to throw the result away in the end, for work that only needs a place beside `path`.

    Raises:
        OutputError: the destination cannot be written.
    """
    path = real_path(path, error=OutputError)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=_partial_prefix(path), suffix=".partial", dir=path.parent))
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror}); choose another place") from error
    target = temporary / path.name
    try:
        if folder:
            target.mkdir()
            yield target
        else:
            target.touch()  # some writers make private files: the mode is that of a plain new one
            made = status(target, error=OutputError)
            yield target
            if made is not None:
                target.chmod(made.st_mode)
        if keep:
            _replace(target, path)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror}); choose another place") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _replace(new: Path, path: Path) -> None:
    """Renames `new` to `path`; a folder cannot be renamed over a full one, so that takes two renames."""
    if not is_folder(new) or not exists(path):
        os.replace(new, path)
        return
    old = new.parent.with_suffix(".old")
    os.replace(path, old)
    try:
        os.replace(new, path)
    except BaseException:
        os.replace(old, path)
        raise
    shutil.rmtree(old, ignore_errors=True)


def remove_partial(path: str | os.PathLike[str]) -> None:
    """Removes what killed processes left of `path`: its temporary siblings. No other process may be writing it."""
    path = real_path(path, error=OutputError)
    for left in entries(path.parent, f"{escape(_partial_prefix(path))}*.partial", error=OutputError):
        shutil.rmtree(left, ignore_errors=True)


def _partial_prefix(path: Path) -> str:
    """Beginning of the names of a file's temporary siblings."""
    return f".{short_name(path.name, LONGEST_NAME - _RANDOM)}."
