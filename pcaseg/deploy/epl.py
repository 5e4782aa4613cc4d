"""The folded EPL: one matrix product for both projections, four experts, coefficient mapper and residual."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pcaseg.deploy.algebra import buffers, compose, fold_batch_norm, weights_of
from pcaseg.kernels.expert_mix import ExpertWeights, expert_mix
from pcaseg.model.epl import EPL


class FoldedEPL(nn.Module):
    """Reads cat(s, m) directly: the stream projections, BatchNorms and residual scale are in the weights.

    The experts' grouped 3 x 3, which reads channels 2g and 2g + 1, is two depthwise convolutions, one over the even and
    one over the odd channels of all experts; their outputs are added. The buffers are `ExpertWeights`, by name.
    """

    def __init__(self, epl: EPL, grid: tuple[int, int], dtype: torch.dtype) -> None:
        super().__init__()
        self.grid = grid
        buffers(self, dtype, **fold_epl(epl))

    def forward(self, spatial: Tensor, semantic: Tensor) -> Tensor:
        """(B, T, HW, C) twice -> (B, T, HW, C), by the operator `expert_mix`."""
        spatial, semantic = (stream.unflatten(2, self.grid).contiguous() for stream in (spatial, semantic))
        return expert_mix(spatial, semantic, ExpertWeights(**dict(self.named_buffers()))).flatten(2, 3)


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
    parsers = [compose(fold_batch_norm(*matrix(e[0]), e[1]), project) for e in epl.experts]  # type: ignore[index]
    parse, parse_bias = (torch.cat(parts) for parts in zip(*parsers, strict=True))
    threes = [weights_of(e[3]) for e in epl.experts]  # type: ignore[index]
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
