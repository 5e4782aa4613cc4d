"""Opened Pillow images, formats that are not opened, and PNG files with large texts."""

from __future__ import annotations

import io
import os
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image, PngImagePlugin

from pcaseg.errors import ImageError
from pcaseg.image_files import list_images
from pcaseg.images import as_rgb, read_image, read_label_map
from pcaseg.pictures import upright

PHOTO = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
MODES = {
    "1": "png", "L": "png", "LA": "png", "P": "png", "PA": None, "RGB": "png", "RGBA": "png", "RGBX": None,
    "RGBa": None, "La": None, "CMYK": "tif", "YCbCr": "tif", "LAB": "tif", "HSV": None,
}  # fmt: skip
"""Modes and the ending of a format that stores them."""


def in_mode(mode: str) -> Image.Image:
    middle = {"RGBa": "RGBA", "La": "LA"}.get(mode)
    image = Image.fromarray(PHOTO)
    return (image.convert(middle) if middle else image).convert(mode)


@pytest.mark.parametrize("mode", MODES)
def test_a_pillow_image_is_what_its_file_is(tmp_path: Path, mode: str) -> None:
    image, suffix = in_mode(mode), MODES[mode]
    before = image.tobytes()
    rgb = as_rgb(image)
    assert rgb.shape == PHOTO.shape and rgb.dtype == np.uint8
    assert image.mode == mode and image.tobytes() == before
    grey = mode in ("1", "L", "LA", "La")
    assert (rgb[:, :, 0] == rgb[:, :, 1]).all() == grey
    if not grey and mode not in ("P", "PA"):
        assert np.abs(rgb.astype(int) - PHOTO).mean() < 6
    if suffix:
        image.save(tmp_path / f"a.{suffix}")
        np.testing.assert_array_equal(read_image(tmp_path / f"a.{suffix}"), rgb)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("mode", ["L", "P", "RGB", "CMYK", "I;16"])
def test_plain_tiff_that_is_stored_turned(tmp_path: Path, mode: str, orientation: int) -> None:
    grey = np.ascontiguousarray(PHOTO[:, :, 0])
    image = Image.fromarray(grey.astype(np.uint16) * 257) if mode == "I;16" else in_mode(mode)
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(tmp_path / "a.tif", exif=exif)
    expected = upright(as_rgb(image), orientation)
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), expected)
    with Image.open(tmp_path / "a.tif") as opened:
        np.testing.assert_array_equal(as_rgb(opened), expected)
        assert opened.filename == str(tmp_path / "a.tif")
    if mode in ("L", "I;16"):
        np.testing.assert_array_equal(read_label_map(tmp_path / "a.tif"), upright(np.asarray(image), orientation))


@pytest.mark.parametrize("mode", ["I;16", "I;16B", "I;16L"])
def test_a_pillow_image_of_sixteen_bits(mode: str) -> None:
    values = np.array([[0, 257, 65535]], ">u2" if mode == "I;16B" else "<u2")
    image = Image.frombytes(mode, (3, 1), values.tobytes())
    assert as_rgb(image)[0, :, 0].tolist() == [0, 1, 255]
    with pytest.raises(ImageError, match="outside the 12 bits"):
        as_rgb(image, bits=12)


@pytest.mark.parametrize(("mode", "message"), [("I", "32 bits"), ("F", "mode F")])
def test_a_pillow_image_without_a_defined_brightness(mode: str, message: str) -> None:
    with pytest.raises(ImageError, match=f"frame 3: .*{message}"):
        as_rgb(Image.new(mode, (3, 2), 9), name="frame 3")


@pytest.mark.parametrize("transparency", [0, bytes([0, 128, 255])])
def test_a_palette_with_transparency(tmp_path: Path, transparency: object, recwarn: pytest.WarningsRecorder) -> None:
    image = Image.fromarray(np.array([[0, 1, 2]], np.uint8)).convert("P")
    image.putdata([0, 1, 2])
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    image.info["transparency"] = transparency
    np.testing.assert_array_equal(as_rgb(image)[0], np.diag([255, 255, 255]))
    assert image.info["transparency"] == transparency and not recwarn.list


