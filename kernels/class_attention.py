"""Linear attention over classes, at each position alone, with guidance and the padding to 256 classes as constants.

    n = norm(z), q = phi(n Wq + gq[t]), k = phi(n Wk + gk[t]), v = n Wv + bv, phi = elu + 1, for each head:
    S = sum over t of k[t]^T v[t] + (256 - T) S0, s = sum over t of k[t] + (256 - T) s0
    out[t] = z[t] + q[t] S / (q[t] . s + 1e-6)

Tiling. A program makes one position of one image, for BLOCK_C channels (one or more heads) of its result: the sequence
of T classes, BLOCK_T at a time. A first pass over the classes accumulates S and s in float32, a second one computes q
and the output. The projections read all C channels, BLOCK_K at a time. The program's heads share one (BLOCK_C, BLOCK_C)
accumulator, of which only the blocks on the diagonal are kept, where both channels are of one head. S and s are divided
by 256 before S is rounded for the second product, so that float16 cannot overflow; the quotient stays.

Cost. Memory: the sequence is read and written once. A position's classes (C numbers each, 38 kB at T = 150 in 16 bits)
lie in the L2 cache when the second pass and the neighbouring programs, which make the other channels of the same
position, read them. See `bytes_moved`: 221 MB at T = 150, B = 5 in 16 bits. Operations: 3 C + 2 C / heads multiply-adds
per number of the sequence are needed, 3 C + 2 BLOCK_C done: see `operations`. The three weights, C x C each, are read
by every position's programs, from the L2 cache.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pcaseg.configs import MAX_CLASSES
from pcaseg.errors import PcasegError
from pcaseg.kernels import registry
from pcaseg.kernels.tuning import TuningPoint

NAME = "class_attention"
NORMALISER_EPS = 1e-6
LAYER_NORM_EPS = 1e-5

Sums = tuple[Tensor, Tensor]
"""S / s of some classes: (B, N, h, d, d) and (B, N, h, d), float32 at least."""


def class_attention_reference(
    z: Tensor,
    share: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    v_bias: Tensor,
    pad_matrix: Tensor,
    pad_normaliser: Tensor,
) -> Tensor:
    """The definition.

    Args:
        z: (B, T, N, C) float, T at most 256.
        share: (B or 1, T, 2C) float: what each class's text adds to q and k.
        q, k, v: (C, C) float, as `F.linear` takes them, of the normalised z. v_bias: (C) float.
        pad_matrix, pad_normaliser: (h, d, d) and (h, d) float32 or float64: S0 and s0 of one padding token.

    Returns:
        (B, T, N, C), z plus what it attends to.
    """
    heads, padding = pad_normaliser.shape[0], MAX_CLASSES - z.shape[1]
    matrix, normaliser = class_sums(z, share, k, v, v_bias, heads)
    return attend(z, share, q, (matrix + padding * pad_matrix, normaliser + padding * pad_normaliser))


def class_sums(z: Tensor, share: Tensor, k: Tensor, v: Tensor, v_bias: Tensor, heads: int) -> Sums:
    """The first pass, over any chunk of classes, without padding."""
    C = z.shape[-1]
    n = F.layer_norm(z, (C,))
    keys = _heads(F.elu(F.linear(n, k) + share[:, :, None, C:]) + 1, heads)
    values = _heads(F.linear(n, v, v_bias), heads)
    return keys.transpose(-1, -2) @ values, keys.sum(dim=3)


def attend(z: Tensor, share: Tensor, q: Tensor, sums: Sums) -> Tensor:
    """The second pass, over any chunk of classes, with the sums over all classes and the padding."""
    C, (matrix, normaliser) = z.shape[-1], sums
    queries = _heads(F.elu(F.linear(F.layer_norm(z, (C,)), q) + share[:, :, None, :C]) + 1, normaliser.shape[2])
    divisor = queries @ normaliser[..., None] + NORMALISER_EPS
    attended = (queries @ matrix) / divisor
    return z + attended.to(z.dtype).permute(0, 3, 1, 2, 4).flatten(3)


def _heads(t: Tensor, heads: int) -> Tensor:
    """(B, T, N, C) -> (B, N, h, T, d) in float32 at least: sums over classes grow."""
    t = t.unflatten(-1, (heads, -1)).permute(0, 2, 3, 1, 4)
    return t.to(torch.promote_types(t.dtype, torch.float32))


def constexprs_for(point: TuningPoint, C: int, heads: int, dtype: str) -> dict[str, Any]:
    """All constexprs of the kernel."""
    precision = "tf32x3" if dtype == "fp32" else "ieee"
    block = {name: min(value, C) if name != "BLOCK_T" else value for name, value in point.constexprs.items()}
    block["BLOCK_C"] = max(block["BLOCK_C"], C // heads)
    return {**block, "C": C, "HEAD": C // heads, "CLASSES": MAX_CLASSES, "PRECISION": precision}


def _compute(*arguments: Tensor) -> Tensor:
    from pcaseg.kernels.triton.class_attention import launch

    out = _empty(*arguments)
    launch(arguments, out)
    return out


def _empty(*arguments: Tensor) -> Tensor:
    return torch.empty_like(arguments[0], memory_format=torch.contiguous_format)


_operator = registry.operator(NAME, reference=class_attention_reference, kernel=_compute, fake=_empty)


def class_attention(
    z: Tensor,
    share: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    v_bias: Tensor,
    pad_matrix: Tensor,
    pad_normaliser: Tensor,
) -> Tensor:
    """Attention over classes; see `class_attention_reference` for arguments and result.

    Raises:
        PcasegError: a shape or dtype that does not fit, or a tensor that is not contiguous.
    """
    registry.check_tensor("z", z, (None, None, None, None))
    B, T, _, C = z.shape
    registry.check_tensor("share", share, (share.shape[0], T, 2 * C), like=z)
    if share.shape[0] not in (1, B):
        raise PcasegError(f"share is of {share.shape[0]} images; give 1 or {B}")
    if T > MAX_CLASSES:
        raise PcasegError(f"T={T}: at most {MAX_CLASSES} classes attend to each other")
    for name, weight in (("q", q), ("k", k), ("v", v)):
        registry.check_tensor(name, weight, (C, C), like=z)
    registry.check_tensor("v_bias", v_bias, (C,), like=z)
    heads = pad_normaliser.shape[0]
    registry.check_tensor("pad_matrix", pad_matrix, (heads, C // heads, C // heads))
    registry.check_tensor("pad_normaliser", pad_normaliser, (heads, C // heads), like=pad_matrix)
    if registry.path_for(z) == "triton":
        if pad_matrix.dtype != torch.float32 or pad_matrix.device != z.device:
            raise PcasegError(f"pad_matrix is {pad_matrix.dtype} on {pad_matrix.device}; give float32 on {z.device}")
        if C < 16 or C & (C - 1) or heads & (heads - 1):
            raise PcasegError(f"C={C}, heads={heads}: the kernel takes powers of two, C from 16 on")
    return _operator(z, share, q, k, v, v_bias, pad_matrix, pad_normaliser)


def bytes_moved(B: int, T: int, N: int, C: int, itemsize: int) -> int:
    """Device memory that must be read or written once, weights aside."""
    return itemsize * (2 * B * T * N * C + 2 * T * C)


def operations(B: int, T: int, N: int, C: int, heads: int) -> int:
    """Floating-point operations of the products that are needed, two per multiply-add."""
    return 2 * B * T * N * C * (3 * C + 2 * C // heads)
