"""The formulas of `benchmarks/flops.py` against PyTorch's counter, exactly."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from support import SMALL_EVA, small_model
from torch import Tensor

import pcaseg
from pcaseg.benchmarks.flops import counted_macs, folded_macs, published_macs


@pytest.mark.parametrize("T", [1, 5, 60, 256])
def test_formulas_agree_with_the_counter(T):
    model = small_model(SMALL_EVA)
    preset, folded = model.preset, pcaseg.fold(model)
    with torch.no_grad():
        features, guidance = model.encode_image(torch.rand(1, 3, preset.image_px, preset.image_px) * 255)
    text: Tensor = F.normalize(torch.randn(T, 1, preset.embed_dim), dim=-1)
    vocabulary = folded.prepare_vocabulary(text)
    assert counted_macs(lambda: model.aggregator(features, text, guidance)) == published_macs(preset, T)
    assert counted_macs(lambda: folded.aggregator(features, vocabulary, guidance)) == folded_macs(preset, T)
