"""EPL, expert-driven perceptual learning: how PCA-Seg merges its spatial and semantic streams."""

from __future__ import annotations

import torch
from torch import Tensor, nn

EXPERTS = 4


class EPL(nn.Module):
    """Multi-expert parser and coefficient mapper (PCA-Seg); 349,221 parameters with C = 128.

    Four experts read both streams; the coefficient mapper gives each position its own mixture of them.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.spatial_proj = nn.Conv2d(channels, channels, 1)
        self.semantic_proj = nn.Conv2d(channels, channels, 1)
        self.experts = nn.ModuleList(expert(channels) for _ in range(EXPERTS))
        self.coefficient_mapper = nn.Sequential(
            nn.Conv2d(2 * channels, channels // 4, 1), nn.ReLU(), nn.Conv2d(channels // 4, EXPERTS, 1)
        )
        self.residual = nn.Conv2d(2 * channels, channels, 1)
        self.res_scale = nn.Parameter(torch.tensor(0.5))

    def forward(self, spatial: Tensor, semantic: Tensor) -> Tensor:
        """Merges the streams.

        Args:
            spatial: (B, T, H, W, C) float.
            semantic: (B, T, H, W, C) float.

        Returns:
            (B, T, H, W, C) float.
        """
        s, m = (stream.flatten(0, 1).permute(0, 3, 1, 2) for stream in (spatial, semantic))
        u = torch.cat([self.spatial_proj(s), self.semantic_proj(m)], dim=1)
        coefficients = self.coefficient_mapper(u).softmax(dim=1)
        mixed = self.res_scale * self.residual(u)
        for index, parse in enumerate(self.experts):
            mixed = mixed + coefficients[:, index : index + 1] * parse(u)
        result: Tensor = mixed.permute(0, 2, 3, 1).unflatten(0, spatial.shape[:2])
        return result


def expert(channels: int) -> nn.Sequential:
    """One expert: (N, 2C, H, W) -> (N, C, H, W); output channel g of the 3 x 3 reads channels 2g and 2g + 1."""
    return nn.Sequential(
        nn.Conv2d(2 * channels, 2 * channels, 1),
        nn.BatchNorm2d(2 * channels),
        nn.GELU(),
        nn.Conv2d(2 * channels, channels, 3, padding=1, groups=channels),
        nn.GELU(),
    )
