"""`pcaseg train` as a user calls it: the published recipe on a miniature COCO-Stuff, end to end, and bad input."""

from __future__ import annotations

import json
import math
import os
import re
import resource
import shlex
import shutil
import signal
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file
from support import SMALL_EVA, small_model
from support_training import assert_same_weights, files, run_command, the_error

from pcaseg.data.crop_stream import CropStream, _order
from pcaseg.data.specs import DataSet, data_set
from pcaseg.files import sha256_of
from pcaseg.model.checkpoint import open_model, save_model
from pcaseg.model.names import CLIP_PREFIX, to_published
from pcaseg.training.log import LOG, read_log
from pcaseg.training.loop import MODEL
from pcaseg.training.record import RECORD
from pcaseg.training.state import CHECKPOINT

NAMES = ("cat", "dog", "grass", "sky")
STEPS, IMAGES = 2, 16
"""Two batches of eight show each image once."""

LEARNS = re.compile(
    re.escape(CLIP_PREFIX)
    + r"(visual\.blocks\.\d+\.attn\.[qv]_proj\.weight|text\.transformer\.resblocks\.\d+\.attn\.in_proj_weight)"
)
"""What of EVA02-CLIP learns in the published recipe, by published name."""


@pytest.fixture(scope="module", autouse=True)
def miniature():
    """The small preset has a name and COCO-Stuff four classes: steps take a second."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules["pcaseg.configs"]._PRESETS, SMALL_EVA.name, SMALL_EVA)
        patch.setattr(DataSet, "names", property(lambda self: NAMES))
        yield


def write_data(root: Path) -> None:
    """A prepared COCO-Stuff of 16 images; a label has a colour of its own."""
    part = data_set("coco_stuff_171").split("train")
    for folder in (part.images, part.labels):
        (root / folder).mkdir(parents=True)
    colours = np.array([(200, 40, 40), (40, 60, 200), (30, 160, 40), (120, 190, 240)], np.uint8)
    for index in range(IMAGES):
        labels = np.random.default_rng(index).integers(0, 4, (2, 3), dtype=np.uint8).repeat(20, 0).repeat(20, 1)
        Image.fromarray(colours[labels]).save(root / part.images / f"{index:02}.jpg")
        Image.fromarray(labels).save(root / part.labels / f"{index:02}.png")


def clip_state() -> dict[str, torch.Tensor]:
    """CLIP alone, with the names that it is published with."""
    published = to_published(small_model(seed=3).state_dict(), SMALL_EVA)
    return {name.removeprefix(CLIP_PREFIX): t for name, t in published.items() if name.startswith(CLIP_PREFIX)}


@dataclass(frozen=True)
class Run:
    """A folder of data with `clip.pt`, a folder of a training, and the words that made it."""

    root: Path
    out: Path

    @property
    def words(self) -> list[str]:
        source = ["--preset", SMALL_EVA.name, "--data", self.root, "--clip", self.root / "clip.pt", "--out", self.out]
        usual = ["--steps", STEPS, "--log-every", 1, "--checkpoint-every", 1, "--workers", 0, "--device", "cpu"]
        return [str(word) for word in (*source, *usual)]

    def copy(self, to: Path) -> Run:
        """The same training in another folder, with the same data."""
        return Run(self.root, shutil.copytree(self.out, to / "out"))


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """Data and CLIP."""
    root = tmp_path_factory.mktemp("root")
    write_data(root)
    torch.save(clip_state(), root / "clip.pt")
    return root


@pytest.fixture(scope="module")
def finished(source, tmp_path_factory) -> Run:
    """A training by the published recipe, but for its length."""
    run = Run(source, tmp_path_factory.mktemp("finished") / "out")
    assert run_command(*run.words) == 0
    return run


@pytest.fixture(scope="module")
def one_step(source, tmp_path_factory) -> Run:
    """The first step of it alone, without FOD."""
    run = Run(source, tmp_path_factory.mktemp("one_step") / "out")
    assert run_command(*run.words, "--steps", 1, "--fod-weight", 0) == 0
    return run


def published(path: Path) -> dict[str, torch.Tensor]:
    return to_published(open_model(path).state_dict(), SMALL_EVA)


def steps_done(out: Path) -> int:
    with safe_open(out / CHECKPOINT, framework="pt") as file:
        return int(file.metadata()["step"])


def test_weights_of_the_published_recipe_learn_and_no_others(finished):
    after = published(finished.out / MODEL)
    start = small_model(checkpoint=finished.root / "clip.pt")
    before = to_published(start.state_dict(), SMALL_EVA)
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    clip = {name for name in before if name.startswith(CLIP_PREFIX)}
    assert changed & clip == {name for name in clip if LEARNS.fullmatch(name)}
    counted = {name for name in before if name.endswith("num_batches_tracked")}
    assert changed - clip == set(before) - clip - counted


def test_rows_of_the_log(finished):
    """The rate is the published one along half a cosine; the loss is the cross-entropy and a thousandth of FOD."""
    rows = [row for row in read_log(finished.out) if "loss" in row]
    assert [row["step"] for row in rows] == [1, 2] and {row["stage"] for row in rows} == {"whole"}
    assert [row["rate"] for row in rows] == pytest.approx([5e-4, 2.5e-4])
    for row in rows:
        assert row["loss"] == pytest.approx(row["whole"] + 1e-3 * row["fod"], rel=1e-6)
        assert 0 < row["cosine"] < 1 and row["cosine"] == pytest.approx(math.sqrt(row["fod"]))
        assert row["gradient_norm"] > 0 and row["images_per_s"] == pytest.approx(8 * row["steps_per_s"])
        assert "towers" not in row


def test_record(finished):
    record = json.loads((finished.out / RECORD).read_text())
    assert record["command"] == shlex.join(["pcaseg", "train", *finished.words])
    assert record["weights_sha256"] == sha256_of(finished.out / MODEL)
    assert "commit" in record["environment"] and record["seed"] == 0
    assert record["data"] == "coco_stuff_171, 16 images" and record["log"] == read_log(finished.out)
    recipe = record["recipe"]
    assert (recipe["clip_norm"], recipe["weight_decay"], recipe["class_pooling"]) == (0.01, 1e-4, [2, 2])
    assert recipe["learning"] == "published" and [stage["batch"] for stage in recipe["stages"]] == [8]


def test_fod_turned_off(finished, one_step):
    """Its cosine is logged all the same; the first step, whose weights are the same, has the loss without it."""
    row, first = read_log(one_step.out)[0], read_log(finished.out)[0]
    assert row["loss"] == row["whole"] == first["whole"] < first["loss"]
    assert row["cosine"] == first["cosine"] > 0


def test_fod_weighted(source, tmp_path):
    run = Run(source, tmp_path / "out")
    assert run_command(*run.words, "--steps", 1, "--fod-weight", 0.5) == 0
    row = read_log(run.out)[0]
    assert row["loss"] == pytest.approx(row["whole"] + 0.5 * row["fod"], rel=1e-6)


def test_the_norm_of_all_gradients_is_cut_to_a_hundredth(one_step):
    """After one step AdamW's first moment is a tenth of the gradient."""
    assert read_log(one_step.out)[0]["gradient_norm"] > 1
    state = load_file(one_step.out / CHECKPOINT)
    moments = [tensor for name, tensor in state.items() if name.startswith("moment.exp_avg.")]
    assert math.sqrt(sum(float(one.double().square().sum()) for one in moments)) == pytest.approx(1e-3, rel=1e-3)


