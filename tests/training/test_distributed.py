"""Two processes give the gradients of one with the doubled batch."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from support_training import short_recipe

from pcaseg.data.scene_stream import TinyStream
from pcaseg.model.checkpoint import load_model
from pcaseg.training.distributed import Processes, joined_processes, share_batch_norm, wrapped
from pcaseg.training.learner import Learner, learner_inputs
from pcaseg.training.parameters import set_learning

SIZE = 4


def gradients(processes: Processes, stage_index: int) -> dict[str, torch.Tensor]:
    """Gradients and BatchNorm statistics after one batch in float64."""
    recipe = replace(short_recipe(), fod_weight=0.1)
    stage = recipe.stages[stage_index]
    learner = Learner(load_model("tiny", {}).train(), recipe).double()
    if processes.world > 1:
        share_batch_norm(learner)
    set_learning(learner, recipe, stage)
    stream = TinyStream(0, usual=(3, 3), long_share=0.0)
    batch = stream.batch(0, size=SIZE, rank=processes.rank, world=processes.world)
    inputs = learner_inputs(batch, processes.device, torch.float64)
    whole = wrapped(learner, processes)  # must outlive the backward pass, in which it averages
    whole(*inputs, stage)["loss"].backward()
    found = {name: p.grad for name, p in learner.named_parameters() if p.grad is not None}
    return found | {name: b for name, b in learner.named_buffers() if "running_" in name}


@pytest.mark.long
def test_two_processes_as_one(tmp_path):
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    subprocess.run([*torchrun, __file__, tmp_path], check=True, timeout=600)
    for index in range(2):
        expected = gradients(Processes(0, 1, torch.device("cpu")), index)
        for rank in range(2):
            found = load_file(tmp_path / f"{index}-{rank}.safetensors")
            assert found.keys() == expected.keys()
            for name, value in expected.items():
                largest = max(float(value.abs().max()), 1e-6)  # a bias before BatchNorm has none but rounding
                assert float((found[name] - value).abs().max()) <= 1e-9 * largest, (index, rank, name)


if __name__ == "__main__":
    torch.set_num_threads(1)
    with joined_processes("cpu") as processes:
        for index in range(2):
            found = {name: t.contiguous() for name, t in gradients(processes, index).items()}
            save_file(found, Path(sys.argv[1]) / f"{index}-{processes.rank}.safetensors")
