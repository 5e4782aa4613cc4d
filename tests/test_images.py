"""Image files of every kind, whole and broken."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from pcaseg.errors import ImageError, PcasegError
from pcaseg.image_files import list_images
from pcaseg.images import as_rgb, read_image, read_label_map

PHOTO = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)


def save(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)
    return path


def test_rgb_png_comes_back_unchanged(tmp_path: Path) -> None:
    read = read_image(save(tmp_path / "a.png", Image.fromarray(PHOTO)))
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, PHOTO)


def test_grey_is_repeated(tmp_path: Path) -> None:
    read = read_image(save(tmp_path / "a.png", Image.fromarray(PHOTO[:, :, 0])))
    np.testing.assert_array_equal(read, np.repeat(PHOTO[:, :, :1], 3, axis=2))


def test_one_bit_is_black_and_white(tmp_path: Path) -> None:
    bits = PHOTO[:, :, 0] > 127
    read = read_image(save(tmp_path / "a.png", Image.fromarray(bits)))
    np.testing.assert_array_equal(read[:, :, 1], bits * np.uint8(255))


@pytest.mark.parametrize("channels", [2, 4])
def test_alpha_is_dropped_not_blended(tmp_path: Path, channels: int) -> None:
    pixels = np.zeros((4, 4, channels), np.uint8)
    pixels[:, :, 0] = 200  # alpha stays 0: blending would give black or white
    read = read_image(save(tmp_path / "a.png", Image.fromarray(pixels)))
    assert (read[:, :, 0] == 200).all()


@pytest.mark.parametrize("transparency", [None, 1, bytes([0, 128, 255])])
def test_palette_with_and_without_transparency(
    tmp_path: Path, transparency: object, recwarn: pytest.WarningsRecorder
) -> None:
    image = Image.fromarray(np.array([[0, 1, 2]], np.uint8)).convert("P")
    image.putdata([0, 1, 2])
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    options = {} if transparency is None else {"transparency": transparency}
    read = read_image(save(tmp_path / "a.png", image, **options))
    np.testing.assert_array_equal(read[0], np.diag([255, 255, 255]))
    assert not [w for w in recwarn if "Palette" in str(w.message)]


def test_cmyk_jpeg(tmp_path: Path) -> None:
    read = read_image(save(tmp_path / "a.jpg", Image.new("CMYK", (8, 8), (0, 255, 255, 0)), quality=95))
    assert read.shape == (8, 8, 3)
    assert read[4, 4, 0] > 230 and read[4, 4, 1] < 25


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bit_grey_is_scaled(tmp_path: Path, suffix: str) -> None:
    values = np.array([[0, 128, 129, 257, 32768, 65535]], np.uint16)
    read = read_image(save(tmp_path / f"a.{suffix}", Image.fromarray(values)))
    assert read[0, :, 0].tolist() == [0, 0, 1, 1, 128, 255]


def test_big_endian_sixteen_bit_tiff(tmp_path: Path) -> None:
    image = Image.frombytes("I;16B", (2, 1), struct.pack(">2H", 257, 65535))
    assert read_image(save(tmp_path / "a.tif", image))[0, :, 2].tolist() == [1, 255]


@pytest.mark.parametrize("values", [[0, 65535], [0, 4], [0, 65536], [-1, 5]])
@pytest.mark.parametrize("kind", [np.int32, np.uint32, np.int16])
def test_grey_of_32_bits_or_with_a_sign_needs_its_bits(tmp_path: Path, values: list[int], kind: type) -> None:
    stored = np.array([values]).astype(kind)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, stored)
    with pytest.raises(ImageError, match=r"a\.tif: grey of 32 bits or with a sign has no defined brightness.*--bits"):
        read_image(path)
    if stored.min() >= 0 and stored.max() <= 65535:
        assert read_image(path, bits=16)[0, :, 0].tolist() == [0, round(int(stored.max()) / 257)]
    else:
        with pytest.raises(ImageError, match=r"a\.tif: values .* are outside the 16 bits"):
            read_image(path, bits=16)


@pytest.mark.parametrize("suffix", ["pgm", "png"])
def test_sixteen_bits_that_pillow_may_hold_in_32(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(np.array([[0, 257, 65535]], np.uint16)).save(path)
    assert read_image(path)[0, :, 0].tolist() == [0, 1, 255]
    with Image.open(path) as opened:
        assert as_rgb(opened)[0, :, 0].tolist() == [0, 1, 255]


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_white_is_zero(tmp_path: Path, dtype: type, compression: str | None) -> None:
    top = np.iinfo(dtype).max
    stored = np.array([[0, top, top // 5]], dtype)
    for name, photometric in (("white", "miniswhite"), ("black", "minisblack")):
        tifffile.imwrite(tmp_path / f"{name}.tif", stored, photometric=photometric, compression=compression)
    assert read_image(tmp_path / "black.tif")[0, :, 0].tolist() == [0, 255, 51]
    assert read_image(tmp_path / "white.tif")[0, :, 0].tolist() == [255, 0, 204]
    assert read_label_map(tmp_path / "black.tif").tolist() == stored.tolist()
    with pytest.raises(ImageError, match=r"white\.tif: this kind of grey .* changes the labels"):
        read_label_map(tmp_path / "white.tif")


@pytest.mark.parametrize(("bits", "values"), [(12, [0, 2048, 4095]), (10, [0, 512, 1023]), (8, [0, 128, 255])])
def test_fewer_bits_than_the_container_has(tmp_path: Path, bits: int, values: list[int]) -> None:
    stored, wanted = np.array([values], np.uint16), [0, 128, 255]
    for name in ("a.png", "a.tif"):
        path = save(tmp_path / name, Image.fromarray(stored))
        assert read_image(path, bits=bits)[0, :, 1].tolist() == wanted
        assert read_image(path)[0, 2, 1] < 255
    tifffile.imwrite(tmp_path / "white.tif", (1 << bits) - 1 - stored, photometric="miniswhite")
    assert read_image(tmp_path / "white.tif", bits=bits)[0, :, 1].tolist() == wanted
    assert as_rgb(stored, bits=bits)[0, :, 1].tolist() == wanted
    assert as_rgb(Image.fromarray(stored), bits=bits)[0, :, 1].tolist() == wanted
    eight = save(tmp_path / "eight.png", Image.fromarray(PHOTO))
    np.testing.assert_array_equal(read_image(eight, bits=bits), PHOTO)
    beyond = save(tmp_path / "beyond.png", Image.fromarray(stored * 2))
    with pytest.raises(ImageError, match=rf"beyond\.png: values 0\.\..* outside the {bits} bits"):
        read_image(beyond, bits=bits)


@pytest.mark.parametrize("bits", [0, 7, 17, 12.0, "12"])
def test_bits_that_no_image_has(tmp_path: Path, bits: object) -> None:
    path = save(tmp_path / "a.png", Image.fromarray(PHOTO))
    for read in (lambda: read_image(path, bits=bits), lambda: as_rgb(PHOTO, bits=bits)):
        with pytest.raises(PcasegError, match=f"bits={bits}: give 8 to 16"):
            read()


def test_colours_of_sixteen_bits_take_no_bits(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, PHOTO.astype(np.uint16) * 257, photometric="rgb")
    np.testing.assert_array_equal(read_image(path), PHOTO)
    with pytest.raises(ImageError, match=r"a\.tif: colours of 16 bits.*bits=12"):
        read_image(path, bits=12)


@pytest.mark.parametrize("bits", [2, 4])
def test_labels_that_pillow_rescales_are_refused(tmp_path: Path, bits: int) -> None:
    """Grey PNG of 2 or 4 bits: label 1 would be read as 85 or 17."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 8 // bits, 1, bits, 0, 0, 0, 0)
    content = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0\x01"))
    (tmp_path / "a.png").write_bytes(content + chunk(b"IEND", b""))
    assert read_image(tmp_path / "a.png")[0, -1, 0] == 255 // ((1 << bits) - 1)
    with pytest.raises(ImageError, match=r"a\.png: this kind of grey .* changes the labels"):
        read_label_map(tmp_path / "a.png")


