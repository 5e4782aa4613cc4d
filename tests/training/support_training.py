"""What the tests of training share, and a training of `tiny` that takes seconds; also a program, to be killed."""

from __future__ import annotations

import sys
import warnings
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file

from pcaseg.cli import main
from pcaseg.data.scene_stream import TinyStream
from pcaseg.files import sha256_of
from pcaseg.model.checkpoint import load_model
from pcaseg.training.loop import RunOptions, train
from pcaseg.training.recipes import TINY, Recipe


def short_recipe(steps: int = 12) -> Recipe:
    """Both stages of `tiny` with two images a step."""
    recipe = TINY.scaled(steps)
    return replace(recipe, stages=tuple(replace(stage, batch=2) for stage in recipe.stages))


def run_training(out: Path, recipe: Recipe | None = None, **options) -> Path:
    """Trains from the same start each time."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = load_model("tiny", {})
    run = RunOptions(**{"checkpoint_every": 1, "log_every": 1} | options)
    return train(
        model, recipe or short_recipe(), TinyStream(0, usual=(4, 6), long_share=0.0), out, data="scenes", options=run
    )


def run_command(*words) -> int:
    """The command `pcaseg train`; its exit code."""
    return main(["train", *map(str, words)])


def files(folder: Path) -> dict[str, str]:
    """SHA-256 of each file, by name."""
    return {path.name: sha256_of(path) for path in folder.iterdir()}


def assert_same_weights(one: Path, other: Path) -> None:
    found, expected = load_file(one), load_file(other)
    assert found.keys() == expected.keys()
    assert not [name for name, tensor in expected.items() if not torch.equal(found[name], tensor)]


def the_error(capsys, code: int) -> str:
    """The one line that a command with exit code 2 ends with; nothing but a progress bar stands before it."""
    assert code == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if line.startswith("error: ")] == lines[-1:]
    assert all("step" in line for line in lines[:-1] if line)
    return lines[-1]


if __name__ == "__main__":
    torch.set_num_threads(1)
    run_training(Path(sys.argv[1]), resume="if-possible")
