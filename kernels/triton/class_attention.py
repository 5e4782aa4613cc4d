"""Kernel and launch of the class attention; `pcaseg.kernels.class_attention` says what it computes, and how."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from pcaseg.kernels.aot import Variant
from pcaseg.kernels.class_attention import NAME, constexprs_for
from pcaseg.kernels.registry import architecture, dtype_name
from pcaseg.kernels.tuning import TuningPoint, tuning_point


@triton.jit
def _statistics(rows_ptr, valid, C: tl.constexpr):
    """Mean and reciprocal deviation of LayerNorm, (BLOCK_T, 1) float32, of rows of C numbers."""
    z = tl.load(rows_ptr + tl.arange(0, C)[None, :], mask=valid, other=0.0).to(tl.float32)
    mean = tl.sum(z, axis=1)[:, None] / C
    return mean, 1 / tl.sqrt(tl.sum((z - mean) * (z - mean), axis=1)[:, None] / C + 1e-5)


@triton.jit
def _phi(x):
    """elu + 1."""
    return tl.where(x > 0, x + 1, tl.exp(tl.minimum(x, 0.0)))


@triton.jit
def _project(
    rows_ptr, valid, mean, scale, weight_ptr, c, C: tl.constexpr, BLOCK_K: tl.constexpr, PRECISION: tl.constexpr
):
    """Normalised rows times the outputs c of a weight of `F.linear`, BLOCK_K inputs at a time: (BLOCK_T, BLOCK_C)."""
    result = tl.zeros((mean.shape[0], c.shape[0]), tl.float32)
    for start in range(0, C, BLOCK_K):
        k = start + tl.arange(0, BLOCK_K)
        weight = tl.load(weight_ptr + c[None, :] * C + k[:, None])
        z = tl.load(rows_ptr + k[None, :], mask=valid, other=0.0).to(tl.float32)
        result = tl.dot(((z - mean) * scale).to(weight.dtype), weight, acc=result, input_precision=PRECISION)
    return result


@triton.jit(do_not_specialize=["T", "N", "share_step"])
def _class_attention_kernel(
    z_ptr,  # (B, T, N, C)
    share_ptr,  # (1 or B, T, 2C)
    q_ptr,  # (C, C)
    k_ptr,  # (C, C)
    v_ptr,  # (C, C)
    v_bias_ptr,  # (C)
    pad_matrix_ptr,  # (C / HEAD, HEAD, HEAD) float32
    pad_normaliser_ptr,  # (C) float32
    T,
    N,
    share_step,  # rows from one image's shares to the next's: T, or 0 where all images share them
    out_ptr,  # (B, T, N, C)
    C: tl.constexpr,
    HEAD: tl.constexpr,
    CLASSES: tl.constexpr,  # with the padding
    BLOCK_T: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_K: tl.constexpr,
    PRECISION: tl.constexpr,
):
    position, b = tl.program_id(1), tl.program_id(2).to(tl.int64)
    dtype = z_ptr.dtype.element_ty
    c, block = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C), tl.arange(0, BLOCK_T).to(tl.int64)[:, None]
    z_ptr += (b * T * N + position) * C
    out_ptr += (b * T * N + position) * C
    share_ptr += b * share_step * (2 * C) + c[None, :]

    matrix = tl.zeros((BLOCK_C, BLOCK_C), tl.float32)
    normaliser = tl.zeros((BLOCK_C,), tl.float32)
    for start in range(0, T, BLOCK_T):
        t = start + block
        rows, valid = z_ptr + t * (N * C), t < T
        mean, scale = _statistics(rows, valid, C)
        share = tl.load(share_ptr + t * (2 * C) + C, mask=valid, other=0.0).to(tl.float32)
        k = tl.where(valid, _phi(_project(rows, valid, mean, scale, k_ptr, c, C, BLOCK_K, PRECISION) + share), 0.0)
        v = _project(rows, valid, mean, scale, v_ptr, c, C, BLOCK_K, PRECISION)
        v += tl.load(v_bias_ptr + c).to(tl.float32)[None, :]
        matrix = tl.dot(tl.trans(k.to(dtype)), v.to(dtype), acc=matrix, input_precision=PRECISION)
        normaliser += tl.sum(k, axis=0)

    same_head = c[:, None] // HEAD == c[None, :] // HEAD
    pad = tl.load(pad_matrix_ptr + c[:, None] * HEAD + c[None, :] % HEAD, mask=same_head, other=0.0)
    matrix = tl.where(same_head, (matrix + (CLASSES - T) * pad) / CLASSES, 0.0).to(dtype)
    normaliser = (normaliser + (CLASSES - T) * tl.load(pad_normaliser_ptr + c)) / CLASSES

    for start in range(0, T, BLOCK_T):
        t = start + block
        rows, valid = z_ptr + t * (N * C), t < T
        mean, scale = _statistics(rows, valid, C)
        share = tl.load(share_ptr + t * (2 * C), mask=valid, other=0.0).to(tl.float32)
        q = _phi(_project(rows, valid, mean, scale, q_ptr, c, C, BLOCK_K, PRECISION) + share)
        weights = tl.reshape(q * normaliser[None, :], (BLOCK_T, BLOCK_C // HEAD, HEAD))
        weights = tl.sum(weights, axis=2)[:, :, None] + 1e-6 / CLASSES
        attended = tl.dot(q.to(dtype), matrix, input_precision=PRECISION)
        attended = tl.reshape(tl.reshape(attended, (BLOCK_T, BLOCK_C // HEAD, HEAD)) / weights, (BLOCK_T, BLOCK_C))
        z = tl.load(rows + c[None, :], mask=valid, other=0.0).to(tl.float32)
        tl.store(out_ptr + t * (N * C) + c[None, :], (z + attended).to(dtype), mask=valid)


def launch(arguments: tuple[Tensor, ...], out: Tensor) -> None:
    """Fills out, (B, T, N, C) contiguous, with the kernel; arguments as `class_attention` checked them."""
    z, share = arguments[:2]
    B, T, N, C = z.shape
    dtype = dtype_name(z)
    point = tuning_point(NAME, architecture(z), dtype)
    constexprs = constexprs_for(point, C, arguments[-1].shape[0], dtype)
    share_step = T if share.shape[0] > 1 else 0
    _class_attention_kernel[C // constexprs["BLOCK_C"], N, B](
        *arguments, T, N, share_step, out, **constexprs, **point.options
    )


def variants(dtype: str, point: TuningPoint) -> list[Variant]:
    """Variants to compile ahead of time: C = 128, 4 heads."""
    signature = {f"{name}_ptr": f"*{dtype}" for name in ("z", "share", "q", "k", "v", "v_bias")}
    signature |= {"pad_matrix_ptr": "*fp32", "pad_normaliser_ptr": "*fp32"}
    signature |= {"T": "i32", "N": "i32", "share_step": "i32", "out_ptr": f"*{dtype}"}
    constexprs = constexprs_for(point, 128, 4, dtype)
    grid = f"{128 // constexprs['BLOCK_C']}, N, B"
    return [Variant(f"{NAME}_{dtype}", _class_attention_kernel, signature, constexprs, grid, point)]
