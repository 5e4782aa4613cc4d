"""Cost volume and its 7 x 7 embedding in one pass: the volume and its patches never reach memory.

    corr[b, t, p, y, x] = <f[b, y, x] / |f|, e[t, p] / |e|>, out[b, t, y, x] = bias + conv7(corr[b, t], weight)

Tiling. A program makes BLOCK_M consecutive pixels (row-major) of CLASSES classes of one image. The 7 x 7 around them
reads from 3 W + 3 pixels before the first to as many after the last: a span of consecutive pixels again, at most SPAN.
The program (1) multiplies ROWS texts (classes times prompts) with the span's features, in float32, and scales by both
norms: corr, (ROWS, SPAN), which stays in registers and shared memory; (2) for each text gathers the patches
(BLOCK_M, 49 padded to 64) from that row of corr and multiplies them with the weights (64, C); what lies outside the
grid is gathered from the span's last column, which is zero. Prompts add up in one accumulator, so that one loop
serves P = 1 and P = 80.

Cost. Memory: features, texts and weights once (their repeated reads hit the L2 cache), the output once: see
`bytes_moved`. It is the output that counts: 111 of 114 MB at T = 150, B = 5, P = 1 in 16 bits. Operations:
D multiply-adds per pixel and text and 49 C per pixel, class and prompt, see `operations`; the kernel does
SPAN / BLOCK_M times the former and 64 / 49 times the latter.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pcaseg.errors import PcasegError
from pcaseg.kernels import registry
from pcaseg.kernels.tuning import TuningPoint

NAME = "cost_volume"
TAPS = 64
"""49 taps of the 7 x 7, padded to what matrix units take."""

CLASSES_ON_CPU = 16
"""Classes that a CPU embeds at a time: their maps then stay in its caches, and never exist twice."""


def cost_volume_reference(features: Tensor, text: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The definition; the cosines are float32 at least, the embedding is in the weights' dtype.

    Args:
        features: (B, H, W, D) float.
        text: (T, P, D) or, for each image, (B, T, P, D) float; neither needs unit norm.
        weight: (C, P, 7, 7) float. bias: (C) float.

    Returns:
        (B, T, H, W, C) in the weights' dtype.
    """
    B, H, W, _ = features.shape
    T, P = text.shape[-3:-1]
    wide = torch.promote_types(features.dtype, torch.float32)
    pixels = F.normalize(features.to(wide).permute(0, 3, 1, 2), dim=1).flatten(2)
    texts = F.normalize(text.to(wide), dim=-1)
    texts = texts[None].expand(B, -1, -1, -1) if texts.dim() == 3 else texts
    texts = texts.transpose(1, 2).flatten(1, 2)
    maps = (texts @ pixels).reshape(B, P, T, H, W).transpose(1, 2).to(weight.dtype)
    embedded = F.conv2d(maps.flatten(0, 1), weight, bias, padding=3)
    return embedded.permute(0, 2, 3, 1).unflatten(0, (B, T))


def constexprs_for(point: TuningPoint, W: int, D: int, C: int, P: int, dtype: str) -> dict[str, Any]:
    """All constexprs of the kernel on maps of width W."""
    block = point.constexprs
    span = 1 << (block["BLOCK_M"] + 6 * W + 6).bit_length()  # one more than is read: the last column is zero
    classes = max(1, block["ROWS"] // P)
    precision = "tf32x3" if dtype == "fp32" else "ieee"
    return {
        **block,
        "D": D,
        "C": C,
        "PROMPTS": P,
        "CLASSES": classes,
        "SPAN": span,
        "TAPS": TAPS,
        "PRECISION": precision,
    }


def _compute(features: Tensor, text: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    from pcaseg.kernels.triton.cost_volume import launch

    out = _empty(features, text, weight, bias)
    launch(features, text, weight, bias, out)
    return out


def _empty(features: Tensor, text: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    B, H, W, _ = features.shape
    return weight.new_empty(B, text.shape[-3], H, W, weight.shape[0])


def _in_chunks(features: Tensor, text: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    out = _empty(features, text, weight, bias)
    for start in range(0, out.shape[1], CLASSES_ON_CPU):
        part = slice(start, start + CLASSES_ON_CPU)
        out[:, part] = cost_volume_reference(features, text[..., part, :, :], weight, bias)
    return out


_operator = registry.operator(NAME, reference=cost_volume_reference, kernel=_compute, fake=_empty, cpu=_in_chunks)


def cost_volume(features: Tensor, text: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Cosines of every pixel with every text, embedded; see `cost_volume_reference` for arguments and result.

    On CUDA all are of one dtype, but the text may be float32 with any; C is a power of two, 16 at least.

    Raises:
        PcasegError: a shape or dtype that does not fit, or a tensor that is not contiguous.
    """
    B, _, _, D = features.shape if features.dim() == 4 else (None,) * 4
    C, P = weight.shape[:2]
    registry.check_tensor("features", features, (B, None, None, D))
    registry.check_tensor("text", text, (*((B,) if text.dim() == 4 else ()), None, P, D))
    registry.check_tensor("weight", weight, (C, P, 7, 7))
    registry.check_tensor("bias", bias, (C,), like=weight)
    if registry.path_for(features) == "triton":
        registry.check_tensor("features", features, (B, None, None, D), like=weight)
        if text.dtype not in (features.dtype, torch.float32) or text.device != features.device:
            raise PcasegError(f"text is {text.dtype} on {text.device}; give {features.dtype} on {features.device}")
        if C < 16 or C & (C - 1):
            raise PcasegError(f"C={C}: the kernel takes powers of two from 16 on")
    return _operator(features, text, weight, bias)


def bytes_moved(B: int, T: int, P: int, D: int, H: int, W: int, C: int, itemsize: int) -> int:
    """Device memory that must be read or written once."""
    return itemsize * (B * H * W * D + T * P * D + 49 * C * P + C + B * T * H * W * C)


def operations(B: int, T: int, P: int, D: int, H: int, W: int, C: int) -> int:
    """Floating-point operations, two per multiply-add."""
    return 2 * B * T * P * H * W * (D + 49 * C)
