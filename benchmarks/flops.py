"""Multiply-adds of the aggregator, published and folded, by formula and by counter.

The formulas follow the layers one by one; `tests/test_flops.py` holds them against PyTorch's counter, to the last one.
Sums, norms and activations count nothing, as usual.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from pcaseg.configs import Preset
from pcaseg.deploy.spatial import rectangles
from pcaseg.kernels.registry import plain_operators
from pcaseg.model.epl import EXPERTS
from pcaseg.model.network import PCASeg

MLP_RATIO = 4


def published_macs(preset: Preset, T: int) -> int:
    """Multiply-adds of the published aggregator for one image, T at most 256, parallel aggregation."""
    C, HW = preset.hidden, preset.grid**2
    mlp = 2 * MLP_RATIO * C * C
    block = 4 * C * C + 2 * C * C + mlp  # q and k of cat(x, guidance), v, projection
    spatial = HW * (2 * block + 2 * 2 * preset.window**2 * C)
    d = C // preset.heads
    semantic = HW * (4 * C * C + C * C + mlp + 2 * C * d + C)
    epl = HW * (2 * C * C + EXPERTS * (4 * C * C + 9 * 2 * C) + _mapper(C) + 2 * C * C)
    half = T * (spatial + epl) + (preset.class_padding or T) * semantic
    text = T * preset.embed_dim * C
    return _frame(preset, T) + text + 2 * preset.layers * half + T * _published_decoder(preset)


def folded_macs(preset: Preset, T: int) -> int:
    """Multiply-adds of the folded aggregator for one image whose vocabulary is prepared."""
    C, HW = preset.hidden, preset.grid**2
    grid = (preset.grid, preset.grid)
    mlp = 2 * MLP_RATIO * C * C
    spatial, guidance = 0, 0
    for shift in (0, preset.window // 2):
        products = sum(count * area**2 for count, area in rectangles(grid, preset.window, shift)[1])
        spatial += HW * (4 * C * C + mlp) + 2 * products * C
        guidance += HW * 2 * C * C
    d = C // preset.heads
    semantic = HW * (3 * C * C + mlp + 2 * C * d + C)
    epl = HW * (2 * C * (EXPERTS * 2 * C + C) + EXPERTS * 9 * 2 * C + EXPERTS * C + _mapper(C))
    decoder, decoder_guidance = _folded_decoder(preset)
    per_class = 2 * preset.layers * (spatial + semantic + epl) + decoder
    return _frame(preset, T) + 2 * preset.layers * guidance + decoder_guidance + T * per_class


def counted_macs(call: Callable[[], Any]) -> int:
    """Multiply-adds of a call, as PyTorch counts them: half its floating-point operations."""
    with plain_operators(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter, torch.no_grad():
        call()
    return counter.get_total_flops() // 2


def _frame(preset: Preset, T: int) -> int:
    """Multiply-adds that both do alike: guidance of one image, cost volume and its embedding."""
    C, HW, D = preset.hidden, preset.grid**2, preset.embed_dim
    taps = sum(
        scale**2 * HW * 9 * width * reduced
        for scale, width, reduced in zip((2, 4), preset.tap_widths, preset.decoder_guidance_widths, strict=True)
    )
    return HW * 9 * D * C + taps + T * preset.prompts * HW * (D + 49 * C)


def _mapper(C: int) -> int:
    return 2 * C * (C // 4) + C // 4 * EXPERTS


def _published_decoder(preset: Preset) -> int:
    total, channels, pixels = 0, preset.hidden, preset.grid**2
    for width, guidance in zip(preset.decoder_widths, preset.decoder_guidance_widths, strict=True):
        middle = channels - guidance
        total += pixels * 4 * channels * middle
        pixels *= 4
        total += pixels * 9 * (channels * width + width * width)
        channels = width
    return total + pixels * 9 * channels


def _folded_decoder(preset: Preset) -> tuple[int, int]:
    """Per class, and once per image for the guidance."""
    total, once, channels, pixels = 0, 0, preset.hidden, preset.grid**2
    for width, guidance in zip(preset.decoder_widths, preset.decoder_guidance_widths, strict=True):
        total += pixels * 16 * channels * width
        pixels *= 4
        total += pixels * 9 * width * width
        once += pixels * 9 * guidance * width
        channels = width
    return total + pixels * 9 * channels, once


def encoder_macs(model: PCASeg) -> int:
    """Multiply-adds of the image tower and the taps for one network input, counted."""
    R = model.preset.image_px
    images = torch.zeros(1, 3, R, R, device=model.pixel_mean.device)
    return counted_macs(lambda: model.encode_image(images))
