"""ROS image messages in every encoding, against a picture that was written in it."""

from __future__ import annotations

import io
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from pcaseg.errors import ImageError
from pcaseg.runtime.ros_images import encode_labels, encodings, image_of

H, W = 12, 16
ROWS, COLUMNS = np.mgrid[0:H, 0:W]
RGB = np.stack([40 + 8 * COLUMNS, 200 - 6 * ROWS, 90 + 3 * ROWS + 2 * COLUMNS], axis=2).astype(np.uint8)
GREY = RGB[..., 1]


def yuv() -> np.ndarray:
    """Y, U and V of BT.601 in camera range, each constant over blocks of 2 x 2 where shared."""
    matrix = np.array([[0.257, 0.504, 0.098], [-0.148, -0.291, 0.439], [0.439, -0.368, -0.071]])
    return np.rint(RGB @ matrix.T + (16, 128, 128)).astype(np.uint8)


def written(encoding: str) -> np.ndarray:
    """The picture's bytes, `(rows, bytes)`, as a camera would send them."""
    alpha = np.full((H, W, 1), 255, np.uint8)
    name = encoding.removesuffix("16").removesuffix("8")
    plain = {
        "rgb": RGB,
        "bgr": RGB[..., ::-1],
        "8UC3": RGB[..., ::-1],
        "rgba": np.concatenate([RGB, alpha], axis=2),
        "bgra": np.concatenate([RGB[..., ::-1], alpha], axis=2),
        "8UC4": np.concatenate([RGB[..., ::-1], alpha], axis=2),
        "mono": GREY,
        "8UC1": GREY,
    }
    if name.startswith("bayer_"):
        found = np.zeros((H, W), np.uint8)
        for index, letter in enumerate(name.removeprefix("bayer_")):
            row, column = divmod(index, 2)
            found[row::2, column::2] = RGB[row::2, column::2, "rgb".index(letter)]
    elif name in plain:
        found = plain[name]
    elif encoding in ("nv12", "nv21"):
        planes = yuv()
        pairs = planes[0::2, 0::2, 1:] if encoding == "nv12" else planes[0::2, 0::2, :0:-1]
        return np.concatenate([planes[..., 0], pairs.reshape(H // 2, W)])
    else:
        planes = yuv()
        luma, chroma = planes[..., 0], planes[:, 0::2, 1:].reshape(H, W)
        found = np.stack([chroma, luma] if encoding in ("uyvy", "yuv422") else [luma, chroma], axis=2)
    if encoding.endswith("16"):
        found = found.astype(np.uint16) * 257
    return np.ascontiguousarray(found.reshape(H, -1)).view(np.uint8)


def message(encoding: str, rows: np.ndarray, **changes: object) -> SimpleNamespace:
    fields = {"height": H, "width": W, "encoding": encoding, "is_bigendian": 0, "step": rows.shape[1]}
    return SimpleNamespace(**(fields | {"data": rows.tobytes()} | changes))


def expected(encoding: str) -> np.ndarray:
    return np.stack([GREY] * 3, axis=2) if encoding in ("mono8", "mono16", "8UC1") else RGB


@pytest.mark.parametrize("encoding", encodings())
def test_every_encoding(encoding: str) -> None:
    found = image_of(message(encoding, written(encoding)))
    off = np.abs(found.astype(int) - expected(encoding))
    assert found.dtype == np.uint8 and found.shape == (H, W, 3)
    if encoding.startswith("bayer"):
        assert off[1:-1, 1:-1].max() <= 1  # the picture is linear, so means are exact but for rounding
        assert off.max() <= 8
    elif encoding in ("nv12", "nv21") or "y" in encoding:
        assert off.max() <= 18 and off.mean() < 6  # colours of 2 x 2 pixels are one
    else:
        assert off.max() == 0


@pytest.mark.parametrize("encoding", ["rgb8", "mono16", "bayer_rggb8", "uyvy", "nv12"])
def test_rows_may_have_gaps_and_the_last_may_end_early(encoding: str) -> None:
    rows = written(encoding)
    whole = image_of(message(encoding, rows))
    gaps = np.pad(rows, ((0, 0), (0, 6)), constant_values=9)
    np.testing.assert_array_equal(image_of(message(encoding, gaps)), whole)
    np.testing.assert_array_equal(image_of(message(encoding, gaps, data=gaps.tobytes()[:-6])), whole)
    np.testing.assert_array_equal(image_of(message(encoding, rows, step=0)), whole)


def test_big_endian_and_bits() -> None:
    values = (GREY.astype(np.uint16) * 16 + 5).astype(">u2")  # 12 bits
    big = message("mono16", values.view(np.uint8), is_bigendian=1)
    found = image_of(big, bits=12)
    assert np.abs(found[..., 0].astype(int) - GREY).max() <= 1
    assert image_of(big)[..., 0].max() < 16


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_compressed(kind: str) -> None:
    buffer = io.BytesIO()
    Image.fromarray(RGB).save(buffer, kind, **({"quality": 98, "subsampling": 0} if kind == "JPEG" else {}))
    found = image_of(SimpleNamespace(format=f"rgb8; {kind.lower()} compressed bgr8", data=buffer.getvalue()))
    assert np.abs(found.astype(int) - RGB).max() <= (0 if kind == "PNG" else 6)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (message("16UC1", written("mono16")), "'16UC1' holds distances, not a picture"),
        (message("32FC1", written("rgba8")), "'32FC1' holds distances"),
        (message("jpeg", written("rgb8")), "encoding 'jpeg' is unknown; choose a topic in one of rgb8,"),
        (message("bayer_rgbg8", written("mono8")), "'bayer_rgbg8' is unknown"),
        (message("rgb8", written("rgb8"), height=H + 1), "do not hold 16 x 13 pixels of 'rgb8'"),
        (message("rgb8", written("rgb8"), step=4), "a step of 4 do not hold"),
        (message("nv12", written("nv12"), height=H - 1), "do not hold"),
        (message("mono8", written("mono8"), height=0), "16 x 0 pixels; drop empty frames"),
        (SimpleNamespace(format="16UC1; compressedDepth png", data=b"x"), "compressedDepth.*holds distances"),
        (SimpleNamespace(format="jpeg", data=b"no picture"), "is no readable JPEG or PNG"),
        (SimpleNamespace(format="jpeg", data=b""), "is no readable JPEG or PNG"),
    ],
)
def test_what_is_refused(wrong: SimpleNamespace, says: str) -> None:
    with pytest.raises(ImageError, match=f"^a frame: .*{says}"):
        image_of(wrong, name="a frame")


@pytest.mark.parametrize(("classes", "encoding", "width"), [(1, "mono8", 1), (255, "mono8", 1), (256, "16UC1", 2)])
def test_labels(classes: int, encoding: str, width: int) -> None:
    labels = (ROWS * W + COLUMNS) % classes
    kind, step, data = encode_labels(labels, classes=classes)
    assert (kind, step) == (encoding, W * width)
    found = np.frombuffer(data, np.uint8 if width == 1 else "<u2").reshape(H, W)
    np.testing.assert_array_equal(found, labels)
