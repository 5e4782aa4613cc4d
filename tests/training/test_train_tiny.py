"""`pcaseg train --preset tiny` as a user calls it: it learns, writes scalars, and runs under torchrun."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from support import small_model
from support_training import files, run_command, the_error

from pcaseg.model.checkpoint import open_model
from pcaseg.training.log import LOG, TrainingLog, read_log
from pcaseg.training.loop import MODEL
from pcaseg.training.record import RECORD
from pcaseg.training.state import CHECKPOINT

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    """24 steps of tiny, 15 of the towers and 9 of the whole; with seed 1 none of them has a long list of names."""
    out = tmp_path_factory.mktemp("tiny") / "out"
    words = ["--preset", "tiny", "--steps", 24, "--seed", 1, "--log-every", 1, "--out", out, "--device", "cpu"]
    assert run_command(*words) == 0
    return out


@pytest.mark.parametrize(("stage", "steps"), [("towers", 15), ("whole", 9)])
def test_tiny_lowers_its_loss(tiny, stage, steps):
    """Against the first row, of weights that have not learnt; where weights stay, batches differ by a tenth."""
    losses = [row[stage] for row in read_log(tiny) if row.get("stage") == stage]
    assert len(losses) == steps
    assert np.mean(losses[-3:]) < 0.85 * losses[0]


def test_weights_of_tiny(tiny):
    """Small, and the running average of the checkpoint, not its last weights."""
    model, state = open_model(tiny / MODEL), load_file(tiny / CHECKPOINT)
    assert (tiny / MODEL).stat().st_size < 8e6
    name = "aggregator.decoder.head.weight"
    found = model.state_dict()[name]
    assert torch.equal(found, state[f"average.{name}"].half().float())
    assert not torch.equal(found, state[f"learner.model.{name}"].half().float())


def test_what_is_not_finite_is_null(tmp_path):
    """A line of the log is JSON in the strict sense."""
    log = TrainingLog(tmp_path, done=0, steps=1, tensorboard=False, progress=False)
    log.row(1, {"loss": 0.5, "gradient_norm": math.nan, "rate": math.inf})
    log.close()
    assert (tmp_path / LOG).read_text() == '{"step": 1, "loss": 0.5, "gradient_norm": null, "rate": null}\n'


def test_tensorboard_scalars(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    words = ["--preset", "tiny", "--steps", 2, "--log-every", 1, "--out", tmp_path, "--device", "cpu", "--tensorboard"]
    assert run_command(*words) == 0
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    written = [(event.step, event.value) for event in events.Scalars("loss")]
    assert written == [(row["step"], pytest.approx(row["loss"])) for row in read_log(tmp_path) if "loss" in row]
    assert {"rate", "cosine", "gradient_norm", "steps_per_s"} <= set(events.Tags()["scalars"])


def distance(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """Of all weights together."""
    floats = [name for name, tensor in one.items() if tensor.is_floating_point()]
    return math.sqrt(sum(float((one[name] - other[name]).double().square().sum()) for name in floats))


@pytest.mark.slow
def test_two_processes_end_as_one(tmp_path):
    """Started by torchrun; the first alone writes.

    In float32 the gradients agree to rounding (in float64 to the bit, nearly: see test_distributed.py), but AdamW
    divides them by their own size, so that where there is no gradient but rounding the steps differ: the weights are
    compared as a whole, their distance by how far they went.
    """
    words = ["--preset", "tiny", "--steps", 3, "--seed", 1, "--log-every", 1, "--device", "cpu", "--threads", 1]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*torchrun, "-m", "pcaseg.cli", "train", *map(str, words), "--out", str(tmp_path / "two")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"{tmp_path / 'two' / MODEL}: tiny, parallel, 3 steps"]
    assert set(files(tmp_path / "two")) == {CHECKPOINT, LOG, MODEL, RECORD}
    assert run_command(*words, "--out", tmp_path / "one") == 0
    one, two = ([row for row in read_log(tmp_path / name) if "loss" in row] for name in ("one", "two"))
    assert [row["step"] for row in two] == [1, 2, 3]
    for name in ("loss", "gradient_norm"):
        assert [row[name] for row in two] == pytest.approx([row[name] for row in one], rel=1e-3)
    start = small_model("tiny", checkpoint={}, seed=1).state_dict()
    ends = [load_file(tmp_path / name / CHECKPOINT) for name in ("one", "two")]
    weights = [{name: end[f"learner.model.{name}"] for name in start} for end in ends]
    assert distance(*weights) < 0.01 * distance(weights[0], start)


def test_without_tensorboard(tmp_path, capsys, monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "tensorboard"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    words = ["--preset", "tiny", "--steps", 2, "--out", tmp_path / "out", "--device", "cpu", "--tensorboard"]
    assert the_error(capsys, run_command(*words)) == (
        'error: TensorBoard scalars need the package tensorboard; in a clone of pcaseg run: pip install ".[training]"'
    )
