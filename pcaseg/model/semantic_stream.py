"""The semantic stream: each position alone, linear attention over the classes guided by their text."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pcaseg.configs import MAX_CLASSES

NORMALISER_EPS = 1e-6


class SemanticStream(nn.Module):
    """Attention over the class axis, padded to 256 with one learned token (CAT-Seg's class aggregation).

    Results depend on the number of classes through the padding, which takes part in the attention. With a padding of 0
    there is none, and no learned token.
    """

    def __init__(self, channels: int, heads: int, padding: Literal[0, 256] = MAX_CLASSES) -> None:
        super().__init__()
        self.padding = padding
        if padding:
            self.padding_tokens = nn.Parameter(torch.zeros(1, 1, channels))
            self.padding_guidance = nn.Parameter(torch.zeros(1, 1, channels))
        self.attention = GuidedLinearAttention(channels, heads)
        self.mlp = nn.Sequential(nn.Linear(channels, 4 * channels), nn.ReLU(), nn.Linear(4 * channels, channels))
        self.norm1 = nn.LayerNorm(channels)
        self.norm2 = nn.LayerNorm(channels)

    def forward(self, x: Tensor, guidance: Tensor, class_pooling: tuple[int, int]) -> Tensor:
        """Aggregates over classes.

        Args:
            x: (B, T, H, W, C) float, T at most 256.
            guidance: (B, T, C) float, the projected text embeddings.
            class_pooling: positions averaged before the attention, per axis; (1, 1) in evaluation.

        Returns:
            (B, T, H, W, C) float: x plus what the attention and MLP make of it (x itself among that).
        """
        B, T, H, W, C = x.shape
        pooled = class_pooling != (1, 1)
        z = pool_positions(x, class_pooling) if pooled else x
        h, w = z.shape[2:4]
        z = z.permute(0, 2, 3, 1, 4).reshape(-1, T, C)
        if self.padding:
            z, guidance = pad_classes(z, self.padding_tokens), pad_classes(guidance, self.padding_guidance)
        guidance = guidance[:, None].expand(-1, h * w, -1, -1).flatten(0, 1)
        z = z + self.attention(self.norm1(z), guidance)
        z = z + self.mlp(self.norm2(z))
        z = z[:, :T].reshape(B, h, w, T, C).permute(0, 3, 1, 2, 4)
        return x + (upsample_positions(z, (H, W)) if pooled else z)


class GuidedLinearAttention(nn.Module):
    """Linear attention with phi = elu + 1: queries and keys from cat(x, guidance), no output projection."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(2 * channels, channels)
        self.k = nn.Linear(2 * channels, channels)
        self.v = nn.Linear(channels, channels)

    def forward(self, x: Tensor, guidance: Tensor) -> Tensor:
        """x and guidance (N, L, C) -> (N, L, C)."""
        joined = torch.cat([x, guidance], dim=-1)
        q, k, v = (
            t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in (self.q(joined), self.k(joined), self.v(x))
        )
        q, k = F.elu(q) + 1, F.elu(k) + 1
        normaliser = q @ k.sum(dim=2)[..., None] + NORMALISER_EPS
        result: Tensor = (q @ (k.transpose(-1, -2) @ v) / normaliser).transpose(1, 2).flatten(2)
        return result


def pad_classes(x: Tensor, token: Tensor, length: int = MAX_CLASSES) -> Tensor:
    """Fills the class axis up to `length` with one token: (N, T, C), (1, 1, C) -> (N, length, C).

    Written as "append `length` tokens, keep the first `length` rows", so that a traced graph holds for every T.
    """
    return torch.cat([x, token.expand(x.shape[0], length, -1)], dim=1)[:, :length]


def pool_positions(x: Tensor, pooling: tuple[int, int]) -> Tensor:
    """Average-pools (B, T, H, W, C) over positions."""
    maps = x.flatten(0, 1).permute(0, 3, 1, 2)
    result: Tensor = F.avg_pool2d(maps, pooling).permute(0, 2, 3, 1).unflatten(0, x.shape[:2])
    return result


def upsample_positions(x: Tensor, grid: tuple[int, int]) -> Tensor:
    """Resizes (B, T, h, w, C) to the grid (H, W), bilinear, align_corners=True."""
    maps = x.flatten(0, 1).permute(0, 3, 1, 2)
    maps = F.interpolate(maps, size=grid, mode="bilinear", align_corners=True)
    result: Tensor = maps.permute(0, 2, 3, 1).unflatten(0, x.shape[:2])
    return result
