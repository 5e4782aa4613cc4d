"""Pictures: what Pillow opens, from formats that are safe to open, to arrays of RGB or of labels, upright."""

from __future__ import annotations

import os
import re
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from typing import IO, Any

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from pcaseg.errors import ImageError, LargeImageError, PcasegError
from pcaseg.image_files import formats
from pcaseg.stand_ins import ARCHIVES, HEAD_BYTES, OTHERS, POINTERS_AND_PAGES, UNPACK, FileKind, kind_of

LEAST_BITS, MOST_BITS = 8, 16

_CONVERTED_MODES = ("1", "L", "LA", "La", "P", "PA", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV")
_SIXTEEN_BITS_AS_I = ("PNG", "PPM")  # formats without 32 bits, whose 16 bits Pillow may hold in mode I
_SUBFILE, _BITS_PER_SAMPLE, _PHOTOMETRIC, _DNG_VERSION = 254, 258, 262, 50706  # tags of TIFF
_ZIP = FileKind(r"PK\x03\x04", "a zip archive", UNPACK)
_PNG = b"\x89PNG\r\n\x1a\n"
_XMP, _XMP_ORIENTATION = b"XML:com.adobe.xmp", re.compile(rb'tiff:Orientation(?:="|>)[0-9]')
_MOST_XMP_BYTES = 64 << 20
_TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.swapaxes(0, 1),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: stored[::-1, ::-1].swapaxes(0, 1),
    8: lambda stored: np.rot90(stored),
}

Convert = Callable[[Image.Image, str], np.ndarray]
"""A picture and the layout in which its file stores the pixels, as Pillow names it, to an array (H, W, ...)."""


def decode_file(path: str | os.PathLike[str], convert: Convert) -> tuple[np.ndarray, int]:
    """An image file as `convert` gives it, upright, and its EXIF orientation, 1 to 8.

    Raises:
        ImageError: no readable image file of one of `pcaseg.image_files.formats`, or as `convert`.
    """
    with _one_sentence(path), open(path, "rb") as file:
        return _decode_stream(file, convert, path, None)


def decode_bytes(data: bytes, convert: Convert, *, name: str, most_pixels: int | None = None) -> tuple[np.ndarray, int]:
    """The bytes of an image file as `decode_file` gives it.

    Args:
        data: the whole file.
        convert: as of `decode_file`.
        name: what the messages call it.
        most_pixels: a picture that claims more is refused before it is decoded; None for Pillow's limit alone.

    Raises:
        LargeImageError: more pixels.
        ImageError: as `decode_file`.
    """
    with _one_sentence(name):
        return _decode_stream(BytesIO(data), convert, name, most_pixels)


def _decode_stream(
    file: IO[bytes], convert: Convert, name: str | os.PathLike[str], most_pixels: int | None
) -> tuple[np.ndarray, int]:
    head = file.read(HEAD_BYTES)
    source = BytesIO(_without_texts(head + file.read())) if head.startswith(_PNG) else file
    try:
        with Image.open(source, formats=formats()) as picture:
            if most_pixels is not None and picture.width * picture.height > most_pixels:
                raise LargeImageError(
                    f"{name}: {picture.width} x {picture.height} pixels are more than {most_pixels}; reduce the image"
                )
            if _is_preview(picture):
                raise ImageError(f"{name}: holds a camera's raw picture, of which only a preview is read; develop it")
            return _decode(picture, convert)
    except UnidentifiedImageError as error:
        raise ImageError(f"{name}: {_what(head)}") from error


def decode_picture(picture: Image.Image, convert: Convert, *, name: str) -> np.ndarray:
    """An opened Pillow image as `decode_file` gives its file.

    Raises:
        ImageError: as `decode_file`.
    """
    if picture.format not in (None, "MPO", *formats()):
        raise ImageError(f"{name}: holds {picture.format}, a format that is not opened; convert it to PNG or JPEG")
    with _one_sentence(name), _not_mapped(picture):
        return _decode(picture, convert)[0]


def upright(stored: np.ndarray, orientation: int) -> np.ndarray:
    """Pixels (H, W, ...) as stored, turned and mirrored as an EXIF orientation asks."""
    return np.ascontiguousarray(_TURNS[orientation](stored)) if orientation in _TURNS else stored