def test_twelve_bits_as_a_tiff_says(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.array([[0, 2048, 4095, 16]], np.uint16))
    content = bytearray(path.read_bytes())
    entry = content.index(struct.pack("<HHII", 258, 3, 1, 16))
    content[entry : entry + 12] = struct.pack("<HHII", 258, 3, 1, 12)
    with Image.open(path) as opened:
        offset = opened.tile[0][2]
    content[offset : offset + 6] = bytes([0x00, 0x08, 0x00, 0xFF, 0xF0, 0x10])  # 0, 2048, 4095, 16 in 12 bits each
    path.write_bytes(content)
    assert read_image(path)[0, :, 0].tolist() == [0, 128, 255, 1]


def test_float_tiff_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"a\.tif.*mode F"):
        read_image(save(tmp_path / "a.tif", Image.fromarray(np.zeros((2, 2), np.float32))))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int) -> None:
    upright = {
        1: PHOTO,
        2: PHOTO[:, ::-1],
        3: PHOTO[::-1, ::-1],
        4: PHOTO[::-1],
        5: PHOTO.swapaxes(0, 1),
        6: np.rot90(PHOTO, -1),
        7: PHOTO[::-1, ::-1].swapaxes(0, 1),
        8: np.rot90(PHOTO),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / "a.png", Image.fromarray(PHOTO), exif=exif.tobytes())
    np.testing.assert_array_equal(read_image(path), upright)


