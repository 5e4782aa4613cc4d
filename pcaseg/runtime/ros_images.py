"""ROS image messages to RGB, and labels to ROS image messages; messages are any objects with ROS's field names."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from pcaseg.errors import ImageError
from pcaseg.images import as_rgb

MOST_MONO8 = 255
"""Classes that labels of 8 bits hold: 255 is unlabelled, by the convention of `vision_msgs/LabelInfo`."""

_DEPTH = "holds distances, not a picture; name the topic of the colour or grey camera"
_REFUSED = {"16UC1": _DEPTH, "32FC1": _DEPTH, "compressedDepth": _DEPTH}
_COLOURS = {"rgb": (0, 1, 2), "bgr": (2, 1, 0), "rgba": (0, 1, 2), "bgra": (2, 1, 0)}
_CHANNELS: dict[str, tuple[tuple[int, ...] | None, int, int]] = {
    # encoding: order of red, green and blue or None for grey, channels, bits
    **{f"{name}{bits}": (order, len(name), bits) for name, order in _COLOURS.items() for bits in (8, 16)},
    **{"mono8": (None, 1, 8), "mono16": (None, 1, 16), "8UC1": (None, 1, 8)},
    **{"8UC3": ((2, 1, 0), 3, 8), "8UC4": ((2, 1, 0), 4, 8)},
}
_BAYER = {"rggb": (0, 0), "bggr": (1, 1), "gbrg": (1, 0), "grbg": (0, 1)}
"""Row and column of red in a block of 2 x 2; blue is at the other corner."""
_YUV = {  # two bytes a pixel, where Y, U and V stand in four
    **dict.fromkeys(("yuv422", "uyvy"), (1, 0, 2)),
    **dict.fromkeys(("yuv422_yuy2", "yuyv"), (0, 1, 3)),
}
_PLANES = {"nv12": (0, 1), "nv21": (1, 0)}
"""Where U and V stand in a pair, behind the plane of Y."""


def encodings() -> tuple[str, ...]:
    """Encodings of `sensor_msgs/Image` that are read."""
    bayer = [f"bayer_{pattern}{bits}" for pattern in _BAYER for bits in (8, 16)]
    return (*_CHANNELS, *bayer, *_YUV, *_PLANES)


def image_of(message: Any, *, name: str = "image", bits: int | None = None) -> np.ndarray:
    """RGB of a `sensor_msgs/Image` or `sensor_msgs/CompressedImage`.

    Args:
        message: has the fields of one of the two; `data` is bytes or an array of uint8.
        name: what errors call it.
        bits: how many bits samples of 16 use, such as 12; None for all.

    Returns:
        `(H, W, 3)` uint8.

    Raises:
        ImageError: an encoding that holds no picture or is unknown, or fewer bytes than its size needs.
    """
    data = np.frombuffer(message.data, np.uint8)
    if hasattr(message, "format"):
        return _compressed(data, str(message.format), name, bits)
    encoding, size = str(message.encoding), (int(message.height), int(message.width))
    if encoding in _REFUSED:
        raise ImageError(f"{name}: encoding {encoding!r} {_REFUSED[encoding]}")
    decode = _decoder(encoding)
    if decode is None:
        raise ImageError(f"{name}: encoding {encoding!r} is unknown; choose a topic in one of {', '.join(encodings())}")
    if 0 in size:
        raise ImageError(f"{name}: {size[1]} x {size[0]} pixels; drop empty frames")
    order = ">" if message.is_bigendian else "<"
    try:
        pixels = decode(data, size, int(message.step), order)
    except ValueError as error:
        raise ImageError(
            f"{name}: {data.size} bytes and a step of {message.step} do not hold {size[1]} x {size[0]} pixels of "
            f"{encoding!r}; record the frame anew"
        ) from error
    return as_rgb(pixels, name=name, bits=bits)


def encode_labels(labels: np.ndarray, *, classes: int) -> tuple[str, int, bytes]:
    """Labels as the encoding, step and data of a `sensor_msgs/Image`: `mono8`, or `16UC1` for more than 255 classes.

    Args:
        labels: `(H, W)`, below `classes`.
        classes: T, at most 65535.
    """
    kind, encoding = (np.uint8, "mono8") if classes <= MOST_MONO8 else (np.dtype("<u2"), "16UC1")
    array = np.ascontiguousarray(labels, dtype=kind)
    return encoding, array.strides[0], array.tobytes()


def _compressed(data: np.ndarray, kind: str, name: str, bits: int | None) -> np.ndarray:
    if "compressedDepth" in kind:
        raise ImageError(f"{name}: format {kind!r} {_DEPTH}")
    try:
        with Image.open(io.BytesIO(data.tobytes()), formats=("JPEG", "PNG")) as picture:
            picture.load()
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ImageError(f"{name}: is no readable JPEG or PNG (format {kind!r}); record the frame anew") from error
    return as_rgb(picture, name=name, bits=bits)


_Decoder = Callable[[np.ndarray, tuple[int, int], int, str], np.ndarray]


def _decoder(encoding: str) -> _Decoder | None:
    """A function of data, (height, width), step and byte order; it raises ValueError where bytes are missing."""
    if encoding in _CHANNELS:
        order, channels, bits = _CHANNELS[encoding]
        return lambda data, size, step, endian: _interleaved(data, size, step, endian, order, channels, bits)
    pattern = encoding.removeprefix("bayer_")[:-1].rstrip("1")
    if encoding in {f"bayer_{pattern}8", f"bayer_{pattern}16"} and pattern in _BAYER:
        bits = int(encoding.removeprefix(f"bayer_{pattern}"))
        return lambda data, size, step, endian: _mosaic(
            _interleaved(data, size, step, endian, None, 1, bits), _BAYER[pattern]
        )
    if encoding in _YUV:
        return lambda data, size, step, endian: _packed_yuv(data, size, step, _YUV[encoding])
    if encoding in _PLANES:
        return lambda data, size, step, endian: _planar_yuv(data, size, step, _PLANES[encoding])
    return None


def _rows(data: np.ndarray, rows: int, step: int, used: int) -> np.ndarray:
    """The first `used` bytes of each row; a step of 0 means rows without gaps."""
    step = step or used
    if step < used or data.size < step * (rows - 1) + used:
        raise ValueError("too few bytes")
    if data.size < step * rows:  # the last row may end with its pixels
        data = np.pad(data, (0, step * rows - data.size))
    return data[: step * rows].reshape(rows, step)[:, :used]


def _interleaved(
    data: np.ndarray,
    size: tuple[int, int],
    step: int,
    endian: str,
    order: tuple[int, ...] | None,
    channels: int,
    bits: int,
) -> np.ndarray:
    height, width = size
    kind = np.dtype(np.uint8) if bits == 8 else np.dtype(f"{endian}u2")
    rows = np.ascontiguousarray(_rows(data, height, step, width * channels * kind.itemsize))
    pixels: np.ndarray = rows.view(kind).astype(kind.newbyteorder("=")).reshape(height, width, channels)
    return pixels[..., 0] if order is None else np.ascontiguousarray(pixels[..., list(order)])


def _mosaic(raw: np.ndarray, red: tuple[int, int]) -> np.ndarray:
    """RGB of a Bayer pattern, each missing sample the mean of its nearest ones (bilinear)."""
    places = {0: red, 2: (1 - red[0], 1 - red[1])}
    height, width = raw.shape
    planes = []
    for channel in range(3):
        mask = np.zeros(raw.shape, np.float32)
        if channel == 1:
            mask[red[0] :: 2, 1 - red[1] :: 2] = mask[1 - red[0] :: 2, red[1] :: 2] = 1
        else:
            row, column = places[channel]
            mask[row::2, column::2] = 1
        known, weight = (np.pad(one, 1) for one in (raw * mask, mask))
        total, count = (
            sum(
                share * one[y : y + height, x : x + width]
                for y, row_share in enumerate((1, 2, 1))
                for x, share in enumerate((row_share, 2 * row_share, row_share))
            )
            for one in (known, weight)
        )
        planes.append(np.where(mask == 1, raw, total / np.maximum(count, 1)))
    mixed: np.ndarray = np.rint(np.stack(planes, axis=2)).astype(raw.dtype)
    return mixed


def _packed_yuv(data: np.ndarray, size: tuple[int, int], step: int, where: tuple[int, int, int]) -> np.ndarray:
    height, width = size
    if width % 2:
        raise ValueError("pairs of pixels")
    pairs = _rows(data, height, step, width * 2).reshape(height, width // 2, 4)
    luma = pairs[..., [where[0], where[0] + 2]].reshape(height, width)
    return _rgb(luma, *(pairs[..., index].repeat(2, axis=1) for index in where[1:]))


def _planar_yuv(data: np.ndarray, size: tuple[int, int], step: int, where: tuple[int, int]) -> np.ndarray:
    height, width = size
    if width % 2 or height % 2:
        raise ValueError("blocks of 2 x 2 pixels")
    rows = _rows(data, height * 3 // 2, step, width)
    pairs = rows[height:].reshape(height // 2, width // 2, 2)
    return _rgb(rows[:height], *(pairs[..., index].repeat(2, axis=0).repeat(2, axis=1) for index in where))


def _rgb(luma: np.ndarray, blue: np.ndarray, red: np.ndarray) -> np.ndarray:
    """RGB of Y 16..235 and U, V 16..240, as cameras give them (ITU-R BT.601)."""
    y, u, v = (plane.astype(np.float32) - shift for plane, shift in ((luma, 16), (blue, 128), (red, 128)))
    y *= 255 / 219
    channels = (y + 1.5960 * v, y - 0.3918 * u - 0.8130 * v, y + 2.0172 * u)
    rgb: np.ndarray = np.rint(np.stack(channels, axis=2)).clip(0, 255).astype(np.uint8)
    return rgb
