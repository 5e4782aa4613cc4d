"""FOD, feature orthogonalization decoupling: the training term that keeps the two streams apart."""

from __future__ import annotations

from torch import Tensor

FOD_WEIGHT = 1e-3
"""Weight of the term in the loss (PCA-Seg)."""

NORM_EPS = 1e-6


def stream_cosine(spatial: Tensor, semantic: Tensor) -> Tensor:
    """Cosine of the two streams at each position.

    Args:
        spatial: (..., C) float, an EPL's first input.
        semantic: (..., C) float, its second.

    Returns:
        (...) float; each norm has 1e-6 added, as published.
    """
    norms = (spatial.norm(dim=-1) + NORM_EPS) * (semantic.norm(dim=-1) + NORM_EPS)
    result: Tensor = (spatial * semantic).sum(dim=-1) / norms
    return result


def fod(spatial: Tensor, semantic: Tensor) -> Tensor:
    """The mean squared cosine of the streams, before its weight: (..., C) and (..., C) -> ()."""
    return stream_cosine(spatial, semantic).square().mean()
