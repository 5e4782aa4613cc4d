"""The files that commands write and those that they leave alone."""

from __future__ import annotations

from shutil import copytree

import numpy as np
import pytest
import torch
from PIL import Image
from support import small_model
from support_cli import assert_failed, assert_refused, bundle, files_in, photo, run

from pcaseg.files import sha256_of
from pcaseg.model.checkpoint import save_model
from pcaseg.model.names import to_published


def test_unwritable_output(run, bundle, tmp_path, photo):
    (tmp_path / "file").write_text("kept")
    inside = tmp_path / "file" / "x"
    answers = [
        run("segment", photo, "--bundle", bundle, "--classes", "cat", "--out", tmp_path / "file"),
        run("segment", photo, "--bundle", bundle, "--classes", "cat", "--out", inside),
        run("vocab", "--bundle", bundle, "--classes", "cat", "--out", inside / "v.safetensors"),
        run("export", "small-eva", "--out", inside / "b.pcaseg"),
    ]
    for answer in answers:
        assert_refused(answer, tmp_path / "file")
    assert (tmp_path / "file").read_text() == "kept"
    assert files_in(tmp_path) == ["file", "photo.png"]


def test_model_files(run, tmp_path, photo):
    (tmp_path / "m.safetensors").write_bytes(b"12345")
    answer = run("export", tmp_path / "m.safetensors", "--out", tmp_path / "b.pcaseg")
    assert_refused(answer, tmp_path / "m.safetensors", "not a safetensors file")
    assert_refused(run("export", tmp_path / "no.safetensors", "--out", tmp_path / "b.pcaseg"), "no such file")
    model = small_model()
    torch.save(to_published(model.state_dict(), model.preset), tmp_path / "c.pth")
    answer = run("segment", photo, "--model", tmp_path / "c.pth", "--classes", "cat", "--out", tmp_path / "o")
    assert_refused(answer, tmp_path / "c.pth", "import it first")


def test_import_never_replaces_its_checkpoint(run, tmp_path):
    save_model(small_model(), tmp_path / "m.safetensors")
    before = sha256_of(tmp_path / "m.safetensors")
    answer = run("import", tmp_path / "m.safetensors", "--preset", "small-eva", "--out", tmp_path / "m.safetensors")
    assert_refused(answer, tmp_path / "m.safetensors", "is the checkpoint itself")
    assert sha256_of(tmp_path / "m.safetensors") == before


def test_nothing_foreign_is_replaced(run, bundle, tmp_path, photo):
    """Zip files, folders, annotations and models of the user's stay, whatever is asked."""
    import zipfile

    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "manifest.json").write_text("{}")
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        archive.writestr("holiday.jpg", "precious")
    copytree(bundle, tmp_path / "mine.pcaseg")
    (tmp_path / "mine.pcaseg" / "notes.txt").write_text("precious")
    for target in ("app", "photos.zip", "mine.pcaseg"):
        answer = run("export", "small-eva", "--out", tmp_path / target, "--overwrite")
        assert_refused(answer, tmp_path / target, "exists", "choose another name")
    save_model(small_model(), tmp_path / "m.safetensors")
    before = sha256_of(tmp_path / "m.safetensors")
    answer = run("vocab", "--bundle", bundle, "--classes", "cat", "--out", tmp_path / "m.safetensors")
    assert_refused(answer, tmp_path / "m.safetensors", "not a vocabulary")
    assert sha256_of(tmp_path / "m.safetensors") == before
    run("vocab", "--bundle", bundle, "--classes", "cat", "--out", tmp_path / "v.safetensors")
    answer = run("import", tmp_path / "m.safetensors", "--preset", "small-eva", "--out", tmp_path / "v.safetensors")
    assert_refused(answer, tmp_path / "v.safetensors", "not a model file")
    (tmp_path / "out").mkdir()
    for name in ("photo.json", "photo_labels.png"):
        (tmp_path / "out" / name).write_text("precious")
        answer = run("segment", photo, "--bundle", bundle, "--classes", "cat", "--out", tmp_path / "out")
        assert_failed(answer, tmp_path / "out" / name, "not an output of pcaseg")
        assert (tmp_path / "out" / name).read_text() == "precious"
        (tmp_path / "out" / name).unlink()
    answer = run("segment", tmp_path, "--bundle", bundle, "--classes", "cat", "--out", tmp_path)
    assert_refused(answer, tmp_path, "holds the images themselves")
    (tmp_path / "rows.json").write_text('{"mine": 1}')
    answer = run("check", bundle, "--images", photo, "--classes", "1", "--json", tmp_path / "rows.json")
    assert_refused(answer, tmp_path / "rows.json", "not a report")


def test_results_of_two_images_never_mix(run, bundle, tmp_path, photo):
    (tmp_path / "other").mkdir()
    other = tmp_path / "other" / photo.name
    Image.fromarray(np.zeros((9, 9, 3), dtype=np.uint8)).save(other)
    command = ("--bundle", bundle, "--classes", "cat, grass", "--out", tmp_path / "o")
    assert run("segment", photo, *command)[0] == 0
    assert_failed(run("segment", other, *command), tmp_path / "o" / "photo", "choose another folder")
    (tmp_path / "o" / "photo_overlay.png").unlink()
    assert run("segment", photo, *command)[0] == 0  # incomplete: made again
    assert (tmp_path / "o" / "photo_overlay.png").exists()
    assert run("segment", photo, other, *command[:-1], tmp_path / "both")[0] == 0
    assert len([name for name in files_in(tmp_path / "both") if name.endswith(".json")]) == 2


def test_files_are_readable_by_others(run, bundle, tmp_path, photo):
    plain = tmp_path / "plain"
    plain.touch()
    run("vocab", "--bundle", bundle, "--classes", "cat", "--out", tmp_path / "v.safetensors")
    save_model(small_model(), tmp_path / "m.safetensors")
    for name in ("v.safetensors", "m.safetensors"):
        assert (tmp_path / name).stat().st_mode == plain.stat().st_mode


@pytest.mark.parametrize("count", [0, 100_001, 10**14])
def test_a_number_of_scenes_that_nobody_means(run, tmp_path, count):
    answer = run("datasets", "scenes", "--out", tmp_path / "scenes", "--images", count)
    assert_refused(answer, f"--images {count}: give 1 to 100000")
    assert files_in(tmp_path) == []


@pytest.mark.parametrize("wrong", ["names.txt", "NAMES.CSV", "a/b.json", "robot.safetensors", "ade20k_150"])
def test_a_list_is_no_class(run, bundle, tmp_path, wrong):
    answer = run("vocab", "--bundle", bundle, "--classes", wrong, "--out", tmp_path / "v.safetensors")
    assert_refused(answer, f"--classes: {wrong} holds classes and is none; give it as --vocabulary")
    assert files_in(tmp_path) == []


def test_such_a_name_among_others_is_a_class(run, bundle, tmp_path):
    assert run("vocab", "--bundle", bundle, "--classes", "a.txt, b", "--out", tmp_path / "v.safetensors")[0] == 0
