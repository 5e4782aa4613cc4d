"""Places of images: files here, and files elsewhere by address (s3, gs and whatever else fsspec knows), also in lists.

A list is a text file, here or elsewhere, with a path or an address on each line; relative ones start at the list.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from pcaseg.errors import ImageError, MissingDependencyError, install_hint, one_line
from pcaseg.files import sha256_of
from pcaseg.image_files import check_image_file
from pcaseg.images import read_image_bytes
from pcaseg.paths import is_folder, real_path
from pcaseg.text_files import lines_in, read_lines

LIST_SUFFIX = ".txt"


@dataclass(frozen=True)
class RemoteImage:
    """An image by address, such as `s3://bucket/a.png`."""

    url: str

    def __str__(self) -> str:
        return self.url

    @property
    def stem(self) -> str:
        """The last part without its ending."""
        return PurePosixPath(self.url).stem

    @property
    def suffix(self) -> str:
        """The ending, with its dot."""
        return PurePosixPath(self.url).suffix

    @property
    def folder(self) -> str:
        """The last part but one."""
        return PurePosixPath(self.url).parent.name

    def read(self, bits: int | None) -> tuple[np.ndarray, dict[str, object]]:
        """Its pixels, and what it is known by, as `local_identity` says of a file.

        Raises:
            ImageError: it cannot be fetched or read.
            MissingDependencyError: fsspec, or what it needs for this kind of address, is not installed.
        """
        data = _fetched(self.url)
        if not data:
            raise ImageError(f"{self.url}: the file is empty; copy the image again")
        known: dict[str, object] = {"image": self.url, "image_sha256": hashlib.sha256(data).hexdigest()}
        return read_image_bytes(data, name=self.url, bits=bits), known


ImagePlace = Path | RemoteImage


def image_place(text: str, folder: str | os.PathLike[str] = "") -> ImagePlace:
    """The image at an address, or at a path, which starts at `folder` if it is relative."""
    return RemoteImage(text) if "://" in text else Path(folder, text)


def local_identity(path: Path) -> dict[str, object]:
    """Facts that a file is known by: its path and the hash of its bytes, as a result's summary holds them.

    Raises:
        ImageError: it cannot be an image, or be read.
    """
    check_image_file(path)
    try:
        digest = sha256_of(path)
    except OSError as error:
        raise ImageError(f"{path}: cannot be read ({error.strerror}); check the file") from error
    return {"image": str(real_path(path, error=ImageError)), "image_sha256": digest}


def is_list(item: str) -> bool:
    """True of what ends as lists do."""
    return item.lower().endswith(LIST_SUFFIX) and not is_folder(item)


def read_list(item: str) -> list[ImagePlace]:
    """The images that a list names.

    Raises:
        ImageError: it cannot be read, or names none.
    """
    remote = "://" in item
    lines = lines_in(_fetched(item), item, error=ImageError) if remote else read_lines(item, error=ImageError)
    if not lines:
        raise ImageError(f"{item}: names no image; write a path or an address on each line")
    if remote:
        base = item.rpartition("/")[0]
        return [RemoteImage(line if "://" in line else f"{base}/{line}") for _, line in lines]
    return [image_place(line, Path(item).parent) for _, line in lines]


def _fetched(url: str) -> bytes:
    try:
        import fsspec
    except ImportError as error:
        raise MissingDependencyError(f"{url}: fsspec is not installed; {install_hint('ray')}") from error
    try:
        with fsspec.open(url, "rb") as file:
            data: bytes = file.read()
    except ImportError as error:
        raise MissingDependencyError(f"{url}: {one_line(error)}; install what it names") from error
    except Exception as error:  # each file system has errors of its own
        reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else one_line(error)
        raise ImageError(f"{url}: cannot be fetched ({reason or type(error).__name__}); check the address") from error
    return data
