"""The reference reproduces the published model's own outputs, in float32 and, where a golden has it, in float64."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import support
import torch
from support import (
    AGGREGATOR_CASES,
    GOLDENS,
    aggregator_inputs,
    assert_golden,
    seeded_input,
    seeded_weights,
)

from pcaseg.class_lists import class_list
from pcaseg.model.epl import EPL
from pcaseg.model.fod import fod, stream_cosine
from pcaseg.model.network import PCASeg

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])
LARGE = pytest.mark.parametrize(
    "dtype", [torch.float32, pytest.param(torch.float64, marks=pytest.mark.long)], ids=["f32", "f64"]
)


@pytest.fixture(scope="module")
def eva(golden_model) -> PCASeg:
    return golden_model("eva_b")


@pytest.fixture(scope="module")
def cat(golden_model) -> PCASeg:
    return golden_model("cat_b")


@pytest.fixture(autouse=True)
def no_grad():
    with torch.no_grad():
        yield


@pytest.fixture
def in_dtype(request):
    """Turns a shared model to a dtype for one test."""
    changed = []

    def turn(model: PCASeg, dtype: torch.dtype) -> PCASeg:
        changed.append(model)
        return model.to(dtype)

    yield turn
    for model in changed:
        model.float()


@LARGE
def test_eva_tower_and_taps(eva, in_dtype, dtype):
    images = seeded_input(2001, 1, 3, 384, 384, dtype=dtype)
    tower = in_dtype(eva, dtype).image_tower
    _, taps = tower.forward_tokens(images)
    features, public_taps = tower(images)
    assert_golden("e_dense_b_csa", "dense", features)
    assert_golden("e_dense_b_csa", "block3", taps[0])
    assert_golden("e_dense_b_csa", "block7", taps[1])
    for tap, public in zip(taps, public_taps, strict=True):
        assert torch.equal(tap[:, 1:], public)


@DTYPES
def test_eva_text(eva, in_dtype, dtype):
    names = [str(name) for name in np.load(GOLDENS / "k_text_b.npz")["names"]]
    assert_golden("k_text_b", "text", in_dtype(eva, dtype).encode_text(names)[:, 0])


@pytest.mark.long
@AGGREGATOR_CASES
def test_parallel_aggregator(eva, in_dtype, case, B, T, pooling):
    """In float64; float32 is held by the whole model, and by the folded one on these inputs."""
    model = in_dtype(eva, torch.float64)
    logits = model.aggregator(*aggregator_inputs(B, T, torch.float64), class_pooling=pooling)
    assert_golden(case, "logits", logits)


@pytest.mark.slow
@AGGREGATOR_CASES
def test_parallel_aggregator_in_float32(eva, case, B, T, pooling):
    assert_golden(case, "logits", eva.aggregator(*aggregator_inputs(B, T), class_pooling=pooling))


@pytest.mark.long
def test_keeping_all_gives_the_same(eva):
    """What is exported ranks the classes even when all are kept."""
    logits, kept = eva.aggregator.aggregate_kept(*aggregator_inputs(1, 20), shortlist=20)
    assert kept.tolist() == [list(range(20))]
    assert_golden("a_agg_b_t20", "logits", logits)


@LARGE
def test_whole_model_single_pass(eva, in_dtype, dtype):
    model = in_dtype(eva, dtype)
    image = seeded_weights.seeded_image(3001, 384, 384).transpose(1, 2, 0)
    scores = model.segment(image, model.encode_text(class_list("voc_20")), strategy="single")
    assert_golden("f_whole_b_384", "sem_seg", scores, tolerance=1e-5 if dtype == torch.float32 else None)


@pytest.mark.slow
def test_whole_model_sliding_window(eva):
    """The folded model is held to the same in the quick tests."""
    image = seeded_weights.seeded_image(3003, 480, 640).transpose(1, 2, 0).astype(np.uint8)
    scores = eva.segment(image, eva.encode_text(class_list("voc_20")), strategy="sliding")
    assert_golden("g_whole_b_sliding_480x640", "sem_seg", scores, tolerance=1e-5)


def test_openai_tower_and_taps(cat):
    dense, taps = cat.image_tower.forward_tokens(seeded_input(2001, 1, 3, 384, 384))
    assert_golden("cat_dense_b", "dense", dense)
    assert_golden("cat_dense_b", "block3", taps[0])
    assert_golden("cat_dense_b", "block7", taps[1])


def test_openai_text(cat):
    names = ["cat", "dog", "aeroplane", "potted plant", "tv monitor"]
    assert_golden("cat_text_b", "text", cat.encode_text(names)[:, 0])


def test_serial_aggregator(cat):
    assert_golden("cat_agg_b_t20", "logits", cat.aggregator(*aggregator_inputs(1, 20)))


@pytest.mark.parametrize("case", ["k_text_b", "cat_text_b"])
def test_tokens_of_the_goldens(case):
    from open_clip.tokenizer import tokenize

    from pcaseg.class_names import prompt_for

    golden = np.load(GOLDENS / f"{case}.npz")
    names = golden.get("names", ["cat", "dog", "aeroplane", "potted plant", "tv monitor"])
    tokens = tokenize([prompt_for(str(name)) for name in names]).numpy()
    assert np.array_equal(tokens, golden["tokens"])


@pytest.fixture(scope="module")
def epl_streams() -> tuple[torch.Tensor, torch.Tensor]:
    """The goldens' (B, C, T, H, W) streams as (B, T, H, W, C), float64."""
    a, b = (seeded_input(seed, 2, 128, 5, 24, 24, dtype=torch.float64) for seed in (5001, 5002))
    return a.permute(0, 2, 3, 4, 1), b.permute(0, 2, 3, 4, 1)


@DTYPES
@pytest.mark.parametrize("mode", ["eval", "train"])
def test_epl(eva, epl_streams, mode, dtype):
    epl = copy.deepcopy(eva.aggregator.layers[0].epl_first).to(dtype).train(mode == "train")
    fused = epl(*(stream.to(dtype) for stream in epl_streams))
    assert_golden(f"i_epl_{mode}", "fused", fused.permute(0, 4, 1, 2, 3))
    if mode == "train":
        assert_golden("i_epl_train", "running_mean0", epl.experts[0][1].running_mean)
        assert_golden("i_epl_train", "running_var0", epl.experts[0][1].running_var)


def test_epl_parameter_count():
    assert sum(parameter.numel() for parameter in EPL(128).parameters()) == 349_221


@DTYPES
def test_fod(epl_streams, dtype):
    a, b = (stream.to(dtype) for stream in epl_streams)
    for suffix, (s, m) in {"": (a, b), "_mixed": (a, 0.5 * a + b)}.items():
        assert_golden_scalar(f"loss{suffix}", fod(s, m))
        assert_golden_scalar(f"cos{suffix}", stream_cosine(s, m).mean())


def assert_golden_scalar(output: str, value: torch.Tensor) -> None:
    golden = np.load(GOLDENS / "j_fod.npz")
    kind, tolerance = ("f64", 1e-12) if value.dtype == torch.float64 else ("f32", 2e-5)
    assert value.shape == ()
    assert abs(value.item() - float(golden[f"{kind}_{output}"])) <= tolerance * abs(float(golden[f"stat_{output}"][2]))


def test_every_golden_file_is_used():
    source = "".join(Path(file).read_text(encoding="utf-8") for file in (__file__, support.__file__))
    for path in GOLDENS.glob("*.npz"):
        assert path.stem in source or path.stem in ("i_epl_eval", "i_epl_train"), path.name
