"""The cost volume: how well each position agrees with each class, and which classes are kept."""

from __future__ import annotations

import torch
from torch import Tensor

from pcaseg.configs import DROPPED_LOGIT
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


def rank_classes(volume: Tensor) -> Tensor:
    """Orders the classes of each image by their best agreement over prompts and positions.

    Args:
        volume: (B, P, T, H, W) float.

    Returns:
        (B, T) int64: class indices, best first; of equal ones the lowest first.
    """
    return volume.amax(dim=(1, 3, 4)).argsort(dim=1, descending=True, stable=True)


def best_classes(volume: Tensor, most: int) -> Tensor:
    """Chooses the min(T, most) best classes of each image: volume (B, P, T, H, W) -> (B, K) int64, ascending."""
    order = rank_classes(volume)
    return order.narrow(1, 0, torch.sym_min(order.shape[1], most)).sort(dim=1).values


def take_classes(tensor: Tensor, classes: Tensor) -> Tensor:
    """Picks classes per image: tensor (B, T, ...), classes (B, K) int64 -> (B, K, ...)."""
    index = classes.reshape(*classes.shape, *[1] * (tensor.dim() - 2)).expand(-1, -1, *tensor.shape[2:])
    return tensor.gather(1, index)


def take_maps(volume: Tensor, classes: Tensor) -> Tensor:
    """Picks classes of a cost volume: (B, P, T, H, W), classes (B, K) int64 -> (B, P, K, H, W)."""
    return take_classes(volume.transpose(1, 2), classes).transpose(1, 2)


def restore_classes(logits: Tensor, classes: Tensor, T: int) -> Tensor:
    """Puts the logits of some classes at their places among all T; the others get -100.

    Args:
        logits: (B, K, h, w) float.
        classes: (B, K) int64, different ones in each row.

    Returns:
        (B, T, h, w) float.
    """
    B, _, h, w = logits.shape
    index = classes[:, :, None, None].expand(-1, -1, h, w)
    return logits.new_full((B, T, h, w), DROPPED_LOGIT).scatter(1, index, logits)


def join_kept(logits: Tensor, classes: Tensor, T: int) -> tuple[Tensor, Tensor]:
    """Logits of windows that kept different classes, on classes that they share.

    Args:
        logits: (N, K, h, w) float.
        classes: (N, K) int64 below T, different ones in each row.

    Returns:
        logits (N, U, h, w) float, -100 where a window dropped the class; classes (U,) int64, ascending: all that some
        window kept, and the first that none did. That one stands for all such, which are equal everywhere.
    """
    chosen = torch.zeros(T, dtype=torch.bool, device=classes.device)
    chosen[classes] = True
    chosen[(~chosen).nonzero()[:1]] = True
    shared = chosen.nonzero()[:, 0]
    return restore_classes(logits, torch.searchsorted(shared, classes), len(shared)), shared
