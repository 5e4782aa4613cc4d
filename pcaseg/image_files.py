"""Image files by kind: the formats that are opened, their endings, and what other files are called.

Pillow opens more: some formats start another program (EPS starts Ghostscript) or hold no picture of pixels.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from PIL import Image

from pcaseg.errors import ImageError
from pcaseg.paths import entries, is_file, is_folder, status

_FORMATS = (*("AVIF", "BMP", "DIB", "GIF", "HEIF", "JPEG", "JPEG2000", "PNG", "PPM", "QOI", "TGA", "TIFF", "WEBP"),)
"""Names that Pillow gives to the formats that are opened, where it has them: HEIF comes with a plugin."""


def formats() -> tuple[str, ...]:
    """The formats to open, as Pillow calls them."""
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def image_suffixes() -> tuple[str, ...]:
    """File name endings of the formats that are opened, lower case, sorted; `read_image` goes by content instead."""
    opened = (*formats(), "MPO")  # whose files are opened as JPEG
    return tuple(sorted(ending for ending, name in Image.registered_extensions().items() if name in opened))


def list_images(folder: str | os.PathLike[str]) -> list[Path]:
    """The image files directly in `folder` (not in its subfolders), sorted by name; hidden files are left out.

    Raises:
        ImageError: not a readable folder, or no file in it ends in one of `image_suffixes`.
    """
    found, left_out = split_folder(folder)
    if not found:
        beside = f", but {said_left_out(left_out)}" if left_out else ""
        raise ImageError(f"{folder}: no images in this folder{beside}; put files such as .png or .jpg directly into it")
    return found


def split_folder(folder: str | os.PathLike[str]) -> tuple[list[Path], list[Path]]:
    """The files directly in a folder that are images by their ending, and the others; hidden ones are neither.

    Raises:
        ImageError: not a folder that can be listed.
    """
    if not is_folder(folder, error=ImageError):
        raise ImageError(f"{folder}: cannot be listed (no folder); give a folder of images")
    suffixes = image_suffixes()
    found, left_out = [], []
    for path in entries(folder, error=ImageError):
        if path.suffix.lower() in suffixes:
            if not path.name.startswith(".") and not _is_other(path):
                found.append(path)
        elif not path.name.startswith(".") and not _is_folder(path):
            left_out.append(path)
    return found, left_out


def said_left_out(paths: Iterable[Path]) -> str:
    """Files that are no images by their ending, in words.

    >>> said_left_out([Path("a.heic"), Path("b.txt"), Path("c.heic"), Path("notes")])
    '4 files left out: .heic (2), .txt (1), no ending (1)'
    """
    counts = Counter(path.suffix.lower() or "no ending" for path in paths)
    total = sum(counts.values())
    parts = ", ".join(f"{ending} ({count})" for ending, count in counts.items())
    return f"{total} {'file' if total == 1 else 'files'} left out: {parts}"


def check_image_file(path: str | os.PathLike[str]) -> None:
    """Refuses what cannot be an image file, before anything reads from it.

    Raises:
        ImageError: no such file, a folder, a device or pipe, an empty file, or one that cannot be looked at.
    """
    found = status(path, error=ImageError)
    if found is None:
        raise ImageError(f"{path}: no such file; check the path")
    if is_folder(path, error=ImageError):
        raise ImageError(f"{path}: is a folder, not an image; name a file in it")
    if not is_file(path, error=ImageError):
        raise ImageError(f"{path}: is a device or pipe, not a file; save the image to a file first")
    if found.st_size == 0:
        raise ImageError(f"{path}: the file is empty; copy the image again")


def _is_other(path: Path) -> bool:
    """True for a folder, device or pipe; what cannot be looked at is left for the reader to report."""
    try:
        return status(path) is not None and not is_file(path)
    except ValueError:
        return False


def _is_folder(path: Path) -> bool:
    try:
        return is_folder(path)
    except ValueError:
        return False
