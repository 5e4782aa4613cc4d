"""The cost volume: how well each position agrees with each class, and which classes are kept."""

from __future__ import annotations

import torch
from torch import Tensor

from pcaseg.configs import DROPPED_LOGIT, MAX_CLASSES
from pcaseg.model.precision import unit_norm


def cost_volume(features: Tensor, text: Tensor) -> Tensor:
    """Cosine of every position with every prompt of every class.

    Args:
        features: (B, D, H, W) float.
        text: (B, T, P, D) float.

    Returns:
        (B, P, T, H, W) float in -1..1.
    """
    B, _, H, W = features.shape
    T, P = text.shape[1:3]
    features = unit_norm(features, dim=1).flatten(2)
    text = unit_norm(text, dim=-1).transpose(1, 2).flatten(1, 2)
    return (text @ features).reshape(B, P, T, H, W)


def rank_classes(volume: Tensor) -> tuple[Tensor, Tensor]:
    """Orders the classes of each image by their best agreement over prompts and positions.

    Args:
        volume: (B, P, T, H, W) float.

    Returns:
        order (B, T) int64: class indices, best first; rank (B, T) int64: each class's place in that order.
    """
    scores = volume.amax(dim=(1, 3, 4))
    order = scores.argsort(dim=1, descending=True)
    return order, order.argsort(dim=1)


def take_classes(tensor: Tensor, classes: Tensor) -> Tensor:
    """Picks classes per image: tensor (B, T, ...), classes (B, K) int64 -> (B, K, ...)."""
    index = classes.reshape(*classes.shape, *[1] * (tensor.dim() - 2)).expand(-1, -1, *tensor.shape[2:])
    return tensor.gather(1, index)


def restore_classes(logits: Tensor, rank: Tensor, limit: int = MAX_CLASSES) -> Tensor:
    """Puts the logits of the best classes back in the vocabulary's order; the others get -100.

    Args:
        logits: (B, K, h, w) float of the K = min(T, limit) best classes, best first.
        rank: (B, T) int64 of `rank_classes`.

    Returns:
        (B, T, h, w) float.
    """
    dropped = torch.full_like(logits[:, :1], DROPPED_LOGIT)
    return take_classes(torch.cat([logits, dropped], dim=1), rank.clamp(max=limit))
