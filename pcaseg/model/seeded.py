"""Weights drawn from a seed, for work before trained ones exist: real shapes and speed, meaningless labels.

Every tensor depends on its published name and the seed alone, so a model can be rebuilt anywhere to the bit.
Scales keep activations near one and no softmax saturated.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

_SCALES = (
    (r"res_scale$", 0.5, 0.1),
    (r"running_mean$", 0.0, 0.1),
    (r"padding_(tokens|guidance)$", 0.0, 0.5),
    (r"(cls_token|class_embedding|pos_embed)$", 0.0, 0.3),
    (r"token_embedding\.weight$", 0.0, 1.0),
    (r"positional_embedding$", 0.0, 0.1),
)
"""(published name, mean, standard deviation); what matches none follows `_scale_of`."""


def seeded_state(shapes: Mapping[str, tuple[int, ...]], seed: int, last_block: int) -> dict[str, Tensor]:
    """Draws every tensor.

    Args:
        shapes: shape by published name.
        seed: any integer from 0.
        last_block: index of the image tower's last block, whose unscaled attention wants small q and k.

    Returns:
        float32 tensors by published name.
    """
    state = {}
    for name, shape in shapes.items():
        generator = np.random.Generator(np.random.PCG64([seed, zlib.crc32(name.encode())]))
        noise = torch.from_numpy(np.asarray(generator.standard_normal(shape, dtype=np.float32)))
        if name.endswith("running_var"):
            state[name] = 1 + 0.2 * noise.abs()
            continue
        mean, scale = _scale_of(name, shape, last_block)
        state[name] = mean + scale * noise
    return state


def _scale_of(name: str, shape: tuple[int, ...], last_block: int) -> tuple[float, float]:
    for pattern, mean, scale in _SCALES:
        if re.search(pattern, name):
            return mean, scale
    if len(shape) <= 1:
        return (1.0, 0.1) if name.endswith(".weight") else (0.0, 0.05)
    if name.endswith(("text_projection", "visual.proj")) or re.search(r"(upsample\d|decoder\d\.up)\.weight$", name):
        return 0.0, 1 / math.sqrt(shape[0])
    gain = 1.0
    if re.search(rf"visual\.blocks\.{last_block}\.attn\.[qk]_proj\.weight$", name):
        gain = 0.3  # the dense attention has no scale of its own
    elif name.endswith("transformer.conv1.weight"):
        gain = 4.0  # cosines are near 0.05
    return 0.0, gain / math.sqrt(math.prod(shape[1:]))
