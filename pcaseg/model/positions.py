"""Position tables of the image towers for any grid: the resized learned embedding and the rotary table."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from timm.layers import build_rotary_pos_embed
from torch import Tensor

ROTARY_REFERENCE_GRID = 16
"""EVA02's rotary positions are scaled to a 16 x 16 grid, whatever the real one."""


def resize_position_embedding(embedding: Tensor, grid: tuple[int, int]) -> Tensor:
    """Resizes a learned position embedding to another grid, the class token's row set aside.

    Bicubic (a = -0.75), align_corners=False, without antialiasing, as published; open_clip and timm
    antialias, which gives other numbers.

    Args:
        embedding: (1 + N, width), class token first, N a square number.
        grid: (H, W) wanted.

    Returns:
        (1 + H * W, width).
    """
    side = math.isqrt(embedding.shape[0] - 1)
    if (side, side) == grid:
        return embedding
    class_row, patches = embedding[:1], embedding[1:]
    patches = patches.reshape(1, side, side, -1).permute(0, 3, 1, 2)
    patches = F.interpolate(patches, size=grid, mode="bicubic", align_corners=False, antialias=False)
    return torch.cat([class_row, patches.flatten(2)[0].transpose(0, 1)])


def rotary_table(grid: tuple[int, int], head_dim: int) -> Tensor:
    """Sines and cosines of EVA02's 2-D rotary embedding, in the layout that timm's blocks take.

    The first half of a head turns by row, the second by column; position i of an axis with n cells stands
    at i * 16 / n. Computed in float32 whatever the model's type, as published.

    Returns:
        (H * W, 2 * head_dim) float32: sines, then cosines.
    """
    reference = [ROTARY_REFERENCE_GRID, ROTARY_REFERENCE_GRID]
    sines_cosines = build_rotary_pos_embed(list(grid), dim=head_dim, in_pixels=False, ref_feat_shape=reference)
    return torch.cat(sines_cosines, dim=-1)