def test_clip_learns_at_a_hundredth_of_the_rate(one_step):
    """The first step of AdamW moves a weight by its rate, or by less where the gradient is next to nothing."""
    after = published(one_step.out / MODEL)
    before = to_published(small_model(checkpoint=one_step.root / "clip.pt").state_dict(), SMALL_EVA)
    farthest = {"clip": 0.0, "rest": 0.0}
    for name in before:
        if not name.endswith(("running_mean", "running_var", "num_batches_tracked")):
            part = "clip" if name.startswith(CLIP_PREFIX) else "rest"
            farthest[part] = max(farthest[part], float((after[name].double() - before[name]).abs().max()))
    assert farthest == {"clip": pytest.approx(5e-6, rel=0.02), "rest": pytest.approx(5e-4, rel=0.02)}


def test_resumed_after_the_end_nothing_changes(finished, tmp_path):
    run = finished.copy(tmp_path)
    before = files(run.out)
    assert run_command(*run.words, "--resume") == 0
    assert files(run.out) == before and set(before) == {CHECKPOINT, LOG, MODEL, RECORD}


def test_a_folder_that_holds_a_training(finished, tmp_path, capsys):
    run = finished.copy(tmp_path)
    before = files(run.out)
    error = the_error(capsys, run_command(*run.words))
    assert error == f"error: {run.out}: holds a training; resume it with --resume, or choose another folder"
    assert files(run.out) == before


