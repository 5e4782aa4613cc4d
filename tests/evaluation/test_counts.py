"""Counts per image: cut-off runs, shards, the background rule, parts, and files of another evaluation."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from pcaseg.data.folders import LabelledFolder, open_labelled
from pcaseg.errors import OutputError, PcasegError
from pcaseg.evaluation.confusion import Confusion
from pcaseg.evaluation.counts import (
    Evaluated,
    add_counts,
    chosen_images,
    evaluate_images,
    names_sha256,
    read_counts,
    shard_path,
)

COUNT, SIZE = 5, (6, 8)
EVALUATED = Evaluated("fake", "none", "checkpoint", "0" * 64, "float32", "single", "folder", COUNT, 3, "")


@pytest.fixture
def folder(tmp_path) -> LabelledFolder:
    for name in ("images", "labels"):
        (tmp_path / "set" / name).mkdir(parents=True)
    (tmp_path / "set" / "classes.txt").write_text("cat\ngrass\nsky\n")
    rng = np.random.default_rng(0)
    for index in range(COUNT):
        pixels = rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8)
        truth = rng.choice(np.array([0, 1, 2, 255], np.uint8), SIZE)
        Image.fromarray(pixels).save(tmp_path / "set" / "images" / f"{index}.png")
        Image.fromarray(truth).save(tmp_path / "set" / "labels" / f"{index}.png")
    return open_labelled(tmp_path / "set")


def brightness(image: np.ndarray) -> np.ndarray:
    """A network of a kind: three labels by red."""
    return image[..., 0] // 86


def expected(folder: LabelledFolder) -> np.ndarray:
    confusion = Confusion(3)
    for index in range(len(folder)):
        image, truth = folder.item(index)
        confusion.add(brightness(image), truth)
    return confusion.counts


def test_shards_of_any_number_add_up(folder, tmp_path):
    for of in (1, 2, 5):
        out = tmp_path / str(of)
        for first in range(1, of + 1):
            indices = range(len(folder))[first - 1 :: of]
            evaluate_images(brightness, folder, indices, EVALUATED, shard_path(out, "fake", (first, of)))
        found = read_counts(out, EVALUATED)
        assert len(found) == COUNT and (add_counts(found, 3).counts == expected(folder)).all()


@pytest.mark.parametrize("cut", [1, 9, 25, 60])
def test_a_run_that_was_cut_off_goes_on(folder, tmp_path, cut):
    path = shard_path(tmp_path, "fake", (1, 1))
    evaluate_images(brightness, folder, range(3), EVALUATED, path)
    path.write_bytes(path.read_bytes()[:-cut])
    done = read_counts(tmp_path, EVALUATED)
    assert 0 < len(done) < 3 and all(int(name) < 3 for name in done)
    seen = []
    rest = [index for index in range(COUNT) if str(index) not in done]
    evaluate_images(brightness, folder, rest, EVALUATED, path, advance=lambda: seen.append(1))
    assert len(seen) == len(rest)
    assert (add_counts(read_counts(tmp_path, EVALUATED), 3).counts == expected(folder)).all()


def test_a_run_that_was_cut_off_within_its_first_line(folder, tmp_path):
    path = shard_path(tmp_path, "fake", (1, 1))
    path.write_bytes(b'{"subject": "fa')
    assert read_counts(tmp_path, EVALUATED) == {}
    evaluate_images(brightness, folder, range(COUNT), EVALUATED, path)
    assert len(read_counts(tmp_path, EVALUATED)) == COUNT


def test_another_evaluation_is_not_mixed_in(folder, tmp_path):
    path = shard_path(tmp_path, "fake", (1, 1))
    evaluate_images(brightness, folder, [0], EVALUATED, path)
    before = path.read_bytes()
    for change in ({"strategy": "sliding"}, {"weights_sha256": "1" * 64}, {"data": "other"}, {"names_sha256": "2"}):
        other = replace(EVALUATED, **change)
        with pytest.raises(OutputError, match=f"another evaluation .{next(iter(change))}"):
            read_counts(tmp_path, other)
        with pytest.raises(OutputError, match="another evaluation"):
            evaluate_images(brightness, folder, [1], other, path)
    assert path.read_bytes() == before


def test_the_vocabulary_and_the_images_are_part_of_an_evaluation(folder):
    whole = names_sha256(folder, range(COUNT))
    assert whole != names_sha256(folder, range(COUNT - 1))
    assert whole != names_sha256(replace(folder, names=("cat", "grass", "blue sky")), range(COUNT))


@pytest.mark.parametrize(
    ("line", "fragment"),
    [
        (b"nothing\n", "not readable as JSON"),
        (b"{}\n", "schema_version"),
        ({"cells": [9], "pixels": [1]}, "no counts of 3 classes"),
        ({"cells": [-1], "pixels": [1]}, "no counts of 3 classes"),
        ({"cells": [1], "pixels": [0]}, "no counts of 3 classes"),
        ({"cells": [1, 2], "pixels": [1]}, "no counts of 3 classes"),
        ({"cells": [1.5], "pixels": [1]}, "not int"),
        ({"image": "0", "cells": [8], "pixels": [48]}, "differs from another"),
    ],
)
def test_damaged_counts(folder, tmp_path, line, fragment):
    path = shard_path(tmp_path, "fake", (1, 1))
    evaluate_images(brightness, folder, [0], EVALUATED, path)
    if isinstance(line, dict):
        line = (json.dumps({"image": "9", "schema_version": 1} | line) + "\n").encode()
    path.write_bytes(path.read_bytes() + line)
    with pytest.raises(OutputError, match=f"line 3.*{fragment}"):
        read_counts(tmp_path, EVALUATED)


def test_the_background_rule(folder, tmp_path):
    """Three labels of which the last is the background; the network knows five names."""
    ruled = replace(folder, names=("cat", "grass", "sky", "road", "wall"), background_from=2)
    path = shard_path(tmp_path, "fake", (1, 1))
    evaluate_images(lambda image: image[..., 0] // 52, ruled, range(COUNT), EVALUATED, path)
    confusion = Confusion(3)
    for index in range(COUNT):
        image, truth = ruled.item(index)
        confusion.add(np.where(image[..., 0] // 52 >= 2, 2, image[..., 0] // 52), truth)
    assert (add_counts(read_counts(tmp_path, EVALUATED), 3).counts == confusion.counts).all()


def test_a_network_that_gives_other_labels(folder, tmp_path):
    for wrong in (lambda image: image[..., 0], lambda image: image[:-1, :, 0]):
        with pytest.raises(PcasegError, match=r"0\.png: the network gave"):
            evaluate_images(wrong, folder, [0], EVALUATED, shard_path(tmp_path, "fake", (1, 1)))


def test_a_full_disk_keeps_what_is_counted(folder, tmp_path, monkeypatch):
    path = shard_path(tmp_path, "fake", (1, 1))
    evaluate_images(brightness, folder, range(2), EVALUATED, path)

    def full(file, mode="r", *rest, **options):
        if mode == "ab":
            raise OSError(28, "No space left on device")
        return open(file, mode, *rest, **options)

    with monkeypatch.context() as patch:
        patch.setitem(evaluate_images.__globals__, "open", full)
        with pytest.raises(OutputError, match="No space left"):
            evaluate_images(brightness, folder, [2], EVALUATED, path)
    assert len(read_counts(tmp_path, EVALUATED)) == 2


def test_chosen_images_are_spread():
    assert chosen_images(4, None) == [0, 1, 2, 3] == chosen_images(4, 9)
    assert chosen_images(100, 4) == [0, 25, 50, 75]


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
@pytest.mark.parametrize("drawn_on", ["stored", "upright"])
def test_images_with_an_orientation_score_like_upright_ones(folder, tmp_path, orientation, drawn_on):
    exif = Image.Exif()
    exif[0x0112] = orientation
    turn = {5: np.transpose, 6: lambda a: np.rot90(a, -1), 7: lambda a: a[::-1, ::-1].T, 8: np.rot90}[orientation]
    for image, labels in folder.pairs:
        with Image.open(image) as picture:
            pixels = np.array(picture)
        Image.fromarray(pixels).save(image, exif=exif)
        truth = brightness(pixels).astype(np.uint8)
        Image.fromarray(np.ascontiguousarray(turn(truth)) if drawn_on == "upright" else truth).save(labels)
    evaluate_images(brightness, folder, range(COUNT), EVALUATED, shard_path(tmp_path, "fake", (1, 1)))
    counts = add_counts(read_counts(tmp_path, EVALUATED), 3).counts
    assert np.trace(counts) == counts.sum() == COUNT * SIZE[0] * SIZE[1]


@pytest.mark.parametrize("orientation", [2, 3, 4])
def test_labels_that_may_lie_two_ways_are_refused(folder, tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = folder.pairs[2][0]
    with Image.open(image) as picture:
        pixels = np.array(picture)
    Image.fromarray(pixels).save(image, exif=exif)
    with pytest.raises(PcasegError, match=f"{image} has EXIF orientation {orientation}"):
        evaluate_images(brightness, folder, range(COUNT), EVALUATED, shard_path(tmp_path, "fake", (1, 1)))
