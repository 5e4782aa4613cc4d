"""The folded EPL: one matrix product for both projections, four experts, coefficient mapper and residual."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pcaseg.deploy.algebra import buffers, compose, fold_batch_norm, weights_of
from pcaseg.model.epl import EPL


class FoldedEPL(nn.Module):
    """Reads cat(s, m) directly: the stream projections, BatchNorms and residual scale are in the weights.

    The experts' grouped 3 x 3, which reads channels 2g and 2g + 1, runs as two depthwise convolutions, one over the
    even and one over the odd channels of all experts; their outputs are added.
    """

    parse_even: Tensor
    parse_even_bias: Tensor
    parse_odd: Tensor
    parse_odd_bias: Tensor
    depthwise_even: Tensor
    depthwise_odd: Tensor
    depthwise_bias: Tensor
    mapper: Tensor
    mapper_bias: Tensor
    coefficients: Tensor
    coefficients_bias: Tensor
    residual: Tensor
    residual_bias: Tensor

    def __init__(self, epl: EPL, grid: tuple[int, int], dtype: torch.dtype) -> None:
        super().__init__()
        self.grid, self.experts = grid, len(epl.experts)
        buffers(self, dtype, **fold_epl(epl))

    def forward(self, spatial: Tensor, semantic: Tensor) -> Tensor:
        """(B, T, HW, C) twice -> (B, T, HW, C)."""
        B, T, _, C = spatial.shape
        u = torch.cat([spatial, semantic], dim=-1).flatten(0, 1)
        even = self._maps(F.gelu(F.linear(u, self.parse_even, self.parse_even_bias)))
        odd = self._maps(F.gelu(F.linear(u, self.parse_odd, self.parse_odd_bias)))
        even = F.conv2d(even, self.depthwise_even, self.depthwise_bias, padding=1, groups=self.experts * C)
        maps = even + F.conv2d(odd, self.depthwise_odd, padding=1, groups=self.experts * C)
        experts = F.gelu(maps.permute(0, 2, 3, 1).flatten(1, 2)).unflatten(-1, (self.experts, C))
        hidden = F.relu(F.linear(u, self.mapper, self.mapper_bias))
        coefficients = F.linear(hidden, self.coefficients, self.coefficients_bias).softmax(dim=-1)
        mixed = (coefficients[..., None, :] @ experts)[..., 0, :]
        return (mixed + F.linear(u, self.residual, self.residual_bias)).unflatten(0, (B, T))

    def _maps(self, tokens: Tensor) -> Tensor:
        """(B * T, HW, N) -> (B * T, N, H, W), without a copy."""
        return tokens.unflatten(1, self.grid).permute(0, 3, 1, 2)


def fold_epl(epl: EPL) -> dict[str, Tensor]:
    """All weights of an EPL as maps of cat(s, m).

    u = P cat(s, m) + p with P block-diagonal; an expert's BatchNorm(W u + b) becomes one linear map of cat(s, m), and
    so do the coefficient mapper's first layer and r times the residual.
    """

    def matrix(conv: nn.Conv2d) -> tuple[Tensor, Tensor]:
        weight, bias = weights_of(conv)
        return weight[:, :, 0, 0], bias

    (ps, bs), (pm, bm) = matrix(epl.spatial_proj), matrix(epl.semantic_proj)
    project = torch.block_diag(ps, pm), torch.cat([bs, bm])
    parsers = [compose(fold_batch_norm(*matrix(e[0]), e[1]), project) for e in epl.experts]  # type: ignore[index, arg-type]
    parse, parse_bias = (torch.cat(parts) for parts in zip(*parsers, strict=True))
    threes = [weights_of(e[3]) for e in epl.experts]  # type: ignore[index, arg-type]
    scale = epl.res_scale.detach().double()
    residual, residual_bias = matrix(epl.residual)
    residual, residual_bias = compose((scale * residual, scale * residual_bias), project)
    mapper, mapper_bias = compose(matrix(epl.coefficient_mapper[0]), project)  # type: ignore[arg-type]
    coefficients, coefficients_bias = matrix(epl.coefficient_mapper[2])  # type: ignore[arg-type]
    return {
        "parse_even": parse[0::2],
        "parse_even_bias": parse_bias[0::2],
        "parse_odd": parse[1::2],
        "parse_odd_bias": parse_bias[1::2],
        "depthwise_even": torch.cat([weight[:, :1] for weight, _ in threes]),
        "depthwise_odd": torch.cat([weight[:, 1:] for weight, _ in threes]),
        "depthwise_bias": torch.cat([bias for _, bias in threes]),
        "mapper": mapper,
        "mapper_bias": mapper_bias,
        "coefficients": coefficients,
        "coefficients_bias": coefficients_bias,
        "residual": residual,
        "residual_bias": residual_bias,
    }
