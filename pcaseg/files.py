"""Files that are whole or absent: hashes and atomic writes."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pcaseg.errors import OutputError


def sha256_of(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file's bytes, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@contextmanager
def atomic_path(path: str | os.PathLike[str], *, folder: bool = False, keep: bool = True) -> Iterator[Path]:
    """Yields a temporary sibling of `path` and renames it to `path` when the block succeeds.

    Whatever stood at `path` stays until then; a failed or killed block leaves it untouched. A killed block
    may leave the hidden sibling `.NAME.*.partial`, never a half-written `path`.

    Args:
        path: file, or folder with `folder=True`, to be created or replaced.
        keep: False to throw the result away in the end, for work that only needs a place beside `path`.

    Raises:
        OutputError: the destination cannot be written.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent))
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror}); choose another place") from error
    target = temporary / path.name
    if folder:
        target.mkdir()
    try:
        yield target
        if keep:
            _replace(target, path, temporary)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror}); choose another place") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _replace(new: Path, path: Path, temporary: Path) -> None:
    if not new.is_dir() or not path.exists():
        os.replace(new, path)
        return
    old = temporary / "old"  # a folder cannot be renamed over a full one: two renames, undone if the second fails
    os.replace(path, old)
    try:
        os.replace(new, path)
    except OSError:
        os.replace(old, path)
        raise
