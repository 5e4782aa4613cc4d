"""A training of the preset `tiny` that takes seconds; also a program, for tests that kill it."""

from __future__ import annotations

import sys
import warnings
from dataclasses import replace
from pathlib import Path

import torch

from pcaseg.data.scene_stream import TinyStream
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


if __name__ == "__main__":
    torch.set_num_threads(1)
    run_training(Path(sys.argv[1]), resume="if-possible")
