"""Expert mixing: both streams of the folded EPL to its output in one pass, nothing in between in device memory.

For each pixel of each of the B * T maps, with u = cat(spatial, semantic) of 2C channels and E experts:

    even, odd = GELU(parse_even u + bias), GELU(parse_odd u + bias)    E * C channels each; zero outside the map
    expert    = GELU(3 x 3 of channel n over even n and odd n + bias)  E * C channels
    share     = softmax over the experts of coefficients ReLU(mapper u)
    output    = sum over experts of share * expert + residual u        C channels

Tiling. A program owns BLOCK_C output channels (hence COLUMNS = E * BLOCK_C channels of even, of odd and of expert) of a
group of maps, and walks down their rows. A step takes one row of every map of the group, BLOCK_M lanes together:

- *Across a row.* Maps lie side by side with W + 1 lanes each; the last lane holds zeros, so the neighbours of a pixel
  are the lanes beside its own, and borders are no special case. (A row of BLOCK_M pixels or more is cut in segments of
  BLOCK_M - 2 with a lane of halo on each side, one a program.) A thread holds four lanes in registers: moving by one
  lane takes a quarter of them from other threads of the warp.
- *Down the rows.* Row y gives its three parts to the sums of rows y - 1, y and y + 1. The first is then finished and
  row y - 1 written; the others, (BLOCK_M, COLUMNS) each, stay in registers. So no row is parsed twice. Only where
  programs are too few for the GPU are maps cut in parts of `rows` rows, each of which parses two more.
- *Products.* (BLOCK_M, 2C) pixels times (2C, 2 COLUMNS + C / 4 + BLOCK_C) weights on tensor cores, summed in float32,
  streams read once and not joined. Float32 multiplies as such ("ieee").

Cost for P = B * T * H * W pixels of s bytes a number: 3 P C s bytes at least (`bytes_moved`) and
2 P (2C (2 E C + C / 4 + C) + 18 E C + E C / 4 + E C) operations (`operations`). What comes on top: the mapper is
computed C / BLOCK_C times; BLOCK_M lanes hold BLOCK_M // (W + 1) rows of W pixels; the streams are read C / BLOCK_C
times, by programs that run side by side, and the weights in every step, both from the L2 cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from pcaseg.errors import PcasegError
from pcaseg.kernels.registry import check_tensor, operator
from pcaseg.kernels.tuning import TuningPoint

NAME = "expert_mix"
MIN_ROWS = 6  # of a program; two more are parsed


class ExpertWeights(NamedTuple):
    """The folded EPL's weights, contiguous and of the streams' dtype; row e * C + c of an (E * C, ...) is expert e's.

    `parse_*` (E * C, 2C) give the channels that the 3 x 3 of output c reads first and second, from spatial, then
    semantic; `depthwise_*` are (E * C, 1, 3, 3), `mapper` (C / 4, 2C), `coefficients` (E, C / 4), `residual` (C, 2C)
    with its scale. Biases have the first of these lengths.
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


def expert_mix_reference(spatial: Tensor, semantic: Tensor, weights: Sequence[Tensor]) -> Tensor:
    """The definition, in the tensors' own dtype; see `expert_mix` for arguments and result."""
    w = ExpertWeights(*weights)
    B, T, H, W, C = spatial.shape
    experts = w.coefficients.shape[0]
    u = torch.cat([spatial, semantic], dim=-1).view(B * T, H * W, 2 * C)
    even, odd = (
        F.gelu(F.linear(u, weight, bias)).unflatten(1, (H, W)).permute(0, 3, 1, 2)
        for weight, bias in ((w.parse_even, w.parse_even_bias), (w.parse_odd, w.parse_odd_bias))
    )
    maps = F.conv2d(even, w.depthwise_even, w.depthwise_bias, padding=1, groups=experts * C)
    maps = maps + F.conv2d(odd, w.depthwise_odd, padding=1, groups=experts * C)
    parsed = F.gelu(maps.permute(0, 2, 3, 1).flatten(1, 2)).unflatten(-1, (experts, C))
    hidden = F.relu(F.linear(u, w.mapper, w.mapper_bias))
    coefficients = F.linear(hidden, w.coefficients, w.coefficients_bias).softmax(dim=-1)
    mixed = (coefficients[..., None, :] @ parsed)[..., 0, :]
    return (mixed + F.linear(u, w.residual, w.residual_bias)).view(B, T, H, W, C)


