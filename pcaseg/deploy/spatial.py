"""The folded spatial stream: unmasked rectangles, guidance once per image, norms and scales in the weights.

Rewrites, beside those of `pcaseg.deploy.algebra`:

- Attention scale: (q s) k^T = q' k^T with q' from scaled weights.
- Key bias: softmax over keys does not see q . b, which is the same for every key; it is dropped.
- Value bias: each row of softmax weights sums to 1, so A (v + b) = A v + b, and b moves behind the attention.
- Masked shifted windows: tokens that the mask keeps apart never meet, so each region between mask borders attends
  alone, without mask and without roll. On a 24 x 24 grid with window 12 and shift 6 these are nine rectangles, with
  44 % fewer products. Attention does not see the order of tokens, so rectangles of equal area run as one batch.
"""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pcaseg.deploy.algebra import buffers, compose, fold_layer_norm, split_guidance, weights_of
from pcaseg.model.spatial_stream import GuidedSwinBlock, SpatialStream

Share = tuple[Tensor, Tensor]
"""What the guidance adds to q and to k."""


class FoldedSpatialStream(nn.Module):
    """Two folded Swin blocks on one grid."""

    def __init__(self, stream: SpatialStream, grid: tuple[int, int], dtype: torch.dtype) -> None:
        super().__init__()
        self.block_1 = FoldedSwinBlock(stream.block_1, stream.guidance_norm, grid, dtype)
        self.block_2 = FoldedSwinBlock(stream.block_2, stream.guidance_norm, grid, dtype)

    def shares(self, guidance: Tensor) -> list[Share]:
        """Share of the guidance in q and k, once per image: (B, HW, C) -> twice (B, 1, HW, C) for each block."""
        normed = F.layer_norm(guidance, guidance.shape[-1:])
        return [self.block_1.share(normed), self.block_2.share(normed)]

    def forward(self, x: Tensor, shares: list[Share]) -> Tensor:
        """x (B, T, HW, C), shares of `shares` -> (B, T, HW, C)."""
        result: Tensor = self.block_2(self.block_1(x, shares[0]), shares[1])
        return result


class FoldedSwinBlock(nn.Module):
    """One block; its tokens are ordered by rectangle, see `rectangles`."""

    order: Tensor
    inverse: Tensor
    q: Tensor
    k: Tensor
    v: Tensor
    q_guidance: Tensor
    q_bias: Tensor
    k_guidance: Tensor
    proj: Tensor
    proj_bias: Tensor
    fc1: Tensor
    fc1_bias: Tensor
    fc2: Tensor
    fc2_bias: Tensor

    def __init__(
        self, block: GuidedSwinBlock, guidance_norm: nn.LayerNorm, grid: tuple[int, int], dtype: torch.dtype
    ) -> None:
        super().__init__()
        self.heads = block.attn.heads
        order, self.groups = rectangles(grid, block.window, block.shift)
        self.register_buffer("order", order)
        self.register_buffer("inverse", order.argsort())
        buffers(self, dtype, **fold_window_attention(block, guidance_norm), **fold_mlp(block))

    def share(self, normed_guidance: Tensor) -> Share:
        """(B, HW, C) normalised -> twice (B, 1, HW, C), in the order of the rectangles, with the bias of q."""
        ordered = normed_guidance[:, None].index_select(2, self.order)
        return F.linear(ordered, self.q_guidance, self.q_bias), F.linear(ordered, self.k_guidance)

    def forward(self, x: Tensor, share: Share) -> Tensor:
        """x (B, T, HW, C), share of `share` -> (B, T, HW, C)."""
        C = x.shape[-1]
        x = x.index_select(2, self.order)
        n = F.layer_norm(x, (C,))
        q, k = F.linear(n, self.q) + share[0], F.linear(n, self.k) + share[1]
        x = x + F.linear(self._attend(q, k, F.linear(n, self.v)), self.proj, self.proj_bias)
        hidden = F.gelu(F.linear(F.layer_norm(x, (C,)), self.fc1, self.fc1_bias))
        x = x + F.linear(hidden, self.fc2, self.fc2_bias)
        return x.index_select(2, self.inverse)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """q, k, v (B, T, HW, C) -> (B, T, HW, C): each rectangle attends alone."""
        parts, start = [], 0
        for count, area in self.groups:
            rows = slice(start, start + count * area)
            start += count * area
            heads = [
                t[:, :, rows].reshape(-1, area, self.heads, t.shape[-1] // self.heads).transpose(1, 2)
                for t in (q, k, v)
            ]
            part = F.scaled_dot_product_attention(heads[0], heads[1], heads[2], scale=1.0)
            parts.append(part.transpose(1, 2).reshape(*q.shape[:2], count * area, q.shape[-1]))
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)


def fold_window_attention(block: GuidedSwinBlock, guidance_norm: nn.LayerNorm) -> dict[str, Tensor]:
    """The weights of a block's attention: LayerNorm, scale and biases folded, guidance split off.

    q = s (Wx n + Wg g + b): the part of n has LayerNorm's affine folded; the part of g, with every constant, is the
    share of the guidance. k the same without its constant bias. v's constant goes through the output projection.
    """
    attention = block.attn
    q_weight, q_bias = (attention.scale * t for t in weights_of(attention.q))
    k_weight, _ = weights_of(attention.k)
    no_bias = q_bias.new_zeros(len(q_bias))
    (q_x, q_g), (k_x, k_g) = split_guidance(q_weight), split_guidance(k_weight)
    q_x, q_shift = fold_layer_norm(q_x, q_bias, block.norm1)
    k_x, _ = fold_layer_norm(k_x, no_bias, block.norm1)
    v_x, v_shift = fold_layer_norm(*weights_of(attention.v), block.norm1)
    q_g, q_shift = fold_layer_norm(q_g, q_shift, guidance_norm)
    k_g, _ = fold_layer_norm(k_g, no_bias, guidance_norm)
    _, proj_bias = compose(weights_of(attention.proj), (v_x, v_shift))
    return {
        "q": q_x,
        "k": k_x,
        "v": v_x,
        "q_guidance": q_g,
        "q_bias": q_shift,
        "k_guidance": k_g,
        "proj": weights_of(attention.proj)[0],
        "proj_bias": proj_bias,
    }


def fold_mlp(block: GuidedSwinBlock) -> dict[str, Tensor]:
    """The weights of a block's MLP with its LayerNorm's affine part folded."""
    fc1, fc1_bias = fold_layer_norm(*weights_of(block.mlp.fc1), block.norm2)  # type: ignore[arg-type]
    fc2, fc2_bias = weights_of(block.mlp.fc2)  # type: ignore[arg-type]
    return {"fc1": fc1, "fc1_bias": fc1_bias, "fc2": fc2, "fc2_bias": fc2_bias}


def rectangles(grid: tuple[int, int], window: int, shift: int) -> tuple[Tensor, list[tuple[int, int]]]:
    """The regions within which tokens attend, largest first.

    Returns:
        order (HW) int64: token indices, region by region; groups: (number of regions, their area) in that order.
    """

    def segments(size: int) -> list[range]:
        cuts = [0, *range(shift, size, window), size] if shift else [*range(0, size, window), size]
        return [range(a, b) for a, b in itertools.pairwise(cuts)]

    regions = [
        [i * grid[1] + j for i in rows for j in columns] for rows in segments(grid[0]) for columns in segments(grid[1])
    ]
    regions.sort(key=len, reverse=True)
    areas = [len(region) for region in regions]
    groups = [(areas.count(area), area) for area in sorted(set(areas), reverse=True)]
    return torch.tensor([token for region in regions for token in region]), groups
