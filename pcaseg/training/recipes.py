"""Recipes of each preset's training, as frozen tables: the published recipe, and the project's own for `tiny`."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from pcaseg.configs import Preset, get_preset
from pcaseg.errors import PcasegError

StageName = Literal["towers", "whole"]
"""`towers`: image and text tower alone, by their cosines. `whole`: the model's logits."""

Learning = Literal["all", "published"]
"""Part of the towers that learns: everything, or the few weights of the published recipe."""


@dataclass(frozen=True)
class Stage:
    """One part of the training.

    Attributes:
        name: what is minimised.
        steps: how many.
        batch: images per step, of all processes together.
        rate: learning rate at its highest.
        tower_rate: the towers' rate as a share of it.
        warm_up: steps in which the rate rises from 0; after them it falls to 0 along half a cosine.
        tower_loss: weight of the towers' own loss beside that of the whole.
    """

    name: StageName
    steps: int
    batch: int
    rate: float
    tower_rate: float = 1.0
    warm_up: int = 0
    tower_loss: float = 0.0

    def rate_at(self, step: int) -> float:
        """The rate of a step of this stage, from 0.

        >>> Stage("whole", steps=10, batch=1, rate=1.0, warm_up=2).rate_at(0)
        0.5
        >>> Stage("whole", steps=10, batch=1, rate=1.0).rate_at(5)
        0.5
        """
        if step < self.warm_up:
            return self.rate * (step + 1) / self.warm_up
        return self.rate * (1 + math.cos(math.pi * step / self.steps)) / 2


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the weights besides the data and the seed.

    Attributes:
        stages: one after the other.
        learning: what of the towers learns.
        clip_norm: largest norm of the gradient of all weights together.
        weight_decay: of AdamW.
        class_pooling: see `Aggregator.forward`.
        positive_weight: of the cells that a name covers in the loss of the whole.
        fod_weight: of the FOD term; 0 turns it off, its cosine is logged all the same.
        average: decay of the running average of the weights that is kept in the end; 0 keeps the last weights.
    """

    stages: tuple[Stage, ...]
    learning: Learning = "published"
    clip_norm: float = 0.01
    weight_decay: float = 1e-4
    class_pooling: tuple[int, int] = (2, 2)
    positive_weight: float = 1.0
    fod_weight: float = 1e-3
    average: float = 0.0

    @property
    def steps(self) -> int:
        """Number of steps of all stages."""
        return sum(stage.steps for stage in self.stages)

    def at(self, step: int) -> tuple[Stage, int]:
        """The stage of a step, and its number there.

        Raises:
            IndexError: a step beyond the last.
        """
        for stage in self.stages:
            if step < stage.steps:
                return stage, step
            step -= stage.steps
        raise IndexError("a step beyond the last")

    def scaled(self, steps: int) -> Recipe:
        """The same recipe with `steps` steps, shared by the stages as before; warm-ups shrink with them.

        >>> [stage.steps for stage in TINY.scaled(10).stages]
        [6, 4]

        Raises:
            PcasegError: fewer steps than stages.
        """
        if steps < len(self.stages):
            raise PcasegError(f"steps={steps}: give {len(self.stages)} or more, one for each stage of the recipe")
        stages, total, past, end = [], self.steps, 0, 0
        for left, stage in zip(range(len(self.stages) - 1, -1, -1), self.stages, strict=True):
            past += stage.steps
            begin, end = end, min(max(end + 1, round(steps * past / total)), steps - left)
            warm_up = round(stage.warm_up * min(1.0, (end - begin) / stage.steps))
            stages.append(replace(stage, steps=end - begin, warm_up=warm_up))
        return replace(self, stages=tuple(stages))


TINY = Recipe(
    stages=(
        Stage("towers", steps=7000, batch=16, rate=2e-3, warm_up=100),
        Stage("whole", steps=4500, batch=8, rate=2e-3, tower_rate=0.3, warm_up=100, tower_loss=0.5),
    ),
    learning="all",
    clip_norm=1.0,
    class_pooling=(1, 1),
    positive_weight=2.0,
    average=0.998,
)
"""Recipe for scenes: the towers first, as a trial found best. The rate is the published one of the B models times
four, since the width of the aggregator is a quarter of theirs."""


def published_recipe(preset: Preset) -> Recipe:
    """The published recipe: 5e-4 for the B models, 3e-4 for the L models; the CLIP towers at 0.01 of it."""
    rate = 5e-4 if preset.vision_width <= 768 else 3e-4
    return Recipe(stages=(Stage("whole", steps=80_000, batch=8, rate=rate, tower_rate=0.01),))


def recipe_of(preset: str | Preset) -> Recipe:
    """The recipe of a preset.

    Raises:
        PcasegError: no preset has that name.
    """
    preset = get_preset(preset)
    return TINY if preset.name == "tiny" else published_recipe(preset)
