"""Kernel and launch of the cost volume; `pcaseg.kernels.cost_volume` says what it computes, and how."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from pcaseg.kernels.aot import Variant
from pcaseg.kernels.cost_volume import NAME, constexprs_for
from pcaseg.kernels.registry import architecture, dtype_name
from pcaseg.kernels.tuning import TuningPoint, tuning_point


@triton.jit
def _correlate(
    features_ptr,
    text_ptr,
    pixels,
    inside,
    rows,
    wanted,
    D: tl.constexpr,
    BLOCK_D: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Cosines (ROWS, SPAN), float32, of texts and pixels; zero where masked."""
    d = tl.arange(0, BLOCK_D)
    corr = tl.zeros((rows.shape[0], pixels.shape[0]), tl.float32)
    pixel_squares = tl.zeros((pixels.shape[0],), tl.float32)
    text_squares = tl.zeros((rows.shape[0],), tl.float32)
    for start in range(0, D, BLOCK_D):
        within = start + d < D
        f = tl.load(
            features_ptr + pixels[None, :] * D + (start + d)[:, None], mask=inside[None, :] & within[:, None], other=0.0
        )
        e = tl.load(
            text_ptr + rows[:, None] * D + (start + d)[None, :], mask=wanted[:, None] & within[None, :], other=0.0
        )
        corr = tl.dot(e.to(f.dtype), f, acc=corr, input_precision=PRECISION)
        pixel_squares += tl.sum(f.to(tl.float32) * f.to(tl.float32), axis=0)
        text_squares += tl.sum(e.to(tl.float32) * e.to(tl.float32), axis=1)
    corr = corr / tl.maximum(tl.sqrt(text_squares), 1e-12)[:, None]
    return corr / tl.maximum(tl.sqrt(pixel_squares), 1e-12)[None, :]


@triton.jit
def _patch_positions(start, H, W, BLOCK_M: tl.constexpr, SPAN: tl.constexpr, TAPS: tl.constexpr):
    """Positions of each pixel's taps in the span, (BLOCK_M, TAPS) int32; the last one for those outside the grid."""
    m, tap = tl.arange(0, BLOCK_M)[:, None], tl.arange(0, TAPS)[None, :]
    dy, dx = tap // 7, tap % 7
    y, x = (start + m) // W + dy - 3, (start + m) % W + dx - 3
    inside = (tap < 49) & (y >= 0) & (y < H) & (x >= 0) & (x < W)
    return tl.where(inside, m + dy * W + dx, SPAN - 1)


@triton.jit(do_not_specialize=["T", "H", "W", "text_step"])
def _cost_volume_kernel(
    features_ptr,  # (B, H, W, D)
    text_ptr,  # (1 or B, T, P, D)
    weight_ptr,  # (C, P, 7, 7)
    bias_ptr,  # (C)
    T,
    H,
    W,
    text_step,  # texts from one image's to the next's: T * P, or 0 where all images share them
    out_ptr,  # (B, T, H, W, C)
    D: tl.constexpr,
    C: tl.constexpr,
    PROMPTS: tl.constexpr,
    CLASSES: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK_M: tl.constexpr,
    SPAN: tl.constexpr,
    BLOCK_D: tl.constexpr,
    TAPS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    start, first_class, b = tl.program_id(0) * BLOCK_M, tl.program_id(1) * CLASSES, tl.program_id(2).to(tl.int64)
    features_ptr += b * H * W * D
    text_ptr += b * text_step * D
    dtype = features_ptr.dtype.element_ty

    column = tl.arange(0, SPAN)
    pixels = start - 3 * W - 3 + column
    inside = (pixels >= 0) & (pixels < H * W) & (column < SPAN - 1)
    positions = tl.reshape(_patch_positions(start, H, W, BLOCK_M, SPAN, TAPS), (BLOCK_M * TAPS,))

    tap, c, m = tl.arange(0, TAPS)[:, None], tl.arange(0, C)[None, :], start + tl.arange(0, BLOCK_M)[:, None]
    taps_ptr = weight_ptr + c * (PROMPTS * 49) + tap
    if PROMPTS == 1:
        only_weight = tl.load(taps_ptr, mask=tap < 49, other=0.0)
    bias = tl.load(bias_ptr + c).to(tl.float32)
    out = tl.zeros((BLOCK_M, C), tl.float32) + bias

    for tile in range(0, CLASSES * PROMPTS, ROWS):
        rows = first_class * PROMPTS + tile + tl.arange(0, ROWS)
        corr = _correlate(
            features_ptr, text_ptr, pixels, inside, rows.to(tl.int64), rows < T * PROMPTS, D, BLOCK_D, PRECISION
        )
        corr = tl.reshape(corr.to(dtype), (ROWS * SPAN,))
        for row in range(0, tl.minimum(ROWS, CLASSES * PROMPTS - tile)):
            t = first_class + (tile + row) // PROMPTS
            prompt = (tile + row) % PROMPTS
            weight = only_weight if PROMPTS == 1 else tl.load(taps_ptr + prompt * 49, mask=tap < 49, other=0.0)
            patches = tl.reshape(tl.gather(corr, positions + row * SPAN, axis=0), (BLOCK_M, TAPS))
            out = tl.dot(patches, weight, acc=out, input_precision=PRECISION)
            if prompt == PROMPTS - 1:
                target = ((b * T + t) * (H * W) + m) * C + c
                tl.store(out_ptr + target, out.to(dtype), mask=(m < H * W) & (t < T))
                out = tl.zeros((BLOCK_M, C), tl.float32) + bias


def launch(features: Tensor, text: Tensor, weight: Tensor, bias: Tensor, out: Tensor) -> None:
    """Fills out, (B, T, H, W, C) contiguous, with the kernel; arguments as `cost_volume` checked them."""
    B, T, H, W, C = out.shape
    P, D = text.shape[-2:]
    dtype = dtype_name(features)
    point = tuning_point(NAME, architecture(features), dtype)
    constexprs = constexprs_for(point, W, D, C, P, dtype)
    grid = (-(-H * W // constexprs["BLOCK_M"]), -(-T // constexprs["CLASSES"]), B)
    text_step = T * P if text.dim() == 4 else 0
    _cost_volume_kernel[grid](features, text, weight, bias, T, H, W, text_step, out, **constexprs, **point.options)


def variants(dtype: str, point: TuningPoint) -> list[Variant]:
    """Variants to compile ahead of time: `eva-b-384` with one prompt and with 80 per class."""
    signature = {name: f"*{dtype}" for name in ("features_ptr", "text_ptr", "weight_ptr", "bias_ptr")}
    signature |= {"T": "i32", "H": "i32", "W": "i32", "text_step": "i32", "out_ptr": f"*{dtype}"}
    found = []
    for P in (1, 80):
        constexprs = constexprs_for(point, 24, 512, 128, P, dtype)
        grid = f"cdiv(H * W, {constexprs['BLOCK_M']}), cdiv(T, {constexprs['CLASSES']}), B"
        found.append(Variant(f"{NAME}_p{P}_{dtype}", _cost_volume_kernel, signature, constexprs, grid, point))
    return found
