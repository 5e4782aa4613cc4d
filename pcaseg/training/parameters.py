"""Parameters that learn, and their rates."""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pcaseg.model.network import PCASeg
from pcaseg.training.learner import Learner
from pcaseg.training.recipes import Recipe, Stage

_TOWERS = ("model.image_tower.", "model.text_tower.")
_TOWER_LOSS = ("tower_log_scale", "tower_bias")
_PUBLISHED = {
    "eva": r"image_tower\.trunk\.blocks\.\d+\.attn\.[qv]_proj\.weight$"
    r"|text_tower\..*\.attn\.in_proj_weight$",
    "openai": r"(image|text)_tower\..*\.attn\.in_proj_weight$|(image|text)_tower\..*positional_embedding$",
}
"""The weights of the towers that learn in the published recipe, by family. OpenAI's `in_proj_weight` is q, k and v in
one, of which k is held still by `HeldRows`."""


def learning_names(learner: Learner, recipe: Recipe, stage: Stage) -> list[str]:
    """Names of the learner's parameters that learn in a stage, in order."""
    return [name for name, _ in learner.named_parameters() if _learns(name, learner.model, recipe, stage)]


def _learns(name: str, model: PCASeg, recipe: Recipe, stage: Stage) -> bool:
    if name in _TOWER_LOSS:
        return stage.name == "towers" or stage.tower_loss > 0
    if not name.startswith(_TOWERS):
        return stage.name == "whole"
    if recipe.learning == "published":
        return re.match(r"model\.(" + _PUBLISHED[model.preset.family] + ")", name) is not None
    return not _idle(name, model)


def _idle(name: str, model: PCASeg) -> bool:
    """True where the dense path passes by a weight: EVA02's last block has no MLP."""
    last = f"model.image_tower.trunk.blocks.{model.preset.vision_blocks - 1}."
    return model.preset.family == "eva" and name.startswith((last + "mlp.", last + "norm2."))


def set_learning(learner: Learner, recipe: Recipe, stage: Stage) -> None:
    """Lets the weights of a stage learn, and no others."""
    names = set(learning_names(learner, recipe, stage))
    for name, parameter in learner.named_parameters():
        parameter.requires_grad_(name in names)
        if name not in names:
            parameter.grad = None


def build_optimizer(learner: Learner, recipe: Recipe) -> torch.optim.AdamW:
    """AdamW over all that learns in any stage: the towers in one group, the rest in another."""
    names = {name for stage in recipe.stages for name in learning_names(learner, recipe, stage)}
    parameters = [(name, parameter) for name, parameter in learner.named_parameters() if name in names]
    groups = [
        {"params": [p for name, p in parameters if name.startswith(_TOWERS)], "kind": "towers"},
        {"params": [p for name, p in parameters if not name.startswith(_TOWERS)], "kind": "rest"},
    ]
    return torch.optim.AdamW(groups, lr=0.0, weight_decay=recipe.weight_decay)


def set_rate(optimizer: torch.optim.Optimizer, stage: Stage, step: int) -> float:
    """Sets the rates of a step of the stage; returns that of the rest."""
    rate = stage.rate_at(step)
    for group in optimizer.param_groups:
        share = stage.tower_rate if group["kind"] == "towers" and stage.name == "whole" else 1.0
        group["lr"] = rate * share
    return rate


@dataclass(frozen=True)
class HeldRows:
    """Rows of a weight that do not learn though the others do: no gradient, and no decay."""

    weight: nn.Parameter
    rows: slice
    value: Tensor

    def drop_gradient(self) -> None:
        if self.weight.grad is not None:
            self.weight.grad[self.rows] = 0

    def restore(self) -> None:
        with torch.no_grad():
            self.weight[self.rows] = self.value


def held_rows(model: PCASeg, recipe: Recipe) -> list[HeldRows]:
    """The k of OpenAI's attention in the published recipe, and the idle q of the image tower's last block."""
    if recipe.learning != "published" or model.preset.family != "openai":
        return []
    held, last = [], f"image_tower.trunk.transformer.resblocks.{model.preset.vision_blocks - 1}."
    for name, weight in model.named_parameters():
        if name.endswith("attn.in_proj_weight"):
            third = weight.shape[0] // 3
            rows = slice(0 if name.startswith(last) else third, 2 * third)
            held.append(HeldRows(weight, rows, weight.detach()[rows].clone()))
    return held
