"""The folded decoder: upsampling and first convolution as one, the guidance's part once per image."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pcaseg.deploy.algebra import buffers, weights_of
from pcaseg.model.decoder import Decoder, UpBlock


class FoldedUpBlock(nn.Module):
    """Doubles the resolution of a map."""

    up: Tensor
    guidance: Tensor
    border: Tensor
    conv: Tensor

    def __init__(self, block: UpBlock, grid: tuple[int, int], dtype: torch.dtype) -> None:
        super().__init__()
        self.grid = grid
        self.norm1, self.norm2 = (_norm(block.conv[i], dtype) for i in (1, 4))
        buffers(self, dtype, conv=weights_of(block.conv[3])[0], **fold_upsampling(block, grid))  # type: ignore[arg-type]

    def share(self, guidance: Tensor) -> Tensor:
        """Share of guidance and bias before the first norm: (B, G, 2h, 2w) -> (B, C', 2h, 2w), once per image."""
        return F.conv2d(guidance, self.guidance, padding=1) + self.border

    def forward(self, x: Tensor, share: Tensor) -> Tensor:
        """x (B * T, C, h, w), share (B, C', 2h, 2w) -> (B * T, C', 2h, 2w)."""
        x = F.conv_transpose2d(x, self.up, stride=2, padding=1)
        x = (x.unflatten(0, (share.shape[0], -1)) + share[:, None]).flatten(0, 1)
        return F.relu(self.norm2(F.conv2d(F.relu(self.norm1(x)), self.conv, padding=1)))


class FoldedDecoder(nn.Module):
    """Two folded `UpBlock`s and the head."""

    head: Tensor
    head_bias: Tensor

    def __init__(self, decoder: Decoder, grid: tuple[int, int], dtype: torch.dtype) -> None:
        super().__init__()
        self.grid = grid
        self.up1 = FoldedUpBlock(decoder.up1, grid, dtype)
        self.up2 = FoldedUpBlock(decoder.up2, (2 * grid[0], 2 * grid[1]), dtype)
        weight, bias = weights_of(decoder.head)
        buffers(self, dtype, head=weight, head_bias=bias)

    def shares(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """The guidance's part of both blocks, once per image."""
        return self.up1.share(first), self.up2.share(second)

    def forward(self, x: Tensor, shares: tuple[Tensor, Tensor]) -> Tensor:
        """x (B, T, HW, C) -> logits (B, T, 4H, 4W)."""
        B, T = x.shape[:2]
        maps = x.flatten(0, 1).unflatten(1, self.grid).permute(0, 3, 1, 2)
        maps = self.up2(self.up1(maps, shares[0]), shares[1])
        result: Tensor = F.conv2d(maps, self.head, self.head_bias, padding=1)[:, 0].unflatten(0, (B, T))
        return result


def fold_upsampling(block: UpBlock, grid: tuple[int, int]) -> dict[str, Tensor]:
    """The transposed convolution (2, stride 2) and the 3 x 3 behind it as one (4, stride 2, padding 1).

    conv3(cat(up(x) + b, g)) = (conv3x o up)(x) + conv3x(b) + conv3g(g). Up writes value (i, j) of its kernel to output
    pixel (2y + i, 2x + j); the 3 x 3 carries it on to the neighbours, so input pixel (y, x) reaches the 4 x 4 outputs
    from (2y - 1, 2x - 1): the full correlation of both kernels. The bias is a constant map, smaller at the border,
    where the 3 x 3 reads padding.
    """
    up, up_bias = weights_of(block.up)  # (C, M, 2, 2)
    conv, _ = weights_of(block.conv[0])  # type: ignore[arg-type]  # (O, M + G, 3, 3)
    middle = up.shape[1]
    conv_x, conv_g = conv[:, :middle], conv[:, middle:]
    fused = F.conv_transpose2d(up, conv_x.transpose(0, 1).flip(2, 3))  # (C, O, 4, 4)
    constant = up_bias[None, :, None, None].expand(1, -1, 2 * grid[0], 2 * grid[1])
    return {"up": fused, "guidance": conv_g, "border": F.conv2d(constant, conv_x, padding=1)}


def _norm(norm: nn.Module, dtype: torch.dtype) -> nn.GroupNorm:
    assert isinstance(norm, nn.GroupNorm)  # the second and fifth layer of an `UpBlock`
    folded = nn.GroupNorm(norm.num_groups, norm.num_channels, norm.eps, dtype=dtype)
    folded.load_state_dict(norm.state_dict())
    return folded.requires_grad_(False)