@pytest.mark.parametrize(
    ("words", "differs"),
    [
        (["--seed", 1], "seed (0, not 1)"),
        (["--steps", 5], "recipe's stage 1's steps (2, not 5)"),
        (["--fod-weight", 0], "recipe's fod_weight (0.001, not 0.0)"),
        (["--aggregation", "serial"], "aggregation (parallel, not serial)"),
        (["--precision", "bfloat16"], "precision (float32, not bfloat16)"),
    ],
)
def test_a_checkpoint_of_other_options(finished, tmp_path, capsys, words, differs):
    run = finished.copy(tmp_path)
    before = files(run.out)
    error = the_error(capsys, run_command(*run.words, "--resume", *words))
    assert error.startswith(f"error: {run.out / CHECKPOINT}: is of a training with another {differs}; resume with")
    assert files(run.out) == before


def test_a_checkpoint_of_another_preset(finished, tmp_path, capsys):
    run = finished.copy(tmp_path)
    before = files(run.out)
    error = the_error(capsys, run_command("--preset", "tiny", "--out", run.out, "--resume", "--device", "cpu"))
    assert "is of a training with another preset (small-eva, not tiny)" in error
    assert files(run.out) == before


def test_a_checkpoint_of_another_clip(finished, tmp_path, capsys):
    run = finished.copy(tmp_path)
    torch.save({name: 2 * tensor for name, tensor in clip_state().items()}, tmp_path / "other.pt")
    error = the_error(capsys, run_command(*run.words, "--resume", "--clip", tmp_path / "other.pt"))
    assert "is of a training with another SHA-256 of the weights at the start" in error


def test_a_label_outside_the_map(finished, tmp_path, capsys):
    """Read by a worker in the second step: the first is kept, and with the file mended the end is that of the whole."""
    run = Run(shutil.copytree(finished.root, tmp_path / "root"), tmp_path / "out")
    index = int(_order(0, 0, IMAGES)[8 + 3])
    path = run.root / data_set("coco_stuff_171").split("train").labels / f"{index:02}.png"
    former = path.read_bytes()
    Image.fromarray(np.full((40, 60), 4, np.uint8)).save(path)
    error = the_error(capsys, run_command(*run.words, "--workers", 1))
    assert error.startswith(f"error: {path}: holds label 4, but there are 4 classes")
    assert steps_done(run.out) == 1 and not (run.out / MODEL).exists()
    path.write_bytes(former)
    assert run_command(*run.words, "--resume", "--workers", 1) == 0
    assert_same_weights(run.out / MODEL, finished.out / MODEL)


def test_a_worker_that_is_killed(source, tmp_path, capsys, monkeypatch):
    """As the system does where memory runs out; here after the first batch."""
    real = CropStream.batch

    def batch(self, step, **share):
        if step == 1 and torch.utils.data.get_worker_info():
            os.kill(os.getpid(), signal.SIGKILL)
        return real(self, step, **share)

    monkeypatch.setattr(CropStream, "batch", batch)
    run = Run(source, tmp_path / "out")
    error = the_error(capsys, run_command(*run.words, "--workers", 1))
    assert error.startswith(f"error: {run.out}: a process that makes batches was killed")


