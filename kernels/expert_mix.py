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
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from pcaseg.errors import PcasegError
from pcaseg.kernels.aot import Variant
from pcaseg.kernels.registry import architecture, check_tensor, dtype_name, helper, kernel, operator
from pcaseg.kernels.tuning import TuningPoint, tuning_point

if TYPE_CHECKING:
    import triton.language as tl

NAME = "expert_mix"
MIN_ROWS = 6  # of a program; two more are parsed


class Weights(NamedTuple):
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
    """What `expert_mix` computes, in PyTorch, in the tensors' own dtype."""
    w = Weights(*weights)
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


@helper
def _gelu(x):
    """relu(x) - |x| Phi(-|x|), with log2 Phi(-a) as a polynomial: within 5e-7 of the erf form, in 9 instructions."""
    size = tl.abs(x)
    power = -0.0004733092 * size + 0.007084556
    power = power * size - 0.05182738
    power = power * size - 0.45999244
    power = power * size - 1.1507878
    power = power * size - 1.0000377
    return tl.maximum(x, 0.0) - size * tl.exp2(power)


@helper
def _positions(group, maps, width, lanes, BLOCK_M: tl.constexpr):
    """Of each lane: map, column, whether it is a pixel of its map, and whether this program writes it."""
    m = tl.arange(0, BLOCK_M)
    strips = BLOCK_M // lanes
    halo = (lanes <= width).to(tl.int32)  # then there is one strip, of all lanes
    segments = halo * (tl.cdiv(width, tl.maximum(lanes - 2, 1)) - 1) + 1
    image = (group // segments) * strips + m // lanes
    x = (group % segments) * (lanes - 2) + m % lanes - halo
    pixel = (m // lanes < strips) & (image < maps) & (x >= 0) & (x < width)
    owned = (halo == 0) | ((m > 0) & (m < lanes - 1))
    return image.to(tl.int64), x, pixel, pixel & owned


@helper
def _vector(vector_ptr, INDEX: tl.constexpr, LENGTH: tl.constexpr):
    """(1, LENGTH) float32: number INDEX of vectors that follow each other."""
    return tl.load(vector_ptr + INDEX * LENGTH + tl.arange(0, LENGTH)).to(tl.float32)[None, :]


@helper
def _add_product(sums, u, weight_ptr, rows, columns, C: tl.constexpr, PRECISION: tl.constexpr):
    """Adds u times the given rows and columns of a weight (., 2C)."""
    weight = tl.load(weight_ptr + rows[None, :] * (2 * C) + columns[:, None])
    return tl.dot(u, weight, sums, input_precision=PRECISION)


@helper
def _shares(hidden, coefficients_ptr, bias_ptr, MAPPER: tl.constexpr, EXPERTS: tl.constexpr, PRECISION: tl.constexpr):
    """Softmax over the experts: (M, HIDDEN), of which MAPPER count -> (M, EXPERTS) float32."""
    h = tl.arange(0, hidden.shape[1])
    at = tl.arange(0, EXPERTS)[None, :] * MAPPER + h[:, None]
    weight = tl.load(coefficients_ptr + at, mask=(h < MAPPER)[:, None], other=0.0)
    score = tl.dot(hidden.to(weight.dtype), weight, input_precision=PRECISION) + _vector(bias_ptr, 0, EXPERTS)
    score = tl.exp(score - tl.max(score, axis=1)[:, None])
    return score / tl.sum(score, axis=1)[:, None]


@helper
def _row(values, BLOCK_M: tl.constexpr):
    """(M / 4, N, 2, 2) -> (M, N)."""
    return tl.reshape(tl.permute(values, (0, 2, 3, 1)), (BLOCK_M, values.shape[1]))


@helper
def _beside(values, BLOCK_M: tl.constexpr):
    """(M, N) -> the lane to the left of each lane, the lane itself, and the lane to the right, circularly."""
    QUADS: tl.constexpr = BLOCK_M // 4
    N: tl.constexpr = values.shape[1]
    quads = tl.permute(tl.reshape(values, (QUADS, 2, 2, N)), (0, 3, 1, 2))
    odd_places, even_places = tl.split(quads)
    first, third = tl.split(odd_places)
    second, fourth = tl.split(even_places)
    quad = tl.arange(0, QUADS)[:, None]
    before = tl.gather(fourth, tl.broadcast_to((quad + QUADS - 1) % QUADS, (QUADS, N)), axis=0)
    after = tl.gather(first, tl.broadcast_to((quad + 1) % QUADS, (QUADS, N)), axis=0)
    left = tl.join(tl.join(before, second), tl.join(first, third))
    here = tl.join(tl.join(first, third), tl.join(second, fourth))
    right = tl.join(tl.join(second, fourth), tl.join(third, after))
    return _row(left, BLOCK_M), _row(here, BLOCK_M), _row(right, BLOCK_M)


@helper
def _unpack(pairs, dtype: tl.constexpr):
    """The two 16-bit numbers of each int32; bfloat16 is the upper half of float32."""
    if dtype == tl.bfloat16:
        return (pairs << 16).to(tl.float32, bitcast=True), (pairs & -65536).to(tl.float32, bitcast=True)
    else:
        low, high = (pairs & 0xFFFF).to(tl.int16), (pairs >> 16).to(tl.int16)
        return low.to(dtype, bitcast=True), high.to(dtype, bitcast=True)


@helper
def _beside_both(even, odd, BLOCK_M: tl.constexpr):
    """`_beside` of two tensors, as pairs (even, odd); those of 16 bits move together."""
    dtype: tl.constexpr = even.dtype
    if dtype.primitive_bitwidth == 16:
        low = even.to(tl.int16, bitcast=True).to(tl.int32) & 0xFFFF
        high = odd.to(tl.int16, bitcast=True).to(tl.int32) << 16
        left, here, right = _beside(low | high, BLOCK_M)
        return _unpack(left, dtype), _unpack(here, dtype), _unpack(right, dtype)
    else:
        left_even, here_even, right_even = _beside(even, BLOCK_M)
        left_odd, here_odd, right_odd = _beside(odd, BLOCK_M)
        return (left_even, left_odd), (here_even, here_odd), (right_even, right_odd)


@helper
def _add_taps(sums, pair, vectors_ptr, TAP: tl.constexpr, COLUMNS: tl.constexpr):
    """Adds one column of the 3 x 3 to the sums of the rows above, here and below."""
    above, here, below = sums
    for part in tl.static_range(2):
        x = pair[part].to(tl.float32)
        below += x * _vector(vectors_ptr, 9 * part + TAP, COLUMNS)
        here += x * _vector(vectors_ptr, 9 * part + 3 + TAP, COLUMNS)
        above += x * _vector(vectors_ptr, 9 * part + 6 + TAP, COLUMNS)
    return above, here, below


@kernel
def _expert_mix_kernel(
    spatial_ptr,  # (maps, height, width, C)
    semantic_ptr,  # (maps, height, width, C)
    parse_even_ptr,  # (EXPERTS * C, 2C)
    parse_odd_ptr,  # (EXPERTS * C, 2C)
    vectors_ptr,  # (BLOCKS, 21, COLUMNS), see `pack_vectors`
    mapper_ptr,  # (MAPPER, 2C)
    mapper_bias_ptr,
    coefficients_ptr,  # (EXPERTS, MAPPER)
    coefficients_bias_ptr,
    residual_ptr,  # (C, 2C)
    residual_bias_ptr,
    maps,
    height,
    width,
    lanes,  # of a row: width + 1, or BLOCK_M where that is no more than width
    rows,  # of a program
    out_ptr,  # (maps, height, width, C)
    C: tl.constexpr,
    EXPERTS: tl.constexpr,
    MAPPER: tl.constexpr,
    HIDDEN: tl.constexpr,  # MAPPER or more, a power of two that tl.dot takes
    BLOCK_M: tl.constexpr,
    COLUMNS: tl.constexpr,
    BLOCK_K: tl.constexpr,
    PRECISION: tl.constexpr,
):
    BLOCK_C: tl.constexpr = COLUMNS // EXPERTS
    BLOCKS: tl.constexpr = C // BLOCK_C
    dtype: tl.constexpr = out_ptr.dtype.element_ty
    block = tl.program_id(0) % BLOCKS
    image, x, pixel, owned = _positions(tl.program_id(0) // BLOCKS, maps, width, lanes, BLOCK_M)
    top = tl.program_id(1) * rows
    end = tl.minimum(top + rows, height)
    channel = block * BLOCK_C + tl.arange(0, BLOCK_C)
    n = tl.arange(0, COLUMNS)
    column = (n // BLOCK_C) * C + block * BLOCK_C + n % BLOCK_C
    vectors_ptr += block * 21 * COLUMNS
    k = tl.arange(0, BLOCK_K)
    hidden_row = tl.minimum(tl.arange(0, HIDDEN), MAPPER - 1)  # what is too many, `_shares` leaves out

    above = tl.zeros((BLOCK_M, COLUMNS), tl.float32)
    here = tl.zeros((BLOCK_M, COLUMNS), tl.float32)
    share = tl.zeros((BLOCK_M, EXPERTS), tl.float32)
    linear = tl.zeros((BLOCK_M, BLOCK_C), tl.float32)
    for y in range(tl.maximum(top - 1, 0), end + 1):
        # the streams of row y times the four weights
        at = ((image * height + y) * width + x) * C
        read = pixel & (y < height)
        even = tl.zeros((BLOCK_M, COLUMNS), tl.float32)
        odd = tl.zeros((BLOCK_M, COLUMNS), tl.float32)
        hidden = tl.zeros((BLOCK_M, HIDDEN), tl.float32)
        next_linear = tl.zeros((BLOCK_M, BLOCK_C), tl.float32)
        for start in range(0, C, BLOCK_K):
            place = at[:, None] + (start + k)[None, :]
            for HALF in tl.static_range(2):
                stream_ptr = spatial_ptr if HALF == 0 else semantic_ptr
                u = tl.load(stream_ptr + place, mask=read[:, None], other=0.0)
                w = HALF * C + start + k
                even = _add_product(even, u, parse_even_ptr, column, w, C, PRECISION)
                odd = _add_product(odd, u, parse_odd_ptr, column, w, C, PRECISION)
                hidden = _add_product(hidden, u, mapper_ptr, hidden_row, w, C, PRECISION)
                next_linear = _add_product(next_linear, u, residual_ptr, channel, w, C, PRECISION)
        # the experts' shares and the residual of row y
        hidden = tl.maximum(hidden + tl.load(mapper_bias_ptr + hidden_row).to(tl.float32)[None, :], 0.0)
        next_share = _shares(hidden, coefficients_ptr, coefficients_bias_ptr, MAPPER, EXPERTS, PRECISION)
        next_linear += _vector(residual_bias_ptr + block * BLOCK_C, 0, BLOCK_C)
        # the 3 x 3: what row y adds to rows y + 1, y and y - 1, and that finishes row y - 1
        inside = read.to(tl.float32)[:, None]
        even = (_gelu(even + _vector(vectors_ptr, 19, COLUMNS)) * inside).to(dtype)
        odd = (_gelu(odd + _vector(vectors_ptr, 20, COLUMNS)) * inside).to(dtype)
        left, centre, right = _beside_both(even, odd, BLOCK_M)
        sums = (above, here, tl.zeros((BLOCK_M, COLUMNS), tl.float32))
        sums = _add_taps(sums, left, vectors_ptr, 0, COLUMNS)
        sums = _add_taps(sums, centre, vectors_ptr, 1, COLUMNS)
        done, above, here = _add_taps(sums, right, vectors_ptr, 2, COLUMNS)
        # row y - 1: the experts, weighted and added
        parsed = tl.reshape(_gelu(done + _vector(vectors_ptr, 18, COLUMNS)), (BLOCK_M, EXPERTS, BLOCK_C))
        mixed = tl.sum(parsed * share[:, :, None], axis=1) + linear
        place = (at - width * C)[:, None] + channel[None, :]
        tl.store(out_ptr + place, mixed.to(dtype), mask=(owned & (y > top))[:, None])
        share = next_share
        linear = next_linear


def launch(spatial: Tensor, semantic: Tensor, weights: Weights, out: Tensor, rows: int | None = None) -> None:
    """Fills out, contiguous, with the kernel; arguments as `expert_mix` checked them, `rows` of a program if given."""
    (B, T, H, W, C), w, dtype = spatial.shape, weights, dtype_name(spatial)
    point = tuning_point(NAME, architecture(spatial), dtype)
    experts, mapper = w.coefficients.shape
    settings = constexprs_for(C, experts, mapper, dtype, point)
    groups, lanes = groups_of(B * T, W, settings["BLOCK_M"])
    programs = groups * C * experts // settings["COLUMNS"]
    rows = rows or _rows(programs, H, spatial)
    tensors = (spatial, semantic, w.parse_even, w.parse_odd, pack_vectors(w, settings["COLUMNS"]), *w[7:])
    _expert_mix_kernel[programs, -(-H // rows)](*tensors, B * T, H, W, lanes, rows, out, **settings, **point.options)


def pack_vectors(w: Weights, columns: int) -> Tensor:
    """What the kernel reads per column, block by block: (blocks, 21, columns).

    Of each column nine taps of even, nine of odd, the biases of the 3 x 3, of even and of odd.
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
    """How many groups of maps there are (times segments of a row), and the lanes of a row."""
    lanes = W + 1 if block_m > W else block_m
    segments = 1 if block_m > W else -(-W // (block_m - 2))
    return -(-maps // (block_m // lanes)) * segments, lanes


def _rows(programs: int, H: int, tensor: Tensor) -> int:
    """Rows of a program: all, unless `programs` are too few for two on each multiprocessor."""
    processors = torch.cuda.get_device_properties(tensor.device).multi_processor_count if tensor.is_cuda else 0
    parts = min(-(-2 * processors // programs), H // MIN_ROWS)
    return -(-H // max(parts, 1))


def _compute(spatial: Tensor, semantic: Tensor, weights: Sequence[Tensor]) -> Tensor:
    out = torch.empty_like(spatial)
    launch(spatial, semantic, Weights(*weights), out)
    return out


def _empty(spatial: Tensor, semantic: Tensor, weights: Sequence[Tensor]) -> Tensor:
    return spatial.new_empty(spatial.shape)


_operator = operator(NAME, reference=expert_mix_reference, kernel=_compute, fake=_empty)


def expert_mix(spatial: Tensor, semantic: Tensor, weights: Weights) -> Tensor:
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
    for name, tensor, shape in zip(Weights._fields, weights, shapes, strict=True):
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


def variants(dtype: str, point: TuningPoint) -> list[Variant]:
    """What is compiled ahead of time: C = 128 and four experts, any B, T, H and W."""
    C, experts, mapper = 128, 4, 32
    settings = constexprs_for(C, experts, mapper, dtype, point)
    names = _expert_mix_kernel.arguments
    signature = {name: f"*{dtype}" if name.endswith("_ptr") else "i32" for name in names}
    groups = f"cdiv(maps, {settings['BLOCK_M']} / lanes)"  # with rows shorter than BLOCK_M
    grid = f"{groups} * {C * experts // settings['COLUMNS']}, cdiv(height, rows)"
    return [Variant(f"{NAME}_{dtype}", _expert_mix_kernel, signature, settings, grid, point)]
