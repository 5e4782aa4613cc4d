"""Kinds of what lies where a file should: pointers to it, pages about it, archives around it, each with its mend."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable
from typing import NamedTuple

HEAD_BYTES = 4096
"""First bytes of a file that tell its kind."""


class FileKind(NamedTuple):
    """One kind of file or folder that is not what it is given for.

    Attributes:
        pattern: of its first bytes, its name, or the names in it.
        what: name of the kind.
        mend: advice.
    """

    pattern: str
    what: str
    mend: str


DOWNLOAD = "download the file itself"
UNPACK = "unpack it and give the file in it"

POINTERS_AND_PAGES = (
    FileKind(r"version https://git-lfs", "a Git LFS pointer instead of the file", "run git lfs pull"),
    FileKind(r"(\S*/)?\.?(git/)?annex/objects/", "a git-annex pointer instead of the file", "run git annex get"),
    FileKind(
        r"(?i)\s*(<(\?xml|!--|!doctype\s+svg)[^>]*>\s*)*<svg\b", "a drawing of lines (SVG)", "save its pixels as PNG"
    ),
    FileKind(
        r"(?i)\s*(<\?xml[^>]*>\s*)?(<!--|<(!doctype\s+html|html|head|body|title|script|meta)\b)",
        "a saved web page (HTML), such as a login or an error",
        DOWNLOAD,
    ),
    FileKind(r"\s*<[?!\w]", "an XML document, such as a server's error", DOWNLOAD),
)
ARCHIVES = (
    FileKind(r"\x1f\x8b", "a gzip archive", UNPACK),
    FileKind(r"BZh[1-9]", "a bzip2 archive", UNPACK),
    FileKind(r"\xfd7zXZ\x00", "an xz archive", UNPACK),
    FileKind(r"\x28\xb5\x2f\xfd", "a Zstandard archive", UNPACK),
    FileKind(r"\x04\x22\x4d\x18", "an LZ4 archive", UNPACK),
    FileKind(r"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", UNPACK),
    FileKind(r"Rar!\x1a\x07", "a RAR archive", UNPACK),
    FileKind(r".{257}ustar", "a tar archive", UNPACK),
)
OTHERS = (
    FileKind(r'\s*(\{\s*["}]|\[\s*["{\[\]\d-])', "JSON text, such as a server's error or a configuration", DOWNLOAD),
    FileKind(r"\x93NUMPY", "a NumPy array (.npy)", "load it with NumPy and save it as what is asked for"),
    FileKind(r"\x00\x05\x16\x07", "what macOS keeps beside a file", "give the file whose name lacks the ._"),
    FileKind(r"\x00{64,}\Z", "nothing but zeros, as of an unfinished download", DOWNLOAD),
)


def kind_of(data: bytes, kinds: Iterable[FileKind]) -> FileKind | None:
    """The first of some kinds whose pattern the beginning of a file has, read as Latin-1; None where none has.

    Args:
        data: at least `HEAD_BYTES` of the file, or all of it; text in UTF-16 with its mark is read as such.
        kinds: to look for.
    """
    head = data[:HEAD_BYTES]
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        head = head.decode("utf-16", "ignore").encode("ascii", "ignore")
    text = head.removeprefix(codecs.BOM_UTF8).decode("latin1")
    return next((kind for kind in kinds if re.match(kind.pattern, text, re.DOTALL)), None)
