"""A training goes on to the bit from a checkpoint, whatever stopped it; no checkpoint is ever half-written."""

from __future__ import annotations

import errno
import random
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from support_training import assert_same_weights, run_training, short_recipe

from pcaseg.errors import CheckpointError, OutputError
from pcaseg.files import sha256_of
from pcaseg.model import checkpoint_file
from pcaseg.training import loop
from pcaseg.training.log import read_log
from pcaseg.training.state import CHECKPOINT


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """The folder of a training that nothing stopped."""
    out = tmp_path_factory.mktemp("whole") / "run"
    run_training(out)
    return out


def assert_same_end(out: Path, whole: Path) -> None:
    for name in (CHECKPOINT, loop.MODEL):
        assert_same_weights(out / name, whole / name)
    rows = [row for row in read_log(out) if "loss" in row]
    assert [row["loss"] for row in rows] == [row["loss"] for row in read_log(whole) if "loss" in row]


@pytest.mark.long
def test_killed_at_any_moment(whole, tmp_path):
    """SIGKILL at three random moments, each after at least one more step; the end is that of the whole run."""
    out, moments = tmp_path / "run", random.Random()
    checkpoint = out / CHECKPOINT
    for _ in range(3):
        before = sha256_of(checkpoint) if checkpoint.exists() else None
        process = subprocess.Popen([sys.executable, Path(__file__).with_name("support_training.py"), out])
        while process.poll() is None and (not checkpoint.exists() or sha256_of(checkpoint) == before):
            time.sleep(0.02)
        time.sleep(moments.uniform(0, 0.4))
        process.kill()
        process.wait()
        load_file(checkpoint)  # whole at every moment
    run_training(out, resume="if-possible")
    assert_same_end(out, whole)
    assert not [path for path in out.iterdir() if path.name.endswith(".partial")]


def test_full_disk_keeps_the_last_checkpoint(whole, tmp_path, monkeypatch):
    out, saved = tmp_path / "run", []
    real = checkpoint_file.save_file

    def save(tensors, path, **options):
        real(tensors, path, **options)
        saved.append(path)
        if len(saved) == 5:
            Path(path).write_bytes(Path(path).read_bytes()[:1000])
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint_file, "save_file", save)
        with pytest.raises(OutputError, match=r"checkpoint\.safetensors: cannot be written \(No space left on device"):
            run_training(out)
    assert sorted(path.name for path in out.iterdir()) == [CHECKPOINT, "log.jsonl"]
    run_training(out, resume="if-possible")
    assert_same_end(out, whole)


def test_loss_that_is_not_finite(whole, tmp_path, monkeypatch):
    """The steps before it are kept."""
    out, real = tmp_path / "run", loop.learner_inputs
    calls = []

    def inputs(batch, device):
        calls.append(batch)
        images, *others = real(batch, device)
        return (images * (float("nan") if len(calls) == 4 else 1), *others)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "learner_inputs", inputs)
        with pytest.raises(loop.TrainingError, match="the loss of step 4 is nan; the last checkpoint is intact"):
            run_training(out)
    run_training(out, resume="if-possible")
    assert_same_end(out, whole)


def test_a_gpu_that_is_full(tmp_path, monkeypatch):
    def inputs(batch, device):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(loop, "learner_inputs", inputs)
    with pytest.raises(loop.TrainingError, match="the GPU's memory is full at step 1; the last checkpoint is intact"):
        run_training(tmp_path / "run")


@pytest.mark.parametrize("name", ["model.safetensors", "record.json", "log.jsonl"])
@pytest.mark.parametrize("resume", ["never", "if-possible"])
def test_nothing_foreign_is_replaced(tmp_path, name, resume):
    (tmp_path / name).write_text("mine\n", encoding="utf-8")
    with pytest.raises(OutputError, match=rf"{name}: exists and is of no training that goes on"):
        run_training(tmp_path, resume=resume)
    assert [path.read_text(encoding="utf-8") for path in tmp_path.iterdir()] == ["mine\n"]


def test_a_start_that_was_stopped_before_its_first_checkpoint(tmp_path, capsys):
    (tmp_path / "log.jsonl").write_text('{"step": 1, "loss": 0.5}\n', encoding="utf-8")
    run_training(tmp_path, resume="if-possible", progress=True)
    assert f"{tmp_path}: no checkpoint yet, begins anew" in capsys.readouterr().err
    run_training(tmp_path, resume="if-possible", progress=True)
    assert "goes on" not in capsys.readouterr().err  # it is finished


def test_checkpoints_that_do_not_fit(whole, tmp_path):
    out = tmp_path / "run"
    out.mkdir()
    data = (whole / CHECKPOINT).read_bytes()
    (out / CHECKPOINT).write_bytes(data)
    with pytest.raises(OutputError, match=r"holds a training; resume it with --resume"):
        run_training(out)
    recipe = replace(short_recipe(), fod_weight=0.0)
    with pytest.raises(CheckpointError, match=r"another recipe's fod_weight \(0\.001, not 0\.0\)"):
        run_training(out, recipe, resume="if-possible")
    (out / CHECKPOINT).write_bytes(data[: len(data) // 2])
    with pytest.raises(CheckpointError, match="damaged or half-copied"):
        run_training(out, resume="if-possible")
    (out / CHECKPOINT).write_bytes((whole / loop.MODEL).read_bytes())
    with pytest.raises(CheckpointError, match="not a checkpoint of a training"):
        run_training(out, resume="if-possible")
    assert (out / CHECKPOINT).read_bytes() == (whole / loop.MODEL).read_bytes()