def test_first_frame_of_an_animation(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    path = save(tmp_path / "a.gif", frames[0], save_all=True, append_images=frames[1:])
    assert read_image(path)[0, 0].tolist() == [255, 0, 0]


def test_one_pixel(tmp_path: Path) -> None:
    assert read_image(save(tmp_path / "a.png", Image.new("RGB", (1, 1), (1, 2, 3)))).tolist() == [[[1, 2, 3]]]


def test_forty_eight_megapixels(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", Image.new("L", (8000, 6000), 9), compress_level=1)
    assert read_image(path).shape == (6000, 8000, 3)


def test_decompression_bomb_is_refused(tmp_path: Path) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    path = tmp_path / "a.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"0" * 100)))
    with pytest.raises(ImageError, match=r"a\.png: refused, it claims more pixels"):
        read_image(path)


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "bmp", "gif", "webp"])
def test_truncated_file(tmp_path: Path, suffix: str) -> None:
    photo = np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = save(tmp_path / f"a.{suffix}", Image.fromarray(photo))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ImageError, match=rf"a\.{suffix}: "):
        read_image(path)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damaged_bytes_give_an_image_or_an_image_error(tmp_path: Path, data: st.DataObject) -> None:
    suffix = data.draw(st.sampled_from(["png", "jpg", "gif", "tif", "bmp"]))
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(np.repeat(np.repeat(PHOTO, 3, 0), 3, 1)).save(path)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        read = read_image(path)
    except ImageError as error:
        assert str(path) in str(error)
    else:
        assert read.dtype == np.uint8 and read.shape[2] == 3


def test_missing_folder_empty_and_foreign_files_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("not an image at all")
    cases = {"missing.png": "no such file", ".": "is a folder", "empty.png": "is empty", "text.png": "not an image"}
    for name, message in cases.items():
        with pytest.raises(ImageError, match=message) as caught:
            read_image(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 1), (4, 5, 3), (4, 5, 4)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, ">u2"])
def test_as_rgb_accepts(shape: tuple[int, ...], dtype: object) -> None:
    image = np.full(shape, 200, np.dtype(dtype)) * (257 if np.dtype(dtype).itemsize == 2 else 1)
    rgb = as_rgb(image.astype(dtype))
    assert rgb.shape == (4, 5, 3) and rgb.dtype == np.uint8
    assert (rgb == 200).all()


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((4, 5, 3), np.float32), "float32, not uint8"),
        (np.zeros((4, 5), bool), "bool, not uint8"),
        (np.zeros((4, 5), np.int32), "int32, not uint8"),
        (np.zeros((4, 5, 2), np.uint8), "shape is"),
        (np.zeros((3,), np.uint8), "shape is"),
        (np.zeros((1, 4, 5, 3), np.uint8), "shape is"),
        (np.zeros((0, 5, 3), np.uint8), "no pixels"),
        ([[1, 2], [3, 4]], "got list"),
    ],
)
def test_as_rgb_refuses(image: np.ndarray, message: str) -> None:
    with pytest.raises(ImageError, match=f"frame 7: .*{message}"):
        as_rgb(image, name="frame 7")


def test_list_images_is_sorted_and_stays_in_the_folder(tmp_path: Path) -> None:
    for name in ("b.JPG", "a.png", "notes.txt", ".hidden.png", "sub/c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    assert [path.name for path in list_images(tmp_path)] == ["a.png", "b.JPG"]
    with pytest.raises(ImageError, match="no images in this folder"):
        list_images(tmp_path / "folder.png")
    with pytest.raises(ImageError, match="cannot be listed"):
        list_images(tmp_path / "missing")