@contextmanager
def small_files(limit: int):
    """Writing beyond `limit` bytes fails, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_during_a_checkpoint(tmp_path, capsys):
    words = ["--preset", "tiny", "--out", tmp_path, "--steps", 2, "--log-every", 1, "--device", "cpu"]
    with small_files(1 << 20):
        error = the_error(capsys, run_command(*words))
    assert error.startswith(f"error: {tmp_path / CHECKPOINT}: cannot be written (") and "File too large" in error
    assert [path.name for path in tmp_path.iterdir()] == [LOG]


def test_a_full_disk_for_the_weights(finished, tmp_path, capsys):
    """The checkpoint stands, and from it the weights are written once there is room."""
    run = finished.copy(tmp_path)
    (run.out / MODEL).unlink()
    before = files(run.out)
    with small_files(1 << 20):
        error = the_error(capsys, run_command(*run.words, "--resume"))
    assert error.startswith(f"error: {run.out / MODEL}: cannot be written (")
    assert files(run.out)[CHECKPOINT] == before[CHECKPOINT] and not (run.out / MODEL).exists()
    assert run_command(*run.words, "--resume") == 0
    assert_same_weights(run.out / MODEL, finished.out / MODEL)


def without(words: list[str], option: str) -> list[str]:
    place = words.index(option)
    return words[:place] + words[place + 2 :]


@pytest.mark.parametrize("option", ["--data", "--clip"])
def test_data_and_clip_are_needed(source, tmp_path, capsys, option):
    error = the_error(capsys, run_command(*without(Run(source, tmp_path / "out").words, option)))
    assert error.startswith(f"error: {option}: is needed for this preset; give ")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--preset", "eva-b"], "eva-b: no such preset; choose one of eva-b-384, "),
        (["--steps", "0"], "steps=0: give 1 or more, one for each stage of the recipe"),
        (["--log-every", "0"], "--log-every: give 1 or more"),
        (["--checkpoint-every", "0"], "--checkpoint-every: give 1 or more"),
        (["--evaluate-every", "5"], "--evaluate-every: only tiny is evaluated on the way"),
        (["--clip", "missing.pt"], "missing.pt: no such file; give the path of a "),
        (["--data", "missing"], "missing/coco-stuff/annotations_detectron2/train2017: holds no labels (.png files)"),
        (["--device", "nonsense"], "device='nonsense': no such device; give cpu, cuda or cuda:N"),
        (["--device", "meta"], "device='meta': training runs on cpu, cuda or cuda:N"),
    ],
)
def test_options_that_cannot_be_used(source, tmp_path, capsys, words, message):
    error = the_error(capsys, run_command(*Run(source, tmp_path / "out").words, *words))
    assert error.startswith(f"error: {message}")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data", "."], "--data: tiny is trained on scenes that the project renders; leave it out"),
        (["--clip", "clip.pt"], "--clip: tiny is trained on scenes that the project renders; leave it out"),
        (["--steps", "1"], "steps=1: give 2 or more, one for each stage of the recipe"),
    ],
)
def test_options_that_tiny_has_no_use_for(tmp_path, capsys, words, message):
    assert the_error(capsys, run_command("--preset", "tiny", "--out", tmp_path / "out", *words)) == f"error: {message}"
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there(tmp_path, capsys):
    error = the_error(capsys, run_command("--preset", "tiny", "--out", tmp_path / "out", "--device", "cuda"))
    assert error == "error: device='cuda': PyTorch finds 0 GPUs here; give another or cpu"


def test_a_whole_model_is_no_clip(source, tmp_path, capsys):
    save_model(small_model(), tmp_path / "whole.safetensors")
    error = the_error(
        capsys, run_command(*Run(source, tmp_path / "out").words, "--clip", tmp_path / "whole.safetensors")
    )
    assert error.startswith(f"error: {tmp_path / 'whole.safetensors'}: holds a whole model, not CLIP alone")


def test_half_of_a_clip(source, tmp_path, capsys):
    path = tmp_path / "clip.pt"
    path.write_bytes((source / "clip.pt").read_bytes()[:100_000])
    error = the_error(capsys, run_command(*Run(source, tmp_path / "out").words, "--clip", path))
    assert error.startswith(f"error: {path}: ") and "copy it again" in error


def test_an_image_that_was_not_downloaded(source, tmp_path, capsys):
    run = Run(shutil.copytree(source, tmp_path / "root"), tmp_path / "out")
    part = data_set("coco_stuff_171").split("train")
    (run.root / part.images / "07.jpg").unlink()
    error = the_error(capsys, run_command(*run.words))
    assert error.startswith(f"error: {run.root / part.labels / '07.png'}: has no image in ")
    assert not run.out.exists()


def test_a_half_downloaded_image(source, tmp_path, capsys):
    run = Run(shutil.copytree(source, tmp_path / "root"), tmp_path / "out")
    index = int(_order(0, 0, IMAGES)[0])
    path = run.root / data_set("coco_stuff_171").split("train").images / f"{index:02}.jpg"
    path.write_bytes(path.read_bytes()[:400])
    error = the_error(capsys, run_command(*run.words))
    assert error.startswith(f"error: {path}: ") and "copy the file again" in error


def test_a_file_in_the_place_of_the_folder(tmp_path, capsys):
    (tmp_path / "out").write_text("mine")
    error = the_error(capsys, run_command("--preset", "tiny", "--out", tmp_path / "out", "--device", "cpu"))
    assert error == f"error: {tmp_path / 'out'}: cannot be made (File exists); choose another folder"
    assert (tmp_path / "out").read_text() == "mine"
