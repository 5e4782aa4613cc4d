"""The spatial stream: each class's map alone, two Swin blocks guided by the image features."""

from __future__ import annotations

import torch
from torch import Tensor, nn

MASKED = -100.0
"""Added to attention across the borders that a shift brings together (the usual Swin mask)."""


class SpatialStream(nn.Module):
    """One plain and one shifted guided Swin block (PCA-Seg's spatial stream, CAT-Seg's spatial aggregation)."""

    def __init__(self, channels: int, heads: int, window: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.guidance_norm = nn.LayerNorm(channels)
        self.block_1 = GuidedSwinBlock(channels, heads, window, 0, grid)
        self.block_2 = GuidedSwinBlock(channels, heads, window, window // 2, grid)

    def forward(self, x: Tensor, guidance: Tensor) -> Tensor:
        """Aggregates over positions.

        Args:
            x: (B, T, H, W, C) float.
            guidance: (B, H, W, C) float, the projected image features.

        Returns:
            (B, T, H, W, C) float.
        """
        B, T = x.shape[:2]
        guidance = self.guidance_norm(guidance)[:, None].expand(-1, T, -1, -1, -1).flatten(0, 1)
        x = self.block_2(self.block_1(x.flatten(0, 1), guidance), guidance)
        result: Tensor = x.unflatten(0, (B, T))
        return result


class GuidedSwinBlock(nn.Module):
    """A Swin block whose queries and keys also read the guidance; no relative position bias."""

    def __init__(self, channels: int, heads: int, window: int, shift: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.window, self.shift, self.grid = window, shift, grid
        self.norm1 = nn.LayerNorm(channels)
        self.attn = GuidedWindowAttention(channels, heads)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = nn.Sequential()
        self.mlp.add_module("fc1", nn.Linear(channels, 4 * channels))
        self.mlp.add_module("act", nn.GELU())
        self.mlp.add_module("fc2", nn.Linear(4 * channels, channels))
        mask = shifted_window_mask(grid, window, shift) if shift else None
        self.register_buffer("attn_mask", mask, persistent=False)

    def forward(self, x: Tensor, guidance: Tensor) -> Tensor:
        """x and guidance (N, H, W, C) -> (N, H, W, C)."""
        grid = (x.shape[1], x.shape[2])
        mask = self.attn_mask
        if self.shift and grid != self.grid:
            mask = shifted_window_mask(grid, self.window, self.shift).to(x)
        normed = self.norm1(x)
        joined = torch.cat([normed, guidance], dim=-1)
        if self.shift:
            normed, joined = (t.roll((-self.shift, -self.shift), dims=(1, 2)) for t in (normed, joined))
        windows = self.attn(to_windows(joined, self.window), to_windows(normed, self.window), mask)
        attended = from_windows(windows, self.window, grid)
        if self.shift:
            attended = attended.roll((self.shift, self.shift), dims=(1, 2))
        x = x + attended
        result: Tensor = x + self.mlp(self.norm2(x))
        return result


class GuidedWindowAttention(nn.Module):
    """Attention within windows: queries and keys from cat(x, guidance), values from x alone."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.scale = (channels // heads) ** -0.5
        self.q = nn.Linear(2 * channels, channels)
        self.k = nn.Linear(2 * channels, channels)
        self.v = nn.Linear(channels, channels)
        self.proj = nn.Linear(channels, channels)

    def forward(self, joined: Tensor, x: Tensor, mask: Tensor | None) -> Tensor:
        """joined (N, n, L, 2C), x (N, n, L, C), mask (n, L, L) or None -> (N, n, L, C); n windows of L positions."""
        q, k, v = (
            t.unflatten(-1, (self.heads, -1)).transpose(-2, -3) for t in (self.q(joined), self.k(joined), self.v(x))
        )
        weights = q * self.scale @ k.transpose(-1, -2)
        if mask is not None:
            weights = weights + mask[:, None]
        result: Tensor = self.proj((weights.softmax(dim=-1) @ v).transpose(-2, -3).flatten(-2))
        return result


def to_windows(x: Tensor, window: int) -> Tensor:
    """(N, H, W, C) -> (N, n, window * window, C), windows row by row.

    Raises:
        ValueError: the window does not divide the grid.
    """
    _, H, W, C = x.shape
    if H % window or W % window:
        raise ValueError(f"grid of {H} x {W}: both sides must be multiples of the window, {window}")
    x = x.reshape(-1, H // window, window, W // window, window, C)
    return x.transpose(2, 3).reshape(-1, (H // window) * (W // window), window * window, C)


def from_windows(windows: Tensor, window: int, grid: tuple[int, int]) -> Tensor:
    """The inverse of `to_windows`: (N, n, window * window, C) -> (N, H, W, C)."""
    H, W = grid
    C = windows.shape[-1]
    x = windows.reshape(-1, H // window, W // window, window, window, C)
    return x.transpose(2, 3).reshape(-1, H, W, C)


def shifted_window_mask(grid: tuple[int, int], window: int, shift: int) -> Tensor:
    """Mask to add to the attention of shifted windows: -100 between positions that were not neighbours.

    Returns:
        (n, window * window, window * window) float32.
    """

    def regions(size: int) -> Tensor:
        position = torch.arange(size)
        return (position >= size - window).int() + (position >= size - shift).int()

    labels = 3 * regions(grid[0])[:, None] + regions(grid[1])
    labels = to_windows(labels[None, :, :, None], window)[0, :, :, 0]
    return torch.where(labels[:, :, None] == labels[:, None, :], 0.0, MASKED)
