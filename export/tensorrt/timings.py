"""The timing cache: what TensorRT learned of its tactics, kept between builds in one file."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from pcaseg.errors import EngineError
from pcaseg.files import atomic_path, refuse_foreign
from pcaseg.paths import LONGEST_NAME, exists, short_name

TIMING_MARK = b"pcaseg timing cache 1\n"
"""First line of a timing cache, so that no other file is ever taken for one and replaced."""


def check_timing_cache(path: Path) -> None:
    """Refuses a place where no timing cache can be written, or a file that is none.

    Raises:
        EngineError: names the file.
    """
    try:
        _timings(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):  # a lock that cannot be made would be waited for
            pass
    except OSError as error:
        raise _unusable(path, error) from error


def _unusable(path: Path, error: OSError) -> EngineError:
    return EngineError(f"{path}: the timing cache cannot be used ({error.strerror}); name another file")


def _timings(path: Path) -> bytes:
    """Timings from former builds; nothing where there is no file."""
    refuse_foreign(path, _is_timing_cache, "a timing cache of pcaseg", mend="name another file", error=EngineError)
    return path.read_bytes().removeprefix(TIMING_MARK) if exists(path, error=EngineError) else b""


def _is_timing_cache(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(len(TIMING_MARK)) == TIMING_MARK


@dataclass
class Timings:
    """Timings of TensorRT's tactics, as its own bytes."""

    data: bytes


@contextmanager
def timings_of(path: Path | None) -> Iterator[Timings]:
    """The timing cache, for one process at a time; written back whole when a build succeeds. None for none."""
    if path is None:
        yield Timings(b"")
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(f"{short_name(path.name, LONGEST_NAME - 5)}.lock"), timeout=3600):
            cache = Timings(_timings(path))
            yield cache
            with atomic_path(path) as temporary:
                temporary.write_bytes(TIMING_MARK + cache.data)
    except Timeout as error:
        raise EngineError(f"{path}: another build has held the timing cache for an hour; name another") from error
    except OSError as error:
        raise _unusable(path, error) from error
