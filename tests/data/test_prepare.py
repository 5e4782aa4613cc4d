"""Miniature copies of every published raw layout: converted, resumed, checked, and spoilt."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco
from scipy.io import savemat

from pcaseg.cli import main
from pcaseg.data import specs
from pcaseg.data.folders import NO_LABEL, open_prepared
from pcaseg.data.prepare import prepare
from pcaseg.data.raw import id_map
from pcaseg.data.specs import data_set
from pcaseg.errors import OutputError, PcasegError
from pcaseg.images import read_label_map

SIZE = (6, 9)
VOC10, VOC12 = "VOCdevkit/VOC2010", "VOCdevkit/VOC2012"


def photo(path, size=SIZE):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(len(path.stem)).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def grey(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


def filled(*values, kind=np.uint8, size=SIZE):
    """Stripes of the values, one column after the other."""
    return np.tile(np.resize(np.array(values, kind), size[1]), (size[0], 1))


def coco_stuff(root):
    for split in ("train", "val"):
        for name, values in (("000001", (0, 12, 181)), ("000002", (255, 91))):
            photo(root / f"coco-stuff/images/{split}2017/{name}.jpg")
            grey(root / f"coco-stuff/annotations/{split}2017/{name}.png", filled(*values))
    return {"000001": {0, 11, 170}, "000002": {NO_LABEL, 80}}


def ade_150(root):
    for name, values in (("ADE_val_1", (0, 1, 150)), ("ADE_val_2", (3,))):
        photo(root / f"ADEChallengeData2016/images/validation/{name}.jpg")
        grey(root / f"ADEChallengeData2016/annotations/validation/{name}.png", filled(*values))
    return {"ADE_val_1": {NO_LABEL, 0, 149}, "ADE_val_2": {2}}


def ade_847(root):
    """Wall has the raw id 2978, the last class 3148; 1 is of no class of the list."""
    folder = root / "ADE20K_2021_17_01/images/ADE/validation"
    for name, scene, size, raw in (
        ("ADE_val_1", "home/attic", (520, 780), (2978, 3148)),
        ("ADE_val_2", "sea", SIZE, (1, 2978)),
    ):
        photo(folder / scene / f"{name}.jpg", size)
        ids = filled(*raw, kind=np.int64, size=size)
        rgb = np.stack([ids // 256 * 10 + 3, ids % 256, np.full(size, 77)], axis=-1)  # red carries more than the id
        Image.fromarray(rgb.astype(np.uint8)).save(folder / scene / f"{name}_seg.png")
    return {"ADE_val_1": {0, 846}, "ADE_val_2": {NO_LABEL, 0}}


def voc(root):
    (root / VOC12 / "ImageSets/Segmentation").mkdir(parents=True)
    (root / VOC12 / "ImageSets/Segmentation/val.txt").write_text("2007_1\n2007_2\n")
    for name, values in (("2007_1", (0, 1, 20, 255)), ("2007_2", (0, 255)), ("train_only", (5,))):
        photo(root / VOC12 / f"JPEGImages/{name}.jpg")
        grey(root / VOC12 / f"SegmentationClassAug/{name}.png", filled(*values))
    return {"2007_1": {NO_LABEL, 0, 19}}


def voc_b(root):
    voc(root)
    return {"2007_1": {NO_LABEL, 0, 19, 20}, "2007_2": {NO_LABEL, 20}}


def context_59(root):
    """Two masks that overlap: the later one counts; 3 is a category beyond the list."""
    left, middle, right = (np.zeros(SIZE, np.uint8, order="F") for _ in range(3))
    left[:, :6], middle[:, 3:6], right[:, 8:] = 1, 1, 1
    entries = [
        {"image_id": 7, "category_id": category, "segmentation": encoded(mask)}
        for category, mask in ((2, left), (458, middle), (3, right))
    ]
    images = [
        {"image_id": 7, "file_name": "2008_1.jpg", "phase": "val", "height": SIZE[0], "width": SIZE[1]},
        {"image_id": 8, "file_name": "2008_2.jpg", "phase": "train", "height": SIZE[0], "width": SIZE[1]},
    ]
    for entry in images:
        photo(root / VOC10 / "JPEGImages" / entry["file_name"])
    (root / VOC10 / "trainval_merged.json").write_text(json.dumps({"images": images, "annos_segmentation": entries}))
    return {"2008_1": {0, 58, NO_LABEL}}


def encoded(mask):
    found = coco.encode(mask)
    return {"size": found["size"], "counts": found["counts"].decode()}


def context_459(root):
    for name, values in (("2008_1", (1, 459)), ("2008_2", (300,))):
        photo(root / VOC10 / f"JPEGImages/{name}.jpg")
        (root / VOC10 / "trainval").mkdir(exist_ok=True)
        savemat(root / VOC10 / f"trainval/{name}.mat", {"LabelMap": filled(*values, kind=np.uint16)})
    (root / VOC10 / "pascalcontext_val.txt").write_text("2008_1\n2008_2\n")
    return {"2008_1": {0, 458}, "2008_2": {299}}


RAW = {
    "coco_stuff_171": coco_stuff,
    "ade20k_150": ade_150,
    "ade20k_847": ade_847,
    "voc_20": voc,
    "voc_20b": voc_b,
    "pascal_context_59": context_59,
    "pascal_context_459": context_459,
}


@pytest.mark.parametrize("name", RAW)
def test_every_raw_layout(tmp_path, name):
    expected = RAW[name](tmp_path)
    result = prepare(name, tmp_path)
    splits = data_set(name).splits
    assert not result.failed and len(result.done) == len(expected) * len(splits)
    for split in splits:
        found = open_prepared(name, tmp_path, split=split)
        assert {found.file_name(i): set(np.unique(found.item(i)[1])) for i in range(len(found))} == expected
    again = prepare(name, tmp_path)
    assert not again.done and not again.failed and len(again.skipped) == len(result.done)


def test_the_table_covers_every_data_set():
    assert {name for name, spec in specs.DATA_SETS.items() if spec.kind != "prepared"} == set(RAW)


def test_later_masks_lie_over_earlier_ones(tmp_path):
    context_59(tmp_path)
    prepare("pascal_context_59", tmp_path)
    labels = open_prepared("pascal_context_59", tmp_path).labels(0)
    assert labels[0].tolist() == [0, 0, 0, 58, 58, 58, -1, -1, -1]


def test_large_images_of_full_ade_are_reduced(tmp_path):
    ade_847(tmp_path)
    prepare("ade20k_847", tmp_path)
    found = open_prepared("ade20k_847", tmp_path)
    assert found.item(0)[0].shape == (512, 768, 3) and found.item(1)[0].shape == (*SIZE, 3)
    raw = next((tmp_path / "ADE20K_2021_17_01/images/ADE/validation").rglob("ADE_val_2.jpg"))
    assert found.pairs[1][0].read_bytes() == raw.read_bytes()  # small ones are copied as they are


def test_only_what_is_missing_or_damaged_is_made_anew(tmp_path):
    coco_stuff(tmp_path)
    prepare("coco_stuff_171", tmp_path, splits=["val"])
    folder = tmp_path / data_set("coco_stuff_171").split("val").labels
    first, second = sorted(folder.iterdir())
    whole = first.read_bytes()
    first.write_bytes(whole[: len(whole) // 2])
    kept = second.stat().st_mtime_ns
    result = prepare("coco_stuff_171", tmp_path, splits=["val"])
    assert result.done == ["000001"] and result.skipped == ["000002"]
    assert first.read_bytes() == whole and second.stat().st_mtime_ns == kept


@pytest.mark.parametrize(
    ("name", "path", "content", "fragment"),
    [
        ("coco_stuff_171", "coco-stuff/annotations/val2017/000001.png", None, "no such file"),
        ("coco_stuff_171", "coco-stuff/images/val2017/000001.jpg", None, "is missing"),
        ("coco_stuff_171", "coco-stuff/annotations/val2017/000001.png", filled(11), "raw id 11"),
        ("ade20k_150", "ADEChallengeData2016/annotations/validation/ADE_val_1.png", filled(151), "raw id 151"),
        ("ade20k_150", "ADEChallengeData2016/annotations/validation/ADE_val_1.png", b"", "empty"),
        ("voc_20", f"{VOC12}/SegmentationClassAug/2007_1.png", filled(21), "raw id 21"),
        ("voc_20", f"{VOC12}/SegmentationClassAug/2007_1.png", b"\x89PNG", "not an image"),
        ("voc_20", f"{VOC12}/JPEGImages/2007_1.jpg", None, "is missing"),
        ("ade20k_847", "ADE20K_2021_17_01/images/ADE/validation/sea/ADE_val_2_seg.png", None, "no such file"),
        (
            "ade20k_847",
            "ADE20K_2021_17_01/images/ADE/validation/sea/ADE_val_2_seg.png",
            filled(0).T,
            "labels for an image",
        ),
        ("pascal_context_459", f"{VOC10}/trainval/2008_1.mat", b"MATLAB 5.0 MAT-file", "no Matlab file"),
        ("pascal_context_459", f"{VOC10}/trainval/2008_1.mat", None, "no Matlab file"),
        ("pascal_context_459", f"{VOC10}/trainval/2008_1.mat", {"Other": np.ones(SIZE)}, "no Matlab file"),
        ("pascal_context_459", f"{VOC10}/trainval/2008_1.mat", {"LabelMap": filled(460, kind=np.uint16)}, "raw id 460"),
    ],
)
def test_a_bad_raw_file_is_named_and_the_others_are_converted(tmp_path, capsys, name, path, content, fragment):
    expected = RAW[name](tmp_path)
    spoil(tmp_path / path, content)
    splits = ["val"]
    result = prepare(name, tmp_path, splits=splits)
    assert len(result.failed) == 1 and len(result.done) == len(expected) - 1
    assert fragment in result.failed[0][1] and result.failed[0][0] in result.failed[0][1]
    assert main(["datasets", "prepare", name, "--root", str(tmp_path), "--split", "val"]) == 2
    assert fragment in capsys.readouterr().err


def spoil(path, content):
    path.unlink()
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, dict):
        savemat(path, content)
    elif content is not None:
        Image.fromarray(content).save(path)


@pytest.mark.parametrize(
    ("name", "path", "content", "fragment"),
    [
        ("pascal_context_59", f"{VOC10}/trainval_merged.json", None, "cannot be read"),
        ("pascal_context_59", f"{VOC10}/trainval_merged.json", b'{"images": [', "not readable as JSON"),
        ("pascal_context_59", f"{VOC10}/trainval_merged.json", b'{"images": []}', "lacks 'annos_segmentation'"),
        ("pascal_context_59", f"{VOC10}/trainval_merged.json", b"[]", "not the file"),
        ("voc_20", f"{VOC12}/ImageSets/Segmentation/val.txt", None, "cannot be read"),
        ("voc_20", f"{VOC12}/ImageSets/Segmentation/val.txt", b"../../secret\n", "no image name"),
        ("voc_20", f"{VOC12}/ImageSets/Segmentation/val.txt", b"\xff\xfe\x00", "line 1 is not UTF-16-LE text"),
        ("voc_20", f"{VOC12}/ImageSets/Segmentation/val.txt", b"2007_1\n\xe9", "line 2 is not UTF-8 text"),
        ("voc_20", f"{VOC12}/ImageSets/Segmentation/val.txt", b"2007_1\n\n2007\0_2", "line 3 holds NUL bytes"),
        ("voc_20", f"{VOC12}/ImageSets/Segmentation/val.txt", b"2007_1\n2007_2,\n", "line 2 .*no image name"),
        ("voc_20", f"{VOC12}/ImageSets/Segmentation/val.txt", b"0: 2007_1\n", "line 1 .*no image name"),
        ("voc_20", f"{VOC12}/ImageSets/Segmentation/val.txt", "2007_1\u200b".encode(), "line 1 .*no image name"),
        ("voc_20", f"{VOC12}/ImageSets/Segmentation/val.txt", b"\n", "holds nothing"),
    ],
)
def test_a_list_that_cannot_be_used(tmp_path, name, path, content, fragment):
    RAW[name](tmp_path)
    spoil(tmp_path / path, content)
    with pytest.raises(PcasegError, match=fragment):
        prepare(name, tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbf2007_1\n2007_2",
        "2007_1\n2007_2\n".encode("utf-16"),
        b"2007_1\r\n2007_2\r\n",
        b"2007_1\r2007_2\r",
        b"# val\n\n2007_1\n#more\n 2007_2 \n",
    ],
)
def test_split_lists_of_other_tools(tmp_path, content):
    truth = voc(tmp_path)
    (tmp_path / VOC12 / "ImageSets/Segmentation/val.txt").write_bytes(content)
    prepare("voc_20", tmp_path)
    found = open_prepared("voc_20", tmp_path)
    assert [found.file_name(index) for index in range(len(found))] == sorted(truth)


@pytest.mark.parametrize("fault", [{"size": [9, 6]}, {"counts": "~~~~"}, {"counts": 5}, {}])
def test_damaged_masks(tmp_path, fault):
    context_59(tmp_path)
    path = tmp_path / VOC10 / "trainval_merged.json"
    data = json.loads(path.read_text())
    entry = data["annos_segmentation"][0]
    entry["segmentation"] = entry["segmentation"] | fault if fault else None
    path.write_text(json.dumps(data))
    result = prepare("pascal_context_59", tmp_path)
    assert not result.done and "masks of 2008_1 are damaged" in result.failed[0][1]


@pytest.mark.parametrize("name", ["coco_stuff_171", "ade20k_150", "ade20k_847"])
def test_nothing_downloaded(tmp_path, name):
    with pytest.raises(PcasegError, match="holds nothing"):
        prepare(name, tmp_path)


def test_parts_are_published_as_prepared(tmp_path):
    with pytest.raises(PcasegError, match="pcaseg datasets check pascal_part_116"):
        prepare("pascal_part_116", tmp_path)


def test_a_full_disk_stops_the_run_and_leaves_no_half_file(tmp_path, monkeypatch):
    ade_150(tmp_path)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, "save", full)
        with pytest.raises(OutputError, match="No space left"):
            prepare("ade20k_150", tmp_path)
    assert not list((tmp_path / data_set("ade20k_150").split("val").labels).iterdir())
    assert len(prepare("ade20k_150", tmp_path).done) == 2


def test_every_mapped_id_and_no_other():
    for name in RAW:
        spec = data_set(name)
        table = id_map(spec).table
        found = set(table.tolist()) - {-1, spec.unlabelled}
        assert found == set(range(len(spec.label_names))), name


def test_the_list_names_every_data_set(capsys):
    assert main(["datasets", "list"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in specs.DATA_SETS) and "118287" in listed


def test_a_killed_run_leaves_whole_files_and_goes_on(tmp_path):
    count, folder = 150, tmp_path / data_set("ade20k_150").split("val").labels
    ade_150(tmp_path)
    for index in range(count - 2):
        photo(tmp_path / f"ADEChallengeData2016/images/validation/more_{index}.jpg")
        grey(tmp_path / f"ADEChallengeData2016/annotations/validation/more_{index}.png", filled(index))
    command = [sys.executable, "-m", "pcaseg", "datasets", "prepare", "ade20k_150", "--root", str(tmp_path)]
    killed = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while killed.poll() is None and time.monotonic() < deadline and len(list(folder.glob("*.png"))) < 10:
        time.sleep(0.001)
    killed.kill()
    killed.wait()
    found = list(folder.glob("[!.]*.png"))
    assert 10 <= len(found) < count
    for path in found:
        read_label_map(path)
    result = prepare("ade20k_150", tmp_path)
    assert len(result.skipped) == len(found) and len(result.done) == count - len(found)