@pytest.mark.parametrize("orientation", [1, 2, 3, 4, 5, 6, 7, 8])
@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "webp"])
def test_a_pillow_image_is_turned_upright_like_its_file(tmp_path: Path, suffix: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(PHOTO).save(path, exif=exif)
    wanted = read_image(path)
    assert wanted.shape == ((9, 6, 3) if orientation >= 5 else (6, 9, 3))
    with Image.open(path) as opened:
        np.testing.assert_array_equal(as_rgb(opened), wanted)
        np.testing.assert_array_equal(as_rgb(opened), wanted)  # now that its pixels are loaded
    if suffix in ("png", "tif"):
        plain = tmp_path / f"plain.{suffix}"
        Image.fromarray(wanted).save(plain)
        np.testing.assert_array_equal(read_image(plain), wanted)


def test_a_damaged_pillow_image(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:900])
    with Image.open(path) as opened, pytest.raises(ImageError, match="image: damaged"):
        as_rgb(opened)


@pytest.mark.parametrize("form", ["EPS", "PCX", "ICO", "SGI", "XBM", "MSP", "SPIDER", "ICNS", "PDF", "DDS"])
def test_other_formats_are_never_opened(tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mode = {"XBM": "1", "MSP": "1", "SPIDER": "F"}.get(form, "RGB")
    path = tmp_path / "upload.png"
    own = path.with_suffix(f".{form.lower()}")  # its own: Pillow takes the ending of a SPIDER file for its format's
    Image.fromarray(PHOTO).resize((64, 64)).convert(mode).save(own, form)
    own.rename(path)
    called = tmp_path / "called"
    (tmp_path / "gs").write_text(f"#!/bin/sh\necho called >> {called}\n")
    (tmp_path / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    with pytest.raises(ImageError, match=r"upload\.png: .*convert it to PNG or JPEG") as caught:
        read_image(path)
    assert "\n" not in str(caught.value) and not called.exists()
    if form in ("EPS", "PCX", "ICO", "ICNS", "PDF", "DDS", "SGI"):  # those that are told by their first bytes
        assert f"holds {form}, a format that is not opened" in str(caught.value)
    if form != "PDF":
        with Image.open(path) as opened, pytest.raises(ImageError, match=f"image: holds {form}"):
            as_rgb(opened)
    assert not called.exists()


@pytest.mark.parametrize("form", ["PNG", "JPEG", "BMP", "GIF", "PPM", "TIFF", "WEBP", "AVIF", "JPEG2000", "TGA", "QOI"])
def test_formats_that_are_read_whatever_their_name(tmp_path: Path, form: str) -> None:
    Image.init()
    if form not in Image.SAVE:
        pytest.skip(f"this Pillow has no {form}")
    path = tmp_path / "a.data"
    Image.new("RGB", (20, 10), (250, 10, 10)).save(path, form)
    assert np.abs(read_image(path).astype(int) - (250, 10, 10)).max() < 8


def test_a_film_or_heif_without_its_plugin(tmp_path: Path) -> None:
    path = tmp_path / "a.heic"
    path.write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
    with pytest.raises(ImageError, match=r"a\.heic: holds b'heic' \(HEIF.*plugin"):
        read_image(path)


def png_with(**options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(PHOTO).save(buffer, "PNG", **options)
    return buffer.getvalue()


def large_texts() -> dict[str, bytes]:
    zipped, plain, late, xmp = (PngImagePlugin.PngInfo() for _ in range(4))
    zipped.add_text("Comment", "a" * (3 << 20), zip=True)
    xmp.add_itxt("XML:com.adobe.xmp", "b" * (3 << 20), zip=True)
    for number in range(3):
        plain.add_text(f"Comment {number}", "c" * (30 << 20))
    late.add_text("Comment", "d" * (3 << 20), zip=True)
    whole = png_with(pnginfo=late)
    start = whole.index(b"zTXt") - 4
    end = start + 12 + int.from_bytes(whole[start : start + 4], "big")
    text, without = whole[start:end], whole[:start] + whole[end:]
    at_end = without[:-12] + text + without[-12:]
    return {
        "zipped": png_with(pnginfo=zipped),
        "xmp": png_with(pnginfo=xmp),
        "plain": png_with(pnginfo=plain),
        "late": at_end,
        "profile": png_with(icc_profile=bytes(3 << 20)),
    }


@pytest.mark.parametrize("kind", ["zipped", "xmp", "plain", "late", "profile"])
def test_large_texts_and_profiles(tmp_path: Path, kind: str) -> None:
    content = large_texts()[kind]
    with pytest.raises(ValueError, match="too large|MAX_TEXT_MEMORY"), Image.open(io.BytesIO(content)) as opened:
        opened.load()
    (tmp_path / "a.png").write_bytes(content)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), PHOTO)


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("form", ['tiff:Orientation="6"', "<tiff:Orientation>6</tiff:Orientation>"])
def test_the_orientation_in_a_large_text_is_applied(tmp_path: Path, form: str, zipped: bool) -> None:
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", "e" * (3 << 20) + form, zip=zipped)
    (tmp_path / "a.png").write_bytes(png_with(pnginfo=info))
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), np.rot90(PHOTO, -1))


