"""Kernel and launch of the expert mixing; `pcaseg.kernels.expert_mix` says what it computes, and how."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from pcaseg.kernels.aot import Variant, arguments_of
from pcaseg.kernels.expert_mix import MIN_ROWS, NAME, ExpertWeights, constexprs_for, groups_of, pack_vectors
from pcaseg.kernels.registry import architecture, dtype_name
from pcaseg.kernels.tuning import TuningPoint, tuning_point


@triton.jit
def _gelu(x):
    """relu(x) - |x| Phi(-|x|), with log2 Phi(-a) as a polynomial: within 5e-7 of the erf form, in 9 instructions."""
    size = tl.abs(x)
    power = -0.0004733092 * size + 0.007084556
    power = power * size - 0.05182738
    power = power * size - 0.45999244
    power = power * size - 1.1507878
    power = power * size - 1.0000377
    return tl.maximum(x, 0.0) - size * tl.exp2(power)


@triton.jit
def _positions(group, maps, width, lanes, BLOCK_M: tl.constexpr):
    """Map and column of each lane, whether it is a pixel of its map, and whether this program writes it."""
    m = tl.arange(0, BLOCK_M)
    strips = BLOCK_M // lanes
    halo = (lanes <= width).to(tl.int32)  # then there is one strip, of all lanes
    segments = halo * (tl.cdiv(width, tl.maximum(lanes - 2, 1)) - 1) + 1
    image = (group // segments) * strips + m // lanes
    x = (group % segments) * (lanes - 2) + m % lanes - halo
    pixel = (m // lanes < strips) & (image < maps) & (x >= 0) & (x < width)
    owned = (halo == 0) | ((m > 0) & (m < lanes - 1))
    return image.to(tl.int64), x, pixel, pixel & owned


@triton.jit
def _vector(vector_ptr, INDEX: tl.constexpr, LENGTH: tl.constexpr):
    """(1, LENGTH) float32: number INDEX of vectors that follow each other."""
    return tl.load(vector_ptr + INDEX * LENGTH + tl.arange(0, LENGTH)).to(tl.float32)[None, :]


@triton.jit
def _add_product(sums, u, weight_ptr, rows, columns, C: tl.constexpr, PRECISION: tl.constexpr):
    """Adds u times the given rows and columns of a weight (., 2C)."""
    weight = tl.load(weight_ptr + rows[None, :] * (2 * C) + columns[:, None])
    return tl.dot(u, weight, sums, input_precision=PRECISION)


@triton.jit
def _shares(hidden, coefficients_ptr, bias_ptr, MAPPER: tl.constexpr, EXPERTS: tl.constexpr, PRECISION: tl.constexpr):
    """Softmax over the experts: (M, HIDDEN), of which MAPPER count -> (M, EXPERTS) float32."""
    h = tl.arange(0, hidden.shape[1])
    at = tl.arange(0, EXPERTS)[None, :] * MAPPER + h[:, None]
    weight = tl.load(coefficients_ptr + at, mask=(h < MAPPER)[:, None], other=0.0)
    score = tl.dot(hidden.to(weight.dtype), weight, input_precision=PRECISION) + _vector(bias_ptr, 0, EXPERTS)
    score = tl.exp(score - tl.max(score, axis=1)[:, None])
    return score / tl.sum(score, axis=1)[:, None]


@triton.jit
def _row(values, BLOCK_M: tl.constexpr):
    """(M / 4, N, 2, 2) -> (M, N)."""
    return tl.reshape(tl.permute(values, (0, 2, 3, 1)), (BLOCK_M, values.shape[1]))


@triton.jit
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


@triton.jit
def _unpack(pairs, dtype: tl.constexpr):
    """The two 16-bit numbers of each int32; bfloat16 is the upper half of float32."""
    if dtype == tl.bfloat16:
        return (pairs << 16).to(tl.float32, bitcast=True), (pairs & -65536).to(tl.float32, bitcast=True)
    else:
        low, high = (pairs & 0xFFFF).to(tl.int16), (pairs >> 16).to(tl.int16)
        return low.to(dtype, bitcast=True), high.to(dtype, bitcast=True)


@triton.jit
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


@triton.jit
def _add_taps(sums, pair, vectors_ptr, TAP: tl.constexpr, COLUMNS: tl.constexpr):
    """Adds one column of the 3 x 3 to the sums of the rows above, here and below."""
    above, here, below = sums
    for part in tl.static_range(2):
        x = pair[part].to(tl.float32)
        below += x * _vector(vectors_ptr, 9 * part + TAP, COLUMNS)
        here += x * _vector(vectors_ptr, 9 * part + 3 + TAP, COLUMNS)
        above += x * _vector(vectors_ptr, 9 * part + 6 + TAP, COLUMNS)
    return above, here, below


@triton.jit(do_not_specialize=["maps", "height", "width", "lanes", "rows"])
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


def launch(spatial: Tensor, semantic: Tensor, weights: ExpertWeights, out: Tensor, rows: int | None = None) -> None:
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


def _rows(programs: int, H: int, tensor: Tensor) -> int:
    """Rows of a program: all, unless `programs` are too few for two on each multiprocessor."""
    processors = torch.cuda.get_device_properties(tensor.device).multi_processor_count if tensor.is_cuda else 0
    parts = min(-(-2 * processors // programs), H // MIN_ROWS)
    return -(-H // max(parts, 1))


def variants(dtype: str, point: TuningPoint) -> list[Variant]:
    """Variants to compile ahead of time: C = 128 and four experts, any B, T, H and W."""
    C, experts, mapper = 128, 4, 32
    settings = constexprs_for(C, experts, mapper, dtype, point)
    names = arguments_of(_expert_mix_kernel)
    signature = {name: f"*{dtype}" if name.endswith("_ptr") else "i32" for name in names}
    groups = f"cdiv(maps, {settings['BLOCK_M']} / lanes)"  # with rows shorter than BLOCK_M
    grid = f"{groups} * {C * experts // settings['COLUMNS']}, cdiv(height, rows)"
    return [Variant(f"{NAME}_{dtype}", _expert_mix_kernel, signature, settings, grid, point)]
