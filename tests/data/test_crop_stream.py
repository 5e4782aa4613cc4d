"""The training stream of a labelled folder: a pure function of seed, step and rank, and clear about bad files."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from pcaseg.data import augmentation
from pcaseg.data.crop_stream import CropStream
from pcaseg.data.folders import NO_LABEL, LabelledFolder, open_labelled
from pcaseg.errors import PcasegError

COUNT = 6


@pytest.fixture
def folder(tmp_path) -> LabelledFolder:
    """Six images of 12 x 18 pixels; image i has the grey 40 * i and the one label i."""
    for name in ("images", "labels"):
        (tmp_path / name).mkdir()
    (tmp_path / "classes.txt").write_text("".join(f"name {index}\n" for index in range(COUNT)))
    for index in range(COUNT):
        Image.new("RGB", (18, 12), (40 * index,) * 3).save(tmp_path / "images" / f"{index}.png")
        Image.fromarray(np.full((12, 18), index, np.uint8)).save(tmp_path / "labels" / f"{index}.png")
    return open_labelled(tmp_path)


def stream(folder, seed=0, **sizes) -> CropStream:
    return CropStream(folder, seed, **({"short_px": 12, "crop_px": 12} | sizes))


def shown(batch) -> list[int]:
    """Which images a batch shows, by their labels."""
    return [int(labels[0, 0]) for labels in batch.labels]


def same(one, other) -> bool:
    return torch.equal(one.images, other.images) and torch.equal(one.labels, other.labels)


def test_shapes_and_types(folder):
    batch = CropStream(folder).batch(0, size=2)
    assert batch.images.shape == (2, 3, 384, 384) and batch.images.dtype == torch.uint8
    assert batch.labels.shape == (2, 384, 384) and batch.labels.dtype == torch.int64
    assert batch.areas is None and batch.names == (folder.names,)


def test_images_stay_with_their_labels(folder, monkeypatch):
    for name, value in (("BRIGHTNESS", 0.0), ("CONTRAST", (1.0, 1.0)), ("SATURATION", (1.0, 1.0)), ("HUE", 0.0)):
        monkeypatch.setattr(augmentation, name, value)
    batch = stream(folder).batch(0, size=COUNT)
    assert (batch.images == 40 * batch.labels[:, None]).all()


def test_pure_function_of_seed_and_step(folder):
    wanted = stream(folder, 3).batch(7, size=4)
    other = stream(folder, 3)
    other.batch(0, size=4)
    assert same(other.batch(7, size=4), wanted)
    assert not same(other.batch(8, size=4), wanted)
    assert not same(stream(folder, 4).batch(7, size=4), wanted)
    alone = replace(folder, pairs=folder.pairs[3:4])  # whose order no seed changes
    assert not same(stream(alone, 3).batch(0, size=8), stream(alone, 4).batch(0, size=8))


def test_two_ranks_together_are_one(folder):
    for step in range(4):
        whole = stream(folder).batch(step, size=4)
        halves = [stream(folder).batch(step, size=4, rank=rank, world=2) for rank in range(2)]
        assert [len(half.images) for half in halves] == [2, 2]
        assert torch.equal(torch.cat([half.images for half in halves]), whole.images)
        assert torch.equal(torch.cat([half.labels for half in halves]), whole.labels)


def test_a_size_that_processes_cannot_share(folder):
    with pytest.raises(PcasegError, match="size=3: a batch is shared by 2 processes; give a multiple of that"):
        stream(folder).batch(0, size=3, rank=0, world=2)


def test_every_image_once_per_round_in_a_new_order(folder):
    """Batches of four, which do not end with the rounds of six."""
    found = [image for step in range(9) for image in shown(stream(folder).batch(step, size=4))]
    rounds = [found[begin : begin + COUNT] for begin in range(0, len(found), COUNT)]
    assert all(sorted(one) == list(range(COUNT)) for one in rounds)
    assert len({tuple(one) for one in rounds}) >= 5


def test_an_image_is_cut_anew_in_each_round(folder):
    """Image 5 in twelve rounds: other colours nearly every time."""
    one = stream(folder)
    crops = set()
    for round_ in range(12):
        batch = one.batch(round_, size=COUNT)
        crops.add(batch.images[shown(batch).index(5)].numpy().tobytes())
    assert len(crops) >= 9


def test_what_an_image_lacks_is_unlabelled(folder):
    """Resized to a short side of 8, an image is 8 x 12: of a crop of 16 x 16, 160 pixels are beyond it."""
    labels = stream(folder, short_px=8, crop_px=16).batch(0, size=1).labels
    assert int((labels == NO_LABEL).sum()) == 160


def test_unlabelled_pixels_stay_unlabelled(folder):
    for _, path in folder.pairs:
        Image.fromarray(np.full((12, 18), 255, np.uint8)).save(path)
    batch = stream(folder).batch(0, size=2)
    assert (batch.labels == NO_LABEL).all() and not batch.targets(torch.device("cpu")).any()


def test_an_empty_folder(folder):
    with pytest.raises(PcasegError, match=r"holds no images; check the download"):
        stream(replace(folder, pairs=()))


def a_whole_round(folder):
    return [stream(folder).batch(step, size=2) for step in range(COUNT // 2)]


@pytest.mark.parametrize("kind", ["images", "labels"])
@pytest.mark.parametrize("content", ["empty", "cut", "other", "gone"])
def test_a_damaged_file_is_named(folder, kind, content):
    path = folder.pairs[3][0 if kind == "images" else 1]
    data = path.read_bytes()
    path.write_bytes({"empty": b"", "cut": data[: len(data) // 2], "other": b"<html>", "gone": b""}[content])
    if content == "gone":
        path.unlink()
    with pytest.raises(PcasegError) as caught:
        a_whole_round(folder)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


def test_a_label_outside_the_map_is_named(folder):
    path = folder.pairs[2][1]
    Image.fromarray(np.full((12, 18), COUNT, np.uint8)).save(path)
    with pytest.raises(PcasegError, match=f"{path}: holds label 6, but there are 6 classes"):
        a_whole_round(folder)


def test_labels_of_another_size_are_named(folder):
    path = folder.pairs[2][1]
    Image.fromarray(np.zeros((18, 12), np.uint8)).save(path)
    with pytest.raises(PcasegError, match=f"{path}: 18 x 12 labels for an image of 12 x 18"):
        a_whole_round(folder)


def turned(path, orientation):
    """Writes an image file anew with an EXIF orientation, its pixels as they are."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    with Image.open(path) as picture:
        pixels = np.array(picture)
    Image.fromarray(pixels).save(path, exif=exif)


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
@pytest.mark.parametrize("drawn_on", ["stored", "upright"])
def test_training_lays_labels_on_turned_images(folder, monkeypatch, orientation, drawn_on):
    for name, value in (("BRIGHTNESS", 0.0), ("CONTRAST", (1.0, 1.0)), ("SATURATION", (1.0, 1.0)), ("HUE", 0.0)):
        monkeypatch.setattr(augmentation, name, value)
    values = np.zeros((12, 18), np.uint8)
    values[:, 12:], values[9:] = 1, 2
    turn = {5: np.transpose, 6: lambda a: np.rot90(a, -1), 7: lambda a: a[::-1, ::-1].T, 8: np.rot90}[orientation]
    for image, labels in folder.pairs:
        Image.fromarray(np.repeat(values[:, :, None] * np.uint8(40), 3, 2)).save(image)
        turned(image, orientation)
        Image.fromarray(np.ascontiguousarray(turn(values)) if drawn_on == "upright" else values).save(labels)
    batch = stream(folder).batch(0, size=COUNT)
    assert len(torch.unique(batch.labels)) == 3
    edges = batch.images[:, 0] % 40 != 0  # between two greys, after a change of size
    assert ((batch.images[:, 0] == 40 * batch.labels) | edges).all() and edges.float().mean() < 0.4


@pytest.mark.parametrize("orientation", [2, 3, 4])
def test_training_refuses_labels_that_may_lie_two_ways(folder, orientation):
    image, labels = folder.pairs[3]
    turned(image, orientation)
    with pytest.raises(PcasegError, match=f"{labels}: {image} has EXIF orientation {orientation}"):
        stream(folder).batch(0, size=COUNT)
