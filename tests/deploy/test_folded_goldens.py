"""The published model's own outputs, from the folded model."""

from __future__ import annotations

import numpy as np
import pytest
from support import AGGREGATOR_CASES, aggregator_inputs, assert_golden, seeded_weights

from pcaseg.class_lists import class_list
from pcaseg.deploy.folded import FoldedPCASeg, fold


@pytest.fixture(scope="module")
def folded(golden_model) -> FoldedPCASeg:
    return fold(golden_model("eva_b"))


@pytest.mark.parametrize("chunk", [None, pytest.param(8, marks=pytest.mark.long)])
@AGGREGATOR_CASES
def test_parallel_aggregator(folded, case, B, T, pooling, chunk):
    assert_golden(case, "logits", folded.aggregator(*aggregator_inputs(B, T), class_pooling=pooling, chunk=chunk))


def test_serial_aggregator(golden_model):
    model = fold(golden_model("cat_b"))
    assert_golden("cat_agg_b_t20", "logits", model.aggregator(*aggregator_inputs(1, 20)))


@pytest.mark.parametrize(
    ("strategy", "case", "seed", "size"),
    [
        ("single", "f_whole_b_384", 3001, (384, 384)),
        pytest.param("sliding", "g_whole_b_sliding_480x640", 3003, (480, 640), marks=pytest.mark.long),
    ],
)
def test_whole_model(folded, strategy, case, seed, size):
    image = seeded_weights.seeded_image(seed, *size).transpose(1, 2, 0).astype(np.uint8)
    scores = folded.segment(image, folded.encode_text(class_list("voc_20")), strategy=strategy)
    assert_golden(case, "sem_seg", scores, tolerance=1e-5)
