"""Overlays, palette and saved files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pcaseg.errors import OutputError, PcasegError
from pcaseg.runtime.overlay import LEGEND_ENTRIES, LONGEST_SIDE_PX, SHORTEST_LONG_SIDE_PX
from pcaseg.runtime.palette import class_colours
from pcaseg.runtime.result import Result


def make_result(labels: np.ndarray, classes: tuple[str, ...], **changes: Any) -> Result:
    fields: dict[str, Any] = {
        "labels": labels.astype(np.uint16),
        "confidence": np.full(labels.shape, 0.25, np.float32),
        "classes": classes,
        "image": np.full((*labels.shape, 3), 100, np.uint8),
        "timings_ms": {"read": 1.23456, "total": 2.0},
        "backend": "fake-numpy",
        "weights": "seeded",
        "bundle_sha256": "b" * 64,
    }
    return Result(**(fields | changes))


def shows(picture: Image.Image, colour: object) -> bool:
    return bool((np.asarray(picture) == np.asarray(colour)).all(axis=2).any())


def halves(height: int, width: int) -> np.ndarray:
    labels = np.zeros((height, width), int)
    labels[:, width // 4 :] = 2
    return labels


def test_overlay_blends_and_names_the_classes_present() -> None:
    result = make_result(halves(300, 400), ("cat", "dog", "grass"))
    shades = class_colours(result.classes)
    colours = shades.astype(float)
    picture = result.overlay(opacity=0.25)
    assert picture.width == 400 and picture.height > 300
    pixels = np.asarray(picture)
    for x, label in ((10, 0), (390, 2)):
        np.testing.assert_allclose(pixels[150, x], 0.75 * 100 + 0.25 * colours[label], atol=1)
    legend = picture.crop((0, 300, 400, picture.height))
    assert [shows(legend, colour) for colour in shades] == [True, False, True]  # no pixel has class 1
    larger, smaller = (np.argwhere((np.asarray(legend) == shades[label]).all(axis=2)).mean(axis=0) for label in (2, 0))
    assert tuple(larger[::-1].round()) < tuple(smaller[::-1].round())  # column by column, the larger class first


def test_opacity_ends() -> None:
    result = make_result(np.zeros((300, 400), int), ("cat",))
    assert (np.asarray(result.overlay(opacity=0))[:300] == 100).all()
    assert (np.asarray(result.overlay(opacity=1))[:300] == class_colours(["cat"])[0]).all()
    for opacity in (-0.1, 1.1, float("nan")):
        with pytest.raises(PcasegError, match="from 0 to 1"):
            result.overlay(opacity=opacity)


@pytest.mark.parametrize(
    ("height", "width"), [(1, 1), (1, 5000), (5000, 1), (7, 3), (300, 200), (480, 640), (2100, 900)]
)
def test_overlay_of_any_shape(height: int, width: int) -> None:
    picture = make_result(halves(height, width), ("cat", "dog", "grass")).overlay()
    shown = min(max(height, width, SHORTEST_LONG_SIDE_PX), LONGEST_SIDE_PX)
    assert picture.mode == "RGB"
    assert max(picture.size) >= shown
    assert max(picture.size) <= LONGEST_SIDE_PX + 1000
    assert max(height, width) >= SHORTEST_LONG_SIDE_PX or max(picture.size) < 2 * SHORTEST_LONG_SIDE_PX
    assert shows(picture, (33, 33, 36))  # the names' ink, so that something is written


def test_a_small_image_is_enlarged_pixel_by_pixel() -> None:
    image = np.arange(96 * 96 * 3, dtype=np.uint32).reshape(96, 96, 3).astype(np.uint8)
    picture = make_result(halves(96, 96), ("cat", "dog", "grass"), image=image).overlay(opacity=0)
    assert picture.width == 384
    np.testing.assert_array_equal(np.asarray(picture)[:384], image.repeat(4, axis=0).repeat(4, axis=1))


def test_classes_of_one_colour_differ_by_hatching() -> None:
    """ "sky, day" and "sky, night" are two classes of one colour; the smaller is hatched, in picture and legend."""
    result = make_result(halves(400, 400), ("sky, day", "dog", "sky, night"))
    shades = class_colours(result.classes)
    assert (shades[0] == shades[2]).all()
    pixels = np.asarray(result.overlay(opacity=1))
    smaller, larger = pixels[:400, 1:98].reshape(-1, 3), pixels[:400, 102:400].reshape(-1, 3)
    assert (larger == shades[0]).all() and 0.5 < (smaller == shades[0]).all(axis=1).mean() < 0.9
    legend = pixels[400:].reshape(-1, 3)
    lines = smaller[(smaller != shades[0]).any(axis=1)]
    assert (lines == lines[0]).all() and (legend == lines[0]).all(axis=1).sum() > 20
    assert (np.asarray(result.overlay(opacity=0))[:400] == 100).all()


def test_a_large_image_is_reduced_only_in_the_overlay() -> None:
    result = make_result(halves(3000, 4000), ("cat", "dog", "grass"))
    picture = result.overlay()
    assert picture.width == LONGEST_SIDE_PX
    assert result.labels.shape == (3000, 4000)


@pytest.mark.parametrize(
    "name",
    [
        "x" * 480,
        "word " * 90,
        "草地 трава الحشيش",
        "two\nlines\tand\x00controls",
        "\ud800 lone",
        "\u200b",
        "bed ",
        "👨‍👩‍👧",
    ],
)
def test_names_of_every_kind(name: str, tmp_path: Path) -> None:
    result = make_result(halves(450, 650), (name, "dog", "grass"))
    plain = make_result(halves(450, 650), ("cat", "dog", "grass"))
    assert result.overlay().height == plain.overlay().height
    assert result.overlay().width == 650
    paths = result.save(tmp_path, "a")
    assert json.loads(paths["summary"].read_text(encoding="utf-8"))["classes"][0]["name"] == name


def test_a_long_legend_is_cut() -> None:
    count = LEGEND_ENTRIES + 60
    labels = np.arange(count * 30).reshape(30, -1) % count
    long = make_result(labels, tuple(f"class {i}" for i in range(count))).overlay()
    full = make_result(labels % LEGEND_ENTRIES, tuple(f"class {i}" for i in range(count))).overlay()
    assert long.height - full.height < 80


@pytest.mark.parametrize(("count", "bits"), [(3, 8), (256, 8), (257, 16)])
def test_save(tmp_path: Path, count: int, bits: int) -> None:
    labels = halves(40, 80)
    labels[0, 0] = count - 1
    confidence = np.where(labels == 0, 0.5, 0.25).astype(np.float32)
    classes = tuple(f"class {i}" for i in range(count))
    result = make_result(labels, classes, confidence=confidence)
    paths = result.save(tmp_path / "new", "photo")
    assert {key: path.name for key, path in paths.items()} == {
        "overlay": "photo_overlay.png",
        "labels": "photo_labels.png",
        "summary": "photo.json",
    }
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == sorted(p.name for p in paths.values())
    with Image.open(paths["labels"]) as image:
        np.testing.assert_array_equal(np.asarray(image), labels)
    assert paths["labels"].read_bytes()[24:26] == bytes([bits, 0])  # of the PNG header: bit depth, grey
    summary = json.loads(paths["summary"].read_text())
    assert summary["size"] == {"height": 40, "width": 80}
    assert summary["classes"][0] == {
        "label": 0,
        "name": "class 0",
        "pixels": 799,
        "share": round(799 / 3200, 6),
        "mean_confidence": 0.5,
    }
    assert summary["classes"][1]["mean_confidence"] is None
    assert sum(row["pixels"] for row in summary["classes"]) == 3200
    assert summary["mean_confidence"] == pytest.approx(confidence.mean(), abs=1e-6)
    assert summary["timings_ms"] == {"read": 1.235, "total": 2.0}
    assert (summary["backend"], summary["weights"]) == ("fake-numpy", "seeded")
    assert summary["bundle_sha256"] == "b" * 64


def test_details_join_the_summary(tmp_path: Path) -> None:
    result = make_result(halves(4, 8), ("cat", "dog", "grass"))
    paths = result.save(tmp_path, "a", details={"image": "a.jpg", "strategy": "single"})
    summary = json.loads(paths["summary"].read_text())
    assert summary == json.loads(json.dumps(result.summary())) | {"image": "a.jpg", "strategy": "single"}
    with pytest.raises(ValueError, match="own size"):
        result.save(tmp_path, "a", details={"size": 1})


def test_counting_in_strips_misses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    result = make_result(np.arange(35 * 11).reshape(35, 11) % 3, ("a", "b", "c"))
    whole = result.summary()
    monkeypatch.setattr("pcaseg.runtime.result._STRIP_PIXELS", 50)
    assert result.summary() == whole
    assert result.class_pixels().tolist() == [129, 128, 128]


def test_the_summary_is_written_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = make_result(halves(4, 8), ("cat", "dog", "grass"))
    result.save(tmp_path, "a")
    monkeypatch.setattr(Image.Image, "save", lambda *args, **options: (_ for _ in ()).throw(OSError(28, "No space")))
    with pytest.raises(OutputError, match=r"a_overlay\.png: cannot be written"):
        result.save(tmp_path, "a")
    assert not (tmp_path / "a.json").exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a_labels.png", "a_overlay.png"]


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    result = make_result(halves(4, 8), ("cat", "dog", "grass"))
    (tmp_path / "file").touch()
    with pytest.raises(OutputError):
        result.save(tmp_path / "file", "a")
    for stem in ("", "a/b", "/a", "../a"):
        with pytest.raises(OutputError):
            result.save(tmp_path, stem)
