"""The decoder: each class's map upsampled four times, guided by the image tower's taps."""

from __future__ import annotations

import torch
from torch import Tensor, nn

GROUP_CHANNELS = 16
"""Channels per group of the decoder's GroupNorms."""


class UpBlock(nn.Module):
    """Doubles the resolution, joins the guidance, and convolves twice."""

    def __init__(self, channels: int, out_channels: int, guidance_channels: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(channels, channels - guidance_channels, kernel_size=2, stride=2)
        self.conv = nn.Sequential(*norm_conv(channels, out_channels), *norm_conv(out_channels, out_channels))

    def forward(self, x: Tensor, guidance: Tensor) -> Tensor:
        """x (B * T, C, h, w), guidance (B, G, 2h, 2w), the same for all T classes -> (B * T, C', 2h, 2w)."""
        x = self.up(x)
        T = x.shape[0] // guidance.shape[0]
        guidance = guidance[:, None].expand(-1, T, -1, -1, -1).flatten(0, 1)
        result: Tensor = self.conv(torch.cat([x, guidance], dim=1))
        return result


def norm_conv(channels: int, out_channels: int) -> tuple[nn.Module, ...]:
    """Conv 3 x 3 without bias, GroupNorm, ReLU."""
    return (
        nn.Conv2d(channels, out_channels, 3, padding=1, bias=False),
        nn.GroupNorm(max(1, out_channels // GROUP_CHANNELS), out_channels),
        nn.ReLU(),
    )


class Decoder(nn.Module):
    """Two `UpBlock`s and the 3 x 3 head."""

    def __init__(self, channels: int, widths: tuple[int, int], guidance_widths: tuple[int, int]) -> None:
        super().__init__()
        self.up1 = UpBlock(channels, widths[0], guidance_widths[0])
        self.up2 = UpBlock(widths[0], widths[1], guidance_widths[1])
        self.head = nn.Conv2d(widths[1], 1, 3, padding=1)

    def forward(self, x: Tensor, guidance: tuple[Tensor, Tensor]) -> Tensor:
        """Decodes class maps to logits.

        Args:
            x: (B, T, H, W, C) float.
            guidance: (B, G1, 2H, 2W) and (B, G2, 4H, 4W) float, projected.

        Returns:
            (B, T, 4H, 4W) float.
        """
        B, T = x.shape[:2]
        maps = x.flatten(0, 1).permute(0, 3, 1, 2)
        result: Tensor = self.head(self.up2(self.up1(maps, guidance[0]), guidance[1]))[:, 0].unflatten(0, (B, T))
        return result