def rgb_pixels(picture: Image.Image, layout: str, *, name: str, bits: int | None) -> np.ndarray:
    """A picture of any mode as RGB, (H, W, 3) uint8; `bits` as `pcaseg.images.read_image` takes them.

    Raises:
        ImageError: pixel values without a defined brightness, or beyond `bits`.
    """
    mode = picture.mode
    if mode == "RGB" or mode in _CONVERTED_MODES:
        if bits not in (None, MOST_BITS) and ";16" in layout:
            raise ImageError(
                f"{name}: colours of 16 bits are read in their upper 8, which bits={bits} does not reach; save it as "
                "8-bit RGB"
            )
        return _converted(picture)
    if mode == "I" or mode.startswith("I;16"):
        known = bits or _grey_bits(picture)
        if known is None:
            raise ImageError(
                f"{name}: grey of 32 bits or with a sign has no defined brightness; say how many bits are used "
                "(--bits, bits=), or save it with 8 or 16"
            )
        grey = np.array(picture)
        if _white_is_zero(picture):
            grey = (1 << known) - 1 - grey.astype(np.int64)
        return np.repeat(eight_bits(grey, known, name=name)[:, :, None], 3, axis=2)
    raise ImageError(f"{name}: pixels of Pillow mode {mode} have no defined brightness; save it as 8-bit RGB")


def label_pixels(picture: Image.Image, layout: str, *, name: str) -> np.ndarray:
    """The labels in a grey or palette picture, (H, W) uint8 or uint16.

    Raises:
        ImageError: colours, or grey that Pillow rescales or whose file counts from white, so that labels would change.
    """
    mode = picture.mode
    sixteen = mode.startswith("I;16") or (mode == "I" and picture.format == "PNG")  # the latter before Pillow 11
    if (mode == "L" and ";" in layout) or (sixteen and _white_is_zero(picture)):
        raise ImageError(f"{name}: this kind of grey ({layout}) changes the labels; save them as 8- or 16-bit grey PNG")
    if mode in ("L", "P"):
        return np.array(picture)
    if sixteen:
        return np.array(picture).astype(np.uint16)
    raise ImageError(f"{name}: pixels of Pillow mode {mode} are no labels; save them as 8- or 16-bit grey PNG")


def check_bits(bits: int | None) -> None:
    """Refuses a count of significant bits that no image has.

    Raises:
        PcasegError: neither None nor 8 to 16.
    """
    if bits is not None and not (isinstance(bits, int) and LEAST_BITS <= bits <= MOST_BITS):
        raise PcasegError(f"bits={bits}: give {LEAST_BITS} to {MOST_BITS}, such as 12 for a camera of 12 bits")


