"""Image files and arrays of any common kind to one kind: `(H, W, 3)` uint8 RGB."""

from __future__ import annotations

import os
from functools import partial

import numpy as np
from PIL import Image

from pcaseg.errors import ImageError, PcasegError
from pcaseg.image_files import check_image_file
from pcaseg.pictures import (
    MOST_BITS,
    check_bits,
    decode_bytes,
    decode_file,
    decode_picture,
    eight_bits,
    label_pixels,
    rgb_pixels,
    upright,
)


def read_image(path: str | os.PathLike[str], *, bits: int | None = None) -> np.ndarray:
    """Reads an image file, upright, as RGB.

    The EXIF orientation is applied. Transparency is dropped, not blended (as in the published evaluation).
    Grey of more than 8 bits is scaled from its whole range to 0..255. Of an animation, the first frame is read.

    Args:
        path: of a file in one of `pcaseg.image_files.formats()`, told by content; others are never opened.
        bits: how many bits grey of 16 or 32 bits really uses, 8 to 16, such as 12 of a camera's 12 in 16; None for
            what the file says. 8-bit images are read alike with any.

    Returns:
        `(H, W, 3)` uint8, RGB.

    Raises:
        ImageError: no readable image file, a decompression bomb, or pixel values without a defined range (mode F,
            32 bits without `bits`) or outside it.
        PcasegError: `bits` is neither None nor 8 to 16.
    """
    return read_with_orientation(path, bits=bits)[0]


def read_image_bytes(
    data: bytes, *, name: str = "image", bits: int | None = None, most_pixels: int | None = None
) -> np.ndarray:
    """Reads the bytes of an image file as `read_image` reads the file.

    Args:
        data: the whole file.
        name: what the messages call it.
        bits: as of `read_image`.
        most_pixels: pictures that claim more are refused before they are decoded.

    Returns:
        `(H, W, 3)` uint8, RGB.

    Raises:
        LargeImageError: more than `most_pixels`.
        ImageError, PcasegError: as `read_image`.
    """
    check_bits(bits)
    return decode_bytes(data, partial(rgb_pixels, name=name, bits=bits), name=name, most_pixels=most_pixels)[0]


def read_label_map(path: str | os.PathLike[str]) -> np.ndarray:
    """Reads a map of labels, upright: a grey image of 8 or 16 bits, or a palette image, whose indices are the labels.

    Returns:
        `(H, W)` uint8 or uint16.

    Raises:
        ImageError: no readable image file, or one with colours, whose labels have no defined order.
    """
    return _read_labels(path)[0]


def read_labelled_image(image: str | os.PathLike[str], labels: str | os.PathLike[str]) -> tuple[np.ndarray, np.ndarray]:
    """Reads an image and the map of its labels so that they lie on each other; the rule is that of `fit_labels`.

    Returns:
        `(H, W, 3)` uint8 RGB and `(H, W)` uint8 or uint16.

    Raises:
        ImageError: one of the two cannot be read.
        PcasegError: they differ in size, or nothing tells how the labels lie on the image.
    """
    pixels, orientation = read_with_orientation(image)
    found, own = _read_labels(labels)
    return pixels, fit_labels(found, pixels, 1 if own != 1 else orientation, image=image, source=labels)


def read_with_orientation(path: str | os.PathLike[str], *, bits: int | None = None) -> tuple[np.ndarray, int]:
    """As `read_image`, with the EXIF orientation, 1 to 8, that was applied."""
    check_bits(bits)
    check_image_file(path)
    return decode_file(path, partial(rgb_pixels, name=os.fspath(path), bits=bits))


def fit_labels(
    labels: np.ndarray,
    pixels: np.ndarray,
    orientation: int,
    *,
    image: str | os.PathLike[str],
    source: str | os.PathLike[str],
) -> np.ndarray:
    """Brings labels without an orientation of their own onto an upright image.

    Where the image's file has an orientation, the labels' size tells whether they were drawn on its upright or on its
    stored pixels. Both sizes are one in a square and in orientations 2 to 4 (mirrored, upside down): refused.

    Args:
        labels: `(h, w)`.
        pixels: the image, upright, `(H, W, 3)`.
        orientation: EXIF orientation of the image's file, 1 to 8; 1 too where the labels had one of their own.
        image: the image's file, for the messages.
        source: the labels' file, for the messages.

    Returns:
        Labels `(H, W)`.

    Raises:
        PcasegError: sizes that do not fit, or that tell nothing.
    """
    shown = pixels.shape[:2]
    stored = shown[::-1] if orientation >= 5 else shown
    if labels.shape not in (shown, stored):
        raise PcasegError(
            f"{source}: {labels.shape[0]} x {labels.shape[1]} labels for an image of {shown[0]} x {shown[1]}; give "
            "labels of the image's size"
        )
    if orientation != 1 and shown == stored:
        raise PcasegError(
            f"{source}: {image} has EXIF orientation {orientation}, and nothing tells whether the labels follow it; "
            "save the image upright without it, or give the labels the same orientation"
        )
    return labels if labels.shape == shown else upright(labels, orientation)


def as_rgb(image: np.ndarray | Image.Image, *, name: str = "image", bits: int | None = None) -> np.ndarray:
    """Brings an array or a Pillow image that already holds an image to RGB.

    Args:
        image: uint8 or uint16, `(H, W)`, `(H, W, 1)`, `(H, W, 3)` RGB or `(H, W, 4)` RGBA (alpha is dropped);
            or a Pillow image of any mode, which gives what `read_image` gives of its file.
        name: what the messages call it, such as a file name.
        bits: how many bits uint16 uses, 8 to 16, scaled to 0..255; None for all 16, and see `read_image`.

    Returns:
        `(H, W, 3)` uint8; for uint8 colour input a view of `image`.

    Raises:
        ImageError: not such an image, one without pixels, or values beyond `bits`.
        PcasegError: `bits` is neither None nor 8 to 16.
    """
    check_bits(bits)
    if isinstance(image, Image.Image):
        if 0 in image.size:
            raise ImageError(f"{name}: the size is {image.size}, which has no pixels; give at least 1 x 1")
        return decode_picture(image, partial(rgb_pixels, name=name, bits=bits), name=name)
    if not isinstance(image, np.ndarray):
        raise ImageError(
            f"{name}: expected a NumPy array or Pillow image, got {type(image).__name__}; convert it with numpy.asarray"
        )
    if image.dtype.kind != "u" or image.dtype.itemsize > 2:
        raise ImageError(f"{name}: the values are {image.dtype}, not uint8 or uint16; scale them to 0..255 and cast")
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] not in (1, 3, 4)):
        raise ImageError(f"{name}: the shape is {image.shape}; give (height, width) or (height, width, 1, 3 or 4)")
    if 0 in image.shape:
        raise ImageError(f"{name}: the shape is {image.shape}, which has no pixels; give at least 1 x 1")
    if image.ndim == 2:
        image = image[:, :, None]
    image = eight_bits(image[:, :, :3], bits or MOST_BITS, name=name) if image.dtype.itemsize == 2 else image[:, :, :3]
    return image if image.shape[2] == 3 else np.repeat(image, 3, axis=2)


def _read_labels(path: str | os.PathLike[str]) -> tuple[np.ndarray, int]:
    check_image_file(path)
    return decode_file(path, partial(label_pixels, name=os.fspath(path)))
