"""Computations in float32, whatever the weights are."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def wide(tensor: Tensor) -> Tensor:
    """The tensor in float32 at least: for sums that float16 would lose or overflow."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def unit_norm(tensor: Tensor, *, dim: int) -> Tensor:
    """Vectors along `dim` divided by their length, zero ones left zero; any shape, in the tensor's dtype.

    float16 has no number as small as the bound 1e-12 that keeps zero vectors from becoming NaN.
    """
    return F.normalize(wide(tensor), dim=dim).to(tensor.dtype)
