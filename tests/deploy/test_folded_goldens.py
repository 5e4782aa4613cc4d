"""The published model's own outputs, from the folded model."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support import assert_golden, published_state, seeded_input, seeded_weights

from pcaseg.class_lists import class_list
from pcaseg.deploy.network import FoldedPCASeg, fold
from pcaseg.model.checkpoint import load_model


@pytest.fixture(scope="module")
def folded() -> FoldedPCASeg:
    return fold(load_model("eva-b-384", published_state("eva_b")))


def aggregator_logits(model: FoldedPCASeg, B: int, T: int, pooling: tuple[int, int], chunk: int | None) -> torch.Tensor:
    guidance = (
        seeded_input(1003, B, 512, 24, 24),
        seeded_input(1004, B, 256, 48, 48),
        seeded_input(1005, B, 128, 96, 96),
    )
    features, text = seeded_input(1001, B, 512, 24, 24), seeded_input(1002, 1, T, 1, 512)[0]
    return model.aggregator(features, text, guidance, class_pooling=pooling, chunk=chunk)


@pytest.mark.parametrize("chunk", [None, 8])
@pytest.mark.parametrize(
    ("case", "B", "T", "pooling"),
    [
        ("a_agg_b_t1", 1, 1, (1, 1)),
        ("a_agg_b_t20", 1, 20, (1, 1)),
        ("a_agg_b_t20_pool2", 1, 20, (2, 2)),
        ("d_agg_b_t7_batch2_sametext", 2, 7, (1, 1)),
    ],
)
def test_parallel_aggregator(folded, case, B, T, pooling, chunk):
    assert_golden(case, "logits", aggregator_logits(folded, B, T, pooling, chunk))


def test_serial_aggregator():
    model = fold(load_model("openai-b-384", published_state("cat_b"), aggregation="serial"))
    assert_golden("cat_agg_b_t20", "logits", aggregator_logits(model, 1, 20, (1, 1), None))


@pytest.mark.parametrize(
    ("strategy", "case", "seed", "size"),
    [("single", "f_whole_b_384", 3001, (384, 384)), ("sliding", "g_whole_b_sliding_480x640", 3003, (480, 640))],
)
def test_whole_model(folded, strategy, case, seed, size):
    image = seeded_weights.seeded_image(seed, *size).transpose(1, 2, 0).astype(np.uint8)
    scores = folded.segment(image, folded.encode_text(class_list("voc_20")), strategy=strategy)
    assert_golden(case, "sem_seg", scores, tolerance=1e-5)
