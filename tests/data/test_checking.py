"""`pcaseg datasets check` on miniature copies of the published data sets."""

from __future__ import annotations

from dataclasses import replace

import pytest
from PIL import Image
from test_prepare import SIZE, ade_150, ade_847, filled, spoil

from pcaseg.cli import main
from pcaseg.data import specs
from pcaseg.data.folders import open_prepared
from pcaseg.data.prepare import prepare
from pcaseg.data.specs import data_set


@pytest.fixture
def published(monkeypatch):
    """ADE20K-150 as if two images had been published."""
    spec = data_set("ade20k_150")
    small = replace(spec, splits={"val": replace(spec.split("val"), count=2)})
    monkeypatch.setitem(specs.DATA_SETS, "ade20k_150", small)
    return small


def test_check_passes_what_is_whole(tmp_path, capsys, published):
    ade_150(tmp_path)
    assert main(["datasets", "check", "ade20k_150", "--root", str(tmp_path)]) == 1
    assert "pcaseg datasets prepare ade20k_150" in capsys.readouterr().err
    assert main(["datasets", "prepare", "ade20k_150", "--root", str(tmp_path)]) == 0
    assert "2 converted, 0 done before and skipped, 0 failed" in capsys.readouterr().out
    assert main(["datasets", "check", "ade20k_150", "--root", str(tmp_path)]) == 0
    assert "2 of 2 images are right" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("spoilt", "content", "fragment"),
    [
        ("labels", None, "has no labels"),
        ("images", None, "has no image"),
        ("labels", filled(150), "holds label 150"),
        ("labels", filled(0).T, "9 x 6 labels for an image of 6 x 9"),
        ("images", b"half", "not an image"),
        ("labels", b"", "empty"),
    ],
)
def test_check_says_what_is_wrong(tmp_path, capsys, published, spoilt, content, fragment):
    ade_150(tmp_path)
    prepare("ade20k_150", tmp_path)
    folder = tmp_path / getattr(published.split("val"), spoilt)
    spoil(sorted(folder.iterdir())[0], content)
    assert main(["datasets", "check", "ade20k_150", "--root", str(tmp_path)]) == 1
    assert fragment in capsys.readouterr().err


@pytest.mark.parametrize(("orientation", "right"), [(1, 2), (2, 1), (3, 1), (4, 1), (5, 2), (6, 2), (7, 2), (8, 2)])
def test_check_of_images_with_an_orientation(tmp_path, capsys, published, orientation, right):
    ade_150(tmp_path)
    prepare("ade20k_150", tmp_path)
    image = sorted((tmp_path / published.split("val").images).iterdir())[0]
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", SIZE[::-1]).save(image, exif=exif)
    assert main(["datasets", "check", "ade20k_150", "--root", str(tmp_path)]) == (0 if right == 2 else 1)
    captured = capsys.readouterr()
    assert f"{right} of 2 images are right" in captured.out
    assert (f"{image} has EXIF orientation {orientation}" in captured.err) == (right == 1)


@pytest.mark.parametrize(("orientation", "done"), [(3, False), (6, True)])
def test_large_images_of_full_ade_with_an_orientation(tmp_path, orientation, done):
    ade_847(tmp_path)
    raw = next((tmp_path / "ADE20K_2021_17_01/images/ADE/validation").rglob("ADE_val_1.jpg"))
    exif = Image.Exif()
    exif[0x0112] = orientation
    with Image.open(raw) as picture:
        width, height = picture.size
        picture.load()
        picture.save(raw, exif=exif)
    result = prepare("ade20k_847", tmp_path)
    if done:
        image, labels = open_prepared("ade20k_847", tmp_path).item(0)
        assert image.shape[:2] == labels.shape and (labels.shape[0] > labels.shape[1]) == (width > height)
    else:
        assert [name for name, _ in result.failed] == ["ADE_val_1"] and "EXIF orientation 3" in result.failed[0][1]


def test_check_counts_against_the_published_number(tmp_path, capsys):
    ade_150(tmp_path)
    prepare("ade20k_150", tmp_path)
    assert main(["datasets", "check", "ade20k_150", "--root", str(tmp_path)]) == 1
    captured = capsys.readouterr()
    assert "2 images with labels, but 2000 are published" in captured.err and "2 of 2000" in captured.out
