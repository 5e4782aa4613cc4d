"""Image files and arrays of any common kind to one kind: `(H, W, 3)` uint8 RGB."""

from __future__ import annotations

import os

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from pcaseg.errors import ImageError
from pcaseg.image_files import check_image_file

_CONVERTED_MODES = ("1", "L", "LA", "La", "P", "PA", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV")
_UINT16_MAX = 65535


def read_image(path: str | os.PathLike[str]) -> np.ndarray:
    """Reads an image file, upright, as RGB.

    The EXIF orientation is applied. Transparency is dropped, not blended (as in the published evaluation).
    16-bit grey is scaled from 0..65535 to 0..255. Of an animation, the first frame is read.

    Returns:
        `(H, W, 3)` uint8, RGB.

    Raises:
        ImageError: no readable image file, a decompression bomb, or pixel values without a defined range (mode F,
            or 32-bit values outside 0..65535).
    """
    check_image_file(path)
    try:
        with Image.open(path) as opened:
            # Pillow converts 8-bit palettes with alpha only under a warning; alpha is dropped anyway.
            opened.info.pop("transparency", None)
            return _to_rgb(ImageOps.exif_transpose(opened), path)
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(f"{path}: refused, it claims more pixels than a photo has; reduce the image") from error
    except UnidentifiedImageError as error:
        raise ImageError(f"{path}: not an image that Pillow can read; give a PNG or JPEG file") from error
    except PermissionError as error:
        raise ImageError(f"{path}: permission denied; make the file readable") from error
    except Exception as error:  # on damaged bytes decoders raise almost anything: OSError, SyntaxError, struct.error...
        raise ImageError(f"{path}: damaged or half-copied image ({error}); copy the file again") from error


def read_label_map(path: str | os.PathLike[str]) -> np.ndarray:
    """Reads a map of labels: a grey image of 8 or 16 bits, or a palette image, whose indices are the labels.

    Returns:
        `(H, W)` uint8 or uint16.

    Raises:
        ImageError: no readable image file, or one with colours, whose labels have no defined order.
    """
    check_image_file(path)
    try:
        with Image.open(path) as opened:
            if opened.mode in ("L", "P"):
                return np.array(opened)
            if opened.mode.startswith("I;16"):
                return np.array(opened).astype(np.uint16)
            mode = opened.mode
    except Exception as error:  # as in `read_image`
        raise ImageError(f"{path}: damaged or not an image ({error}); copy the file again") from error
    raise ImageError(f"{path}: pixels of Pillow mode {mode} are no labels; save them as 8- or 16-bit grey PNG")


def as_rgb(image: np.ndarray, *, name: str = "image") -> np.ndarray:
    """Brings an array that already holds an image to RGB.

    Args:
        image: uint8 or uint16, `(H, W)`, `(H, W, 1)`, `(H, W, 3)` RGB or `(H, W, 4)` RGBA (alpha is dropped);
            uint16 is scaled from 0..65535 to 0..255.
        name: what the messages call it, such as a file name.

    Returns:
        `(H, W, 3)` uint8; for uint8 colour input a view of `image`.

    Raises:
        ImageError: not such an array, or one without pixels.
    """
    if not isinstance(image, np.ndarray):
        raise ImageError(f"{name}: expected a NumPy array, got {type(image).__name__}; convert it with numpy.asarray")
    if image.dtype.kind != "u" or image.dtype.itemsize > 2:
        raise ImageError(f"{name}: the values are {image.dtype}, not uint8 or uint16; scale them to 0..255 and cast")
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] not in (1, 3, 4)):
        raise ImageError(f"{name}: the shape is {image.shape}; give (height, width) or (height, width, 1, 3 or 4)")
    if 0 in image.shape:
        raise ImageError(f"{name}: the shape is {image.shape}, which has no pixels; give at least 1 x 1")
    if image.ndim == 2:
        image = image[:, :, None]
    image = _scale_uint16(image[:, :, :3]) if image.dtype.itemsize == 2 else image[:, :, :3]
    return image if image.shape[2] == 3 else np.repeat(image, 3, axis=2)


def _to_rgb(image: Image.Image, path: str | os.PathLike[str]) -> np.ndarray:
    """A Pillow image as `(H, W, 3)` uint8."""
    if image.mode == "RGB":
        return np.array(image)
    if image.mode in _CONVERTED_MODES:
        return np.array(image.convert("RGB"))
    if image.mode == "I" or image.mode.startswith("I;16"):
        values = np.array(image)
        low, high = int(values.min()), int(values.max())
        if low < 0 or high > _UINT16_MAX:
            raise ImageError(
                f"{path}: grey values {low}..{high} have no defined brightness; scale them to 0..65535 or 8 bits"
            )
        return as_rgb(values.astype(np.uint16), name=str(path))
    raise ImageError(f"{path}: pixels of Pillow mode {image.mode} have no defined brightness; save it as 8-bit RGB")


def _scale_uint16(values: np.ndarray) -> np.ndarray:
    """0..65535 to 0..255, rounded: 257 steps of one are one step of the other."""
    return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