def test_the_orientation_in_a_raw_profile_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 8
    data = exif.tobytes()
    info = PngImagePlugin.PngInfo()
    info.add_text("Raw profile type exif", f"\nexif\n{len(data):8}\n{data.hex()}\n", zip=True)
    (tmp_path / "a.png").write_bytes(png_with(pnginfo=info))
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), np.rot90(PHOTO))


@pytest.mark.parametrize("body", [b"XML:com.adobe.xmp\0", b"XML:com.adobe.xmp\0\1\0\0\0no zlib", b"", b"\0"])
def test_damaged_texts_do_not_matter(tmp_path: Path, body: bytes) -> None:
    content = png_with()
    chunk = len(body).to_bytes(4, "big") + b"iTXt" + body + zlib.crc32(b"iTXt" + body).to_bytes(4, "big")
    (tmp_path / "a.png").write_bytes(content[:33] + chunk + content[33:])
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), PHOTO)


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a Git LFS pointer .*; run git lfs pull"),
        (b"../.git/annex/objects/1/2/x.png", "a git-annex pointer"),
        (b"<!DOCTYPE html><html>404</html>", "a saved web page"),
        (b'<?xml version="1.0"?>\n<!-- drawn --><svg xmlns="x"/>', r"a drawing of lines \(SVG\)"),
        ("\ufeff<svg/>".encode("utf-16-le"), "SVG"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "an XML document"),
        (b'{"message": "Not Found"}', "JSON text"),
        (b"\x1f\x8b\x08" + bytes(20), "a gzip archive; unpack it"),
        (b"PK\x03\x04" + bytes(20), "a zip archive"),
        (b"\x93NUMPY\x01\x00", "a NumPy array"),
        (b"\x00\x05\x16\x07\x00\x02", "what macOS keeps beside a file"),
        (bytes(500), "nothing but zeros"),
        (b"II*\0" + bytes(200), "TIFF, damaged or of a layout that is not read"),
    ],
)
def test_what_is_no_image_is_called_by_its_name(tmp_path: Path, data: bytes, what: str) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(data)
    with pytest.raises(ImageError, match=rf"a\.jpg: (is|holds) {what}" if what != "SVG" else "SVG"):
        read_image(path)


@pytest.mark.parametrize("tags", [{254: 1}, {50706: b"\1\4\0\0"}], ids=["preview", "DNG"])
def test_the_preview_of_a_raw_picture_is_not_taken_for_it(tmp_path: Path, tags: dict[int, object]) -> None:
    path = tmp_path / "a.dng"
    Image.new("RGB", (8, 8)).save(path, "TIFF", tiffinfo=tags)
    with pytest.raises(ImageError, match="a camera's raw picture"):
        read_image(path)


@pytest.mark.parametrize("orientation", [1, 6])
def test_pictures_of_several_views_are_listed_and_read(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    picture = Image.new("RGB", (16, 8), "red")
    picture.save(tmp_path / "a.MPO", "MPO", save_all=True, append_images=[Image.new("RGB", (16, 8))], exif=exif)
    assert list_images(tmp_path) == [tmp_path / "a.MPO"]
    read = read_image(tmp_path / "a.MPO")
    assert read.shape == ((8, 16, 3) if orientation == 1 else (16, 8, 3)) and read[4, 4, 0] > 230
