"""Labelled folders: prepared data sets of the detectron2 layout and the plain form, whole and spoilt."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from pcaseg.data.folders import NO_LABEL, open_data, open_labelled, open_prepared
from pcaseg.data.specs import DATA_SETS, data_set
from pcaseg.errors import PcasegError

SIZE = (6, 9)


def write_prepared(root, name, labels, split="val", **images):
    """A miniature prepared data set: labels by image name; images of the same names unless `images` gives sizes."""
    spec = data_set(name)
    part = spec.split(split)
    for folder in (part.images, part.labels):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for stem, values in labels.items():
        height, width = images.get(stem, values.shape)
        pixels = np.full((height, width, 3), 7 * (1 + len(stem)), np.uint8)
        Image.fromarray(pixels).save(root / part.images / f"{stem}.jpg")
        Image.fromarray(values).save(root / part.labels / f"{stem}{spec.suffix}")


def label_map(spec, *values):
    kind = np.uint8 if spec.suffix == ".png" else np.uint16
    flat = np.resize(np.array(values, kind), SIZE[0] * SIZE[1])
    return flat.reshape(SIZE)


@pytest.mark.parametrize("name", DATA_SETS)
def test_every_prepared_layout(tmp_path, name):
    spec = data_set(name)
    last = len(spec.label_names) - 1
    write_prepared(tmp_path, name, {"b": label_map(spec, 0, last), "a": label_map(spec, spec.unlabelled, 1)})
    found = open_data(name, tmp_path)
    assert len(found) == 2 and found.names == spec.names and found.published == spec.split("val").count
    assert [found.file_name(i) for i in range(2)] == ["a", "b"]
    image, labels = found.item(0)
    assert image.shape == (*SIZE, 3) and image.dtype == np.uint8 and labels.dtype == np.int32
    assert set(np.unique(labels)) == {NO_LABEL, 1} and set(np.unique(found.labels(1))) == {0, last}


def test_the_table_fits_its_class_lists():
    for spec in DATA_SETS.values():
        assert spec.unlabelled == (255 if spec.suffix == ".png" else 65535) > len(spec.label_names)
        raw = spec.facts.get("raw_id_to_train_id")
        assert raw is None or sorted(raw.values()) == list(range(len(spec.names)))
        layout = spec.facts["layout"]
        folders = {layout["labels"].format(split=word) for word in ("train", "val", "training", "validation")}
        assert {f"{split.labels}/*{spec.suffix}" for split in spec.splits.values()} <= folders
    assert data_set("voc_20b").label_names == (*data_set("voc_20").names, "background")
    assert data_set("pascal_part_116").seen < set(data_set("pascal_part_116").names)


def test_images_of_other_splits_are_left_out(tmp_path):
    spec = data_set("voc_20")
    write_prepared(tmp_path, "voc_20", {"a": label_map(spec, 3)})
    part = spec.split("val")
    Image.new("RGB", (4, 4)).save(tmp_path / part.images / "other.jpg")
    (tmp_path / part.labels / "._a.png").write_bytes(b"left by an archive")
    assert len(open_prepared("voc_20", tmp_path)) == 1


def test_an_empty_data_set(tmp_path):
    with pytest.raises(PcasegError, match=r"holds no labels.*pcaseg datasets prepare ade20k_150"):
        open_prepared("ade20k_150", tmp_path)


def test_a_half_downloaded_data_set(tmp_path):
    spec = data_set("coco_stuff_171")
    write_prepared(tmp_path, spec.name, {"a": label_map(spec, 3), "b": label_map(spec, 3)}, split="train")
    part = spec.split("train")
    (tmp_path / part.images / "b.jpg").unlink()
    with pytest.raises(PcasegError, match=r"b\.png: has no image.*complete the download"):
        open_prepared(spec.name, tmp_path, split="train")
    (tmp_path / part.labels / "b.png").unlink()
    Image.new("RGB", (4, 4)).save(tmp_path / part.images / "c.jpg")
    with pytest.raises(PcasegError, match=r"c\.jpg: has no labels.*to the end"):
        open_prepared(spec.name, tmp_path, split="train")


@pytest.mark.parametrize(
    ("name", "value", "fragment"),
    [
        ("ade20k_150", 150, "holds label 150, but there are 150 classes"),
        ("voc_20b", 21, "holds label 21, but there are 21 classes"),
        ("pascal_context_459", 255, None),  # a class there
        ("pascal_context_459", 459, "holds label 459"),
    ],
)
def test_a_label_beyond_the_classes(tmp_path, name, value, fragment):
    write_prepared(tmp_path, name, {"a": label_map(data_set(name), 0, value)})
    found = open_prepared(name, tmp_path)
    if fragment is None:
        assert found.item(0)[1].max() == value
    else:
        with pytest.raises(PcasegError, match=rf"a\.\w+: {fragment}"):
            found.item(0)


def test_sizes_that_differ(tmp_path):
    write_prepared(tmp_path, "voc_20", {"a": label_map(data_set("voc_20"), 0)}, a=(9, 6))
    with pytest.raises(PcasegError, match="6 x 9 labels for an image of 9 x 6"):
        open_prepared("voc_20", tmp_path).item(0)


@pytest.mark.parametrize("kind", ["images", "labels"])
@pytest.mark.parametrize("content", [b"", b"nothing", "cut"])
def test_a_damaged_file_is_named(tmp_path, kind, content):
    write_prepared(tmp_path, "voc_20", {"a": label_map(data_set("voc_20"), 0)})
    found = open_prepared("voc_20", tmp_path)
    path = found.pairs[0][0 if kind == "images" else 1]
    path.write_bytes(path.read_bytes()[:40] if content == "cut" else content)
    with pytest.raises(PcasegError, match=str(path)):
        found.item(0)


@pytest.mark.parametrize(
    ("call", "fragment"),
    [
        (lambda root: open_data("voc_20"), "--root"),
        (lambda root: open_data("voc_21", root), "neither a folder nor a data set"),
        (lambda root: open_prepared("voc_21", root), "no such data set"),
        (lambda root: open_prepared("voc_20", root, split="train"), "no split 'train'"),
        (lambda root: open_labelled(root), r"classes\.txt"),
    ],
)
def test_what_is_not_there(tmp_path, call, fragment):
    with pytest.raises(PcasegError, match=fragment):
        call(tmp_path)


def test_ids_of_the_plain_form_are_those_of_the_labels(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    Image.new("RGB", (3, 2)).save(tmp_path / "images" / "a.png")
    Image.new("L", (3, 2), 255).save(tmp_path / "labels" / "a.png")
    for text, names in (("0: cat\n1: grass", ("cat", "grass")), ("id,name\r\n0,cat\r\n1,grass", ("cat", "grass"))):
        (tmp_path / "classes.txt").write_text(text)
        assert open_labelled(tmp_path).names == names
    (tmp_path / "classes.txt").write_text("1: cat\n2: grass")
    with pytest.raises(PcasegError, match=r"classes\.txt: line 1 has the id 1; number the lines one by one from 0,"):
        open_labelled(tmp_path)


def test_eight_bits_hold_no_class_255(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    Image.new("RGB", (3, 2)).save(tmp_path / "images" / "a.png")
    Image.fromarray(np.array([[0, 254, 255]] * 2, np.uint8)).save(tmp_path / "labels" / "a.png")
    for count in (255, 256):
        (tmp_path / "classes.txt").write_text("\n".join(f"n{i}" for i in range(count)))
        found = open_labelled(tmp_path)
        if count == 255:
            assert found.labels(0).tolist() == [[0, 254, NO_LABEL]] * 2
        else:
            with pytest.raises(PcasegError, match=r"a\.png: 255 .* labels of 256 classes as 16-bit PNG"):
                found.labels(0)


def test_the_plain_form(tmp_path):
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    (tmp_path / "classes.txt").write_text("cat\ngrass\n")
    Image.new("RGB", (3, 2)).save(tmp_path / "images" / "a.png")
    Image.fromarray(np.array([[0, 1, 65535]] * 2, np.uint16)).save(tmp_path / "labels" / "a.png")
    found = open_data(tmp_path)
    assert found.names == ("cat", "grass") and found.item(0)[1].tolist() == [[0, 1, NO_LABEL]] * 2
    Image.new("RGB", (3, 2)).save(tmp_path / "images" / "a.jpg")
    with pytest.raises(PcasegError, match="shares its labels"):
        open_labelled(tmp_path)


TURNS = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a),
}
"""From stored to upright pixels by EXIF orientation."""


def write_turned(root, orientation, side, drawn_on, tag):
    """A labelled folder of one image whose labels are its left, right and lower parts; the labels as they should lie.

    `drawn_on` the stored or the upright pixels; `tag`: orientation that the file of labels carries, None for none.
    """
    stored = np.zeros(side, np.uint8)
    stored[:, side[1] // 2 :] = 1
    stored[-2:] = 2
    exif, own = Image.Exif(), Image.Exif()
    exif[0x0112] = orientation
    for folder in ("images", "labels"):
        (root / folder).mkdir(parents=True)
    (root / "classes.txt").write_text("sky\ngrass\nroad\n")
    Image.fromarray(np.repeat(stored[:, :, None] * 100, 3, 2)).save(root / "images" / "a.png", exif=exif)
    labels = stored if drawn_on == "stored" else np.ascontiguousarray(TURNS[orientation](stored))
    if tag is not None:
        own[0x0112] = tag
    Image.fromarray(labels).save(root / "labels" / "a.png", **({} if tag is None else {"exif": own}))
    return TURNS[orientation](stored)


@pytest.mark.parametrize("side", [(6, 9), (9, 6), (8, 8)])
@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize(("drawn_on", "tag"), [("stored", None), ("stored", 1), ("upright", None), ("stored", "same")])
def test_labels_lie_on_the_image_or_are_refused(tmp_path, orientation, side, drawn_on, tag):
    own = orientation if tag == "same" else tag
    wanted = write_turned(tmp_path, orientation, side, drawn_on, own)
    folder = open_labelled(tmp_path)
    turned_by_size = orientation >= 5 and side[0] != side[1]
    if orientation == 1 or tag == "same" or turned_by_size:
        image, labels = folder.item(0)
        np.testing.assert_array_equal(image[:, :, 0], wanted * 100)
        np.testing.assert_array_equal(labels, wanted)
    else:
        with pytest.raises(PcasegError, match=rf"a\.png: .*a\.png has EXIF orientation {orientation}") as caught:
            folder.item(0)
        assert str(tmp_path / "labels") in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("orientation", [3, 6])
def test_labels_with_an_orientation_of_their_own_lie_on_a_plain_image(tmp_path, orientation):
    upright = write_turned(tmp_path, orientation, (6, 9), "stored", orientation)
    Image.fromarray(np.repeat(np.ascontiguousarray(upright)[:, :, None] * 100, 3, 2)).save(tmp_path / "images/a.png")
    np.testing.assert_array_equal(open_labelled(tmp_path).item(0)[1], upright)


@pytest.mark.parametrize("kind", ["tif", "png"])
def test_tiff_images_are_turned_once(tmp_path, kind):
    wanted = write_turned(tmp_path, 6, (6, 9), "stored", None)
    (tmp_path / "images/a.png").rename(tmp_path / "moved.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(tmp_path / "moved.png") as picture:
        Image.fromarray(np.array(picture)).save(tmp_path / f"images/a.{kind}", exif=exif)
    image, labels = open_labelled(tmp_path).item(0)
    np.testing.assert_array_equal(image[:, :, 0], wanted * 100)
    np.testing.assert_array_equal(labels, wanted)