def pack_vectors(w: ExpertWeights, columns: int) -> Tensor:
    """The vectors that the kernel reads per column, block by block: (blocks, 21, columns).

    For each column nine taps of even, nine of odd, the biases of the 3 x 3, of even and of odd.
    """
    taps = [part.flatten(1).T for part in (w.depthwise_even, w.depthwise_odd)]
    biases = [part[None] for part in (w.depthwise_bias, w.parse_even_bias, w.parse_odd_bias)]
    experts = w.coefficients.shape[0]
    rows = torch.cat([*taps, *biases]).unflatten(1, (experts, -1, columns // experts))
    return rows.permute(2, 0, 1, 3).contiguous()


def constexprs_for(C: int, experts: int, mapper: int, dtype: str, point: TuningPoint) -> dict[str, Any]:
    """All constexprs of the kernel.

    Raises:
        PcasegError: the kernel does not take such widths.
    """
    columns, block_k = min(point.constexprs["COLUMNS"], experts * C), point.constexprs["BLOCK_K"]
    if experts & (experts - 1) or C & (C - 1) or block_k > C or columns < experts:
        raise PcasegError(f"{experts} experts, C={C}: the kernel takes powers of two, C from {block_k} on")
    hidden = max(16, 1 << (mapper - 1).bit_length())
    fixed = {"C": C, "EXPERTS": experts, "MAPPER": mapper, "HIDDEN": hidden, "PRECISION": "ieee"}
    return {**point.constexprs, **fixed, "COLUMNS": columns}


def groups_of(maps: int, W: int, block_m: int) -> tuple[int, int]:
    """The number of groups of maps (times segments of a row), and the lanes of a row."""
    lanes = W + 1 if block_m > W else block_m
    segments = 1 if block_m > W else -(-W // (block_m - 2))
    return -(-maps // (block_m // lanes)) * segments, lanes


def _compute(spatial: Tensor, semantic: Tensor, weights: Sequence[Tensor]) -> Tensor:
    from pcaseg.kernels.triton.expert_mix import launch

    out = torch.empty_like(spatial)
    launch(spatial, semantic, ExpertWeights(*weights), out)
    return out


def _empty(spatial: Tensor, semantic: Tensor, weights: Sequence[Tensor]) -> Tensor:
    return spatial.new_empty(spatial.shape)


_operator = operator(NAME, reference=expert_mix_reference, kernel=_compute, fake=_empty)


def expert_mix(spatial: Tensor, semantic: Tensor, weights: ExpertWeights) -> Tensor:
    """The folded EPL, all tensors of one dtype.

    Args:
        spatial: (B, T, H, W, C) float, as semantic and the result.

    Raises:
        PcasegError: a shape, dtype or device that does not fit, or a tensor that is not contiguous; on CUDA also a
            number of experts or channels that is no power of two, or too small.
        MissingDependencyError: tensors on a GPU without Triton.
    """
    check_tensor("spatial", spatial, (None,) * 5)
    check_tensor("semantic", semantic, tuple(spatial.shape), like=spatial)
    check_tensor("coefficients", weights.coefficients, (None, None), like=spatial)
    C, (experts, mapper) = spatial.shape[-1], weights.coefficients.shape
    n = experts * C
    shapes = [(n, 2 * C), (n,), (n, 2 * C), (n,), (n, 1, 3, 3), (n, 1, 3, 3), (n,), (mapper, 2 * C), (mapper,)]
    shapes += [(experts, mapper), (experts,), (C, 2 * C), (C,)]
    for name, tensor, shape in zip(ExpertWeights._fields, weights, shapes, strict=True):
        check_tensor(name, tensor, shape, like=spatial)
    return _operator(spatial, semantic, list(weights))


def bytes_moved(B: int, T: int, H: int, W: int, C: int, *, experts: int, itemsize: int) -> int:
    """Least traffic to device memory: streams and output once, weights once."""
    weights = experts * C * (4 * C + 3 + 18) + (C // 4) * (2 * C + 1 + experts) + experts + C * (2 * C + 1)
    return itemsize * (3 * B * T * H * W * C + weights)


def operations(B: int, T: int, H: int, W: int, C: int, *, experts: int) -> int:
    """Floating-point operations of the products and sums, a multiplication and an addition as two."""
    products = 2 * C * (2 * experts * C + C // 4 + C)
    return 2 * B * T * H * W * (products + 18 * experts * C + experts * C // 4 + experts * C)
