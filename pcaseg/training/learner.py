"""Losses that are minimised: one forward pass from a batch to its losses."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pcaseg.data.batches import TrainingBatch
from pcaseg.model.cost_volume import cost_volume
from pcaseg.model.inference import resize
from pcaseg.model.network import PCASeg
from pcaseg.model.text_tower import name_tokens
from pcaseg.training.recipes import Recipe, Stage

TOWER_SCALE, TOWER_BIAS = 12.0, -5.0
"""Scale and bias of the towers' cosines at the start."""


class Learner(nn.Module):
    """A model with its losses, so that a whole step is one call, which `DistributedDataParallel` can wrap.

    Attributes:
        model: what is trained.
        tower_log_scale, tower_bias: turn the towers' cosines into logits; not part of the model. The scale is learnt
            by its logarithm, since a step of AdamW moves all weights alike and the scale is large.
    """

    def __init__(self, model: PCASeg, recipe: Recipe) -> None:
        super().__init__()
        self.model, self.recipe = model, recipe
        self.tower_log_scale = nn.Parameter(torch.tensor(TOWER_SCALE).log())
        self.tower_bias = nn.Parameter(torch.tensor(TOWER_BIAS))

    def forward(
        self, images: Tensor, tokens: Tensor, index: Tensor, targets: Tensor, stage: Stage
    ) -> dict[str, Tensor]:
        """Losses of a batch, each the mean over all its elements.

        Args:
            images: (B, 3, R, R') float RGB in 0..255; resized to the model's input size if they differ.
            tokens: (N, L) int64, of the distinct names.
            index: (B, T) int64, which of them are an image's names.
            targets: (B, T, h, w) float in 0..1.
            stage: says which losses there are.

        Returns:
            `loss`, to be minimised, and its parts: `whole` and `towers`, cross-entropies, and `fod`, the mean squared
            cosine of the two streams, not weighted (where the aggregation has two).
        """
        model, size = self.model, self.model.preset.image_px
        if tuple(images.shape[-2:]) != (size, size):
            images = resize(images, size)
        text = model.text_tower(tokens)[index][:, :, None]
        features, guidance = model.encode_image(images)
        losses: dict[str, Tensor] = {}
        if stage.name == "whole":
            terms: list[Tensor] = []
            pooling = self.recipe.class_pooling
            logits = model.aggregator(features, text, guidance, class_pooling=pooling, fod_terms=terms)
            losses["whole"] = self._whole_loss(logits, targets)
            if terms:
                losses["fod"] = torch.stack(terms).mean()
        if stage.name == "towers" or stage.tower_loss:
            losses["towers"] = self._tower_loss(features, text, targets)
        losses["loss"] = self._total(losses, stage)
        return losses

    def _whole_loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Logits (B, T, 4H, 4W) resized to the targets (B, T, h, w)."""
        if logits.shape != targets.shape:
            logits = resize(logits, targets.shape[-2:])
        weight = targets.new_tensor(self.recipe.positive_weight)
        return F.binary_cross_entropy_with_logits(logits, targets, pos_weight=weight)

    def _tower_loss(self, features: Tensor, text: Tensor, targets: Tensor) -> Tensor:
        """Cosines (B, T, H, W) against the mean of the targets in each cell."""
        cosines = cost_volume(features, text).mean(dim=1)
        areas = F.adaptive_avg_pool2d(targets, (cosines.shape[-2], cosines.shape[-1]))
        logits = self.tower_log_scale.exp() * cosines + self.tower_bias
        return F.binary_cross_entropy_with_logits(logits, areas)

    def _total(self, losses: dict[str, Tensor], stage: Stage) -> Tensor:
        if stage.name == "towers":
            return losses["towers"]
        total = losses["whole"]
        if stage.tower_loss:
            total = total + stage.tower_loss * losses["towers"]
        if self.recipe.fod_weight and "fod" in losses:
            total = total + self.recipe.fod_weight * losses["fod"]
        return total


def learner_inputs(
    batch: TrainingBatch, device: torch.device, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, ...]:
    """A batch as `Learner.forward` takes it: images, tokens, index and targets. Each distinct name is encoded once."""
    tokens, index = distinct_names(batch.names, batch.images.shape[0])
    images, targets = batch.images.to(device, dtype), batch.targets(device).to(dtype)
    return images, tokens.to(device), index.to(device), targets


def distinct_names(lists: Sequence[Sequence[str]], batch: int) -> tuple[Tensor, Tensor]:
    """Tokens (N, L) int64 of the distinct names in order of appearance, and index (B, T) int64 into them.

    Args:
        lists: B lists of T names, or one that all images share.
        batch: B.
    """
    places = {name: place for place, name in enumerate(dict.fromkeys(name for names in lists for name in names))}
    index = torch.tensor([[places[name] for name in names] for names in lists])
    return name_tokens(tuple(places)), index.expand(batch, -1)
