"""Folders of images: what is done, left out and failed; one image's fault is its own."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest
from conftest import FakeBackend
from PIL import Image

from pcaseg.errors import ImageError, OutputError
from pcaseg.image_files import image_suffixes, said_left_out
from pcaseg.runtime.batch import expand_inputs, segment_files
from pcaseg.runtime.segmenter import Segmenter


@pytest.fixture
def segmenter() -> Segmenter:
    made = Segmenter(FakeBackend())
    made.set_vocabulary(["sky", "grass"])
    return made


def picture(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, format="PNG")
    return path


def summaries(out: Path) -> set[str]:
    return {json.loads(path.read_text())["image"] for path in out.glob("*.json")}


@pytest.mark.parametrize(
    "name",
    ["x" * 251 + ".png", "語" * 75 + ".png", "語" * 76 + ".png", "語" * 83 + ".png", "é" * 125 + ".png", "\udcff.png"],
    ids=["ascii", "75", "76", "83", "accents", "not UTF-8"],
)
def test_every_legal_name_has_results_that_are_found_again(tmp_path, segmenter, name):
    image, out = picture(tmp_path / "in" / name), tmp_path / "out"
    assert segment_files(segmenter, [image], out).done == [image]
    made = {path.name for path in out.iterdir()}
    assert len(made) == 3 and not [found for found in made if found.startswith(".")]
    assert segment_files(segmenter, [image], out).skipped == [image]
    assert {path.name for path in out.iterdir()} == made


def test_long_names_of_one_beginning_have_results_of_their_own(tmp_path, segmenter):
    images = [picture(tmp_path / "in" / ("語" * 80 + end + ".png"), seed) for seed, end in enumerate("abc")]
    assert len(segment_files(segmenter, images, tmp_path / "out").done) == 3
    assert len(summaries(tmp_path / "out")) == 3


def broken_files(folder: Path) -> dict[str, Path]:
    folder.mkdir(parents=True, exist_ok=True)
    contents = {"text.png": b"no picture", "empty.png": b"", "cut.png": picture(folder / "cut.png").read_bytes()[:60]}
    for name, data in contents.items():
        (folder / name).write_bytes(data)
    return {name: folder / name for name in contents}


def test_a_broken_image_leaves_the_others_alone(tmp_path, segmenter):
    broken = broken_files(tmp_path / "in")
    whole = [picture(tmp_path / "in" / f"{i}.png", i) for i in range(3)]
    images, _ = expand_inputs([tmp_path / "in"])
    batch = segment_files(segmenter, images, tmp_path / "out")
    assert sorted(batch.done) == whole and {path for path, _ in batch.failed} == set(broken.values())
    assert "3 segmented, 0 done before and skipped, 3 failed" in batch.said()


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (MemoryError(), "does not fit into memory"),
        (PermissionError(errno.EACCES, "Permission denied"), "Permission denied"),
        (OSError(errno.EIO, "Input/output error"), "Input/output error"),
        (RuntimeError("a decoder's own"), "failed .RuntimeError: a decoder's own.; report this"),
        (ImageError("second.png: odd"), "second.png: odd"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_a_fault_of_any_kind_is_the_image_s_own(tmp_path, segmenter, monkeypatch, fault, said):
    images = [picture(tmp_path / "in" / f"{name}.png") for name in ("first", "second", "third")]
    whole = Segmenter.__call__

    def once(self, image):
        if Path(image).stem == "second":
            raise fault
        return whole(self, image)

    monkeypatch.setattr(Segmenter, "__call__", once)
    batch = segment_files(segmenter, images, tmp_path / "out")
    assert batch.done == [images[0], images[2]]
    ((path, message),) = batch.failed
    assert path == images[1]
    with pytest.raises(ImageError, match=said):
        raise ImageError(message)


def test_a_full_disk_ends_the_run(tmp_path, segmenter, monkeypatch):
    def full(self, out, stem, **named):
        raise OutputError(f"{out}: cannot be written") from OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("pcaseg.runtime.result.Result.save", full)
    with pytest.raises(OutputError, match="cannot be written"):
        segment_files(segmenter, [picture(tmp_path / "in" / "a.png")], tmp_path / "out")


def test_results_of_another_image_are_its_failure(tmp_path, segmenter):
    out = tmp_path / "out"
    segment_files(segmenter, [picture(tmp_path / "one" / "a.png", 1)], out)
    batch = segment_files(segmenter, [picture(tmp_path / "two" / "a.png", 2), picture(tmp_path / "two" / "b.png")], out)
    assert [path.name for path in batch.done] == ["b.png"] and "holds the result of" in batch.failed[0][1]
    assert summaries(out) == {str(tmp_path / "one" / "a.png"), str(tmp_path / "two" / "b.png")}


def test_every_ending_of_a_format_that_is_read_is_taken(tmp_path):
    for ending in image_suffixes():
        picture(tmp_path / f"a{ending.upper()}")
    picture(tmp_path / ".hidden.png")
    (tmp_path / "folder.png").mkdir()
    found, left_out = expand_inputs([tmp_path])
    assert {path.suffix.lower() for path in found} == set(image_suffixes()) and not left_out
    assert {".jfif", ".jpe", ".jp2", ".tga", ".tif", ".webp"} <= set(image_suffixes())
    assert not {".eps", ".ps", ".pdf", ".psd", ".mpg"} & set(image_suffixes())


def test_what_is_left_out_is_counted(tmp_path, segmenter):
    for name in ("a.png", "b.png", "c.heic", "d.txt", "e.HEIC", "noending"):
        picture(tmp_path / name)
    images, left_out = expand_inputs([tmp_path])
    batch = segment_files(segmenter, images, tmp_path / "out")
    batch.left_out = left_out
    assert batch.said().endswith("; 4 files left out: .heic (2), .txt (1), no ending (1)")
    (tmp_path / "only").mkdir()
    picture(tmp_path / "only" / "x.heic")
    with pytest.raises(ImageError, match=r"no images in this folder, but 1 file left out: \.heic \(1\)"):
        expand_inputs([tmp_path / "only"])


def test_own_results_among_the_images_are_left_out(tmp_path, segmenter):
    images, out = [picture(tmp_path / "in" / f"{i}.png", i) for i in range(2)], tmp_path / "out"
    segment_files(segmenter, images, out)
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    for path in (*images, *out.iterdir()):
        os.symlink(path, mixed / path.name)
    found, left_out = expand_inputs([mixed])
    assert [path.name for path in found] == ["0.png", "1.png"] and len(left_out) == 6
    assert said_left_out(left_out) == "6 files left out: .json (2), .png (4)"
    with pytest.raises(ImageError, match="holds results of pcaseg alone"):
        expand_inputs([out])
    os.symlink(tmp_path / "in", tmp_path / "link")
    for same in (tmp_path / "in", tmp_path / "link"):
        with pytest.raises(OutputError, match="holds the images themselves"):
            segment_files(segmenter, images, same)
    linked = [mixed / "0.png"]
    for same in (tmp_path / "in", mixed):
        with pytest.raises(OutputError, match="holds the images themselves"):
            segment_files(segmenter, linked, same)


@pytest.mark.parametrize("number", [errno.EACCES, errno.ESTALE, errno.ENOTCONN])
def test_a_file_that_cannot_be_looked_at_is_reported(tmp_path, segmenter, monkeypatch, number):
    images = [picture(tmp_path / "in" / f"{name}.png") for name in ("a", "b", "c")]
    ask = os.stat

    def refuse(path, *rest, **named):
        if os.fspath(path) == str(images[1]):
            raise OSError(number, os.strerror(number), path)
        return ask(path, *rest, **named)

    monkeypatch.setattr("pcaseg.paths.os.stat", refuse)
    found, _ = expand_inputs([tmp_path / "in"])
    assert found == images
    batch = segment_files(segmenter, found, tmp_path / "out")
    assert batch.done == [images[0], images[2]] and os.strerror(number) in batch.failed[0][1]