def eight_bits(values: np.ndarray, bits: int, *, name: str) -> np.ndarray:
    """Whole numbers from 0 to 2^bits - 1 scaled to 0..255, rounded, uint8.

    Raises:
        ImageError: a value is outside.
    """
    top, low, high = (1 << bits) - 1, int(values.min()), int(values.max())
    if low < 0 or high > top:
        raise ImageError(
            f"{name}: values {low}..{high} are outside the {bits} bits 0..{top}; say how many bits are used (--bits, "
            "bits=), or scale them"
        )
    return ((values.astype(np.uint32) * 255 + top // 2) // top).astype(np.uint8)


def _decode(picture: Image.Image, convert: Convert) -> tuple[np.ndarray, int]:
    tiles = getattr(picture, "tile", None)  # of files alone, and empty once the pixels are loaded
    arguments = tiles[0][3] if tiles else ""
    layout = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    orientation = _orientation(picture)
    pixels = convert(picture, layout if isinstance(layout, str) else "")
    return upright(pixels, _orientation(picture)), orientation  # 1 by now where Pillow turned it itself (TIFF)


def _orientation(picture: Image.Image) -> int:
    found = picture.getexif().get(ExifTags.Base.Orientation)
    return found if isinstance(found, int) and found in _TURNS else 1


def _converted(picture: Image.Image) -> np.ndarray:
    if picture.mode == "RGB":
        return np.array(picture)
    plain = picture.copy()
    plain.info.pop("transparency", None)  # Pillow would warn of it in palettes; alpha is dropped anyway
    if plain.mode == "La":
        plain = plain.convert("LA")
    return np.array(plain.convert("RGB"))


def _grey_bits(picture: Image.Image) -> int | None:
    """Bits of a grey picture of more than 8; None where its kind leaves them open."""
    if picture.mode == "I":
        return MOST_BITS if picture.format in _SIXTEEN_BITS_AS_I else None
    return int(_tiff_tags(picture).get(_BITS_PER_SAMPLE, (MOST_BITS,))[0])


def _white_is_zero(picture: Image.Image) -> bool:
    return bool(_tiff_tags(picture).get(_PHOTOMETRIC) == 0)


def _tiff_tags(picture: Image.Image) -> Mapping[int, Any]:
    found: Mapping[int, Any] = getattr(picture, "tag_v2", {})
    return found


def _is_preview(picture: Image.Image) -> bool:
    """Tells whether a TIFF's first image is a smaller copy of another one, as in DNG and other raw files of cameras."""
    tags = _tiff_tags(picture)
    return bool(tags.get(_SUBFILE, 0) & 1 or _DNG_VERSION in tags)


def _what(head: bytes) -> str:
    """Says what a file is that no format to open took, by its first bytes and without opening it, and the mend."""
    kind = kind_of(head, (*POINTERS_AND_PAGES, *ARCHIVES, *OTHERS, _ZIP))
    if kind is not None:
        return f"is {kind.what}; {kind.mend}"
    return f"{_format_of(head[:16])}; convert it to PNG or JPEG"


def _format_of(head: bytes) -> str:
    for name, (_, accepts) in Image.OPEN.items():
        taken = accepts(head) if accepts else False
        if isinstance(taken, str):
            return f"holds {name}, which this Pillow was built without"
        if taken:
            known = name in formats()
            return (
                f"holds {name}, damaged or of a layout that is not read"
                if known
                else f"holds {name}, a format that is not opened"
            )
    if head[4:8] == b"ftyp":
        return f"holds {head[8:12]!r} (HEIF, AVIF or a film), which Pillow reads only with a plugin that is registered"
    return "holds PDF, a format that is not opened" if head.startswith(b"%PDF") else "not an image that Pillow can read"


def _without_texts(png: bytes) -> bytes:
    """A PNG file without its texts and colour profile, which nothing here uses and whose size Pillow limits.

    Of the texts, EXIF and the orientation in XMP stay.
    """
    kept, at = [png[:8]], 8
    while at + 12 <= len(png):
        length, kind = struct.unpack_from(">I4s", png, at)
        chunk = png[at : at + 12 + length]
        if kind in (b"tEXt", b"zTXt", b"iTXt"):
            kept.append(_orientation_text(chunk[8 : 8 + length], chunk, kind))
        elif kind != b"iCCP":
            kept.append(chunk)
        at += 12 + length
    return b"".join([*kept, png[at:]])


def _orientation_text(body: bytes, chunk: bytes, kind: bytes) -> bytes:
    """The chunk that remains of a text: what tells the orientation, or nothing."""
    if body.startswith(b"Raw profile type exif\0"):
        return chunk
    if kind != b"iTXt" or not body.startswith(_XMP + b"\0"):
        return b""
    compressed, rest = body[len(_XMP) + 1 : len(_XMP) + 2] == b"\1", body[len(_XMP) + 3 :]
    text = rest.split(b"\0", 2)[-1]
    try:
        found = _XMP_ORIENTATION.search(zlib.decompressobj().decompress(text, _MOST_XMP_BYTES) if compressed else text)
    except zlib.error:
        return b""
    if found is None:
        return b""
    short = kind + _XMP + b"\0" * 5 + found.group()
    return struct.pack(">I", len(short) - 4) + short + struct.pack(">I", zlib.crc32(short))


@contextmanager
def _not_mapped(picture: Image.Image) -> Iterator[None]:
    """Hides the path of an opened file, from which Pillow maps plain TIFF pixels, scrambled where they are turned."""
    path = vars(picture).pop("filename", None)
    picture.filename = ""  # type: ignore[attr-defined]
    try:
        yield
    finally:
        if path is None:
            del picture.filename  # type: ignore[attr-defined]
        else:
            picture.filename = path  # type: ignore[attr-defined]


@contextmanager
def _one_sentence(name: str | os.PathLike[str]) -> Iterator[None]:
    """Turns what Pillow raises into an ImageError that names the image."""
    try:
        yield
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise LargeImageError(f"{name}: refused, it claims more pixels than a photo has; reduce the image") from error
    except PermissionError as error:
        raise ImageError(f"{name}: permission denied; make the file readable") from error
    except Exception as error:  # on damaged bytes decoders raise almost anything: OSError, SyntaxError, struct.error...
        raise ImageError(f"{name}: damaged or half-copied image ({error}); copy the file again") from error
