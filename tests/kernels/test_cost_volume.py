"""The cost volume's kernel against its reference in float64."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kernel_support import DEVICE, assert_close, last_program_alone, poisoned, random
from support import SMALL_EVA, small_model
from torch import Tensor

from pcaseg.deploy.folded import fold
from pcaseg.errors import PcasegError
from pcaseg.kernels import registry
from pcaseg.kernels.cost_volume import cost_volume, cost_volume_reference
from pcaseg.kernels.triton.cost_volume import launch
from pcaseg.model.cost_volume import cost_volume as model_cost_volume

SHAPES = {
    "one class": (1, 1, 1, 32, 9, 12, 32),
    "ragged depth": (2, 2, 1, 40, 6, 7, 32),
    "published width": (1, 2, 1, 32, 4, 24, 32),
    "published channels": (1, 17, 1, 32, 3, 12, 128),
    "odd width": (1, 3, 1, 32, 3, 31, 32),
    "three prompts": (2, 7, 3, 32, 5, 9, 32),
    "sixteen prompts": (1, 2, 16, 32, 5, 9, 32),
    "80 prompts": (1, 2, 80, 32, 4, 7, 32),
    "one pixel": (1, 2, 1, 16, 1, 1, 16),
}
"""B, T, P, D, H, W, C."""

WHOLE_GRIDS = {
    f"T={T} on {grid}": (1, T, 1, 32, *grid, 32) for T in (7, 150, 255, 256) for grid in ((12, 12), (24, 24), (27, 31))
}


def inputs(B: int, T: int, P: int, D: int, H: int, W: int, C: int, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """Features and texts of any length, weights that give results of order one."""
    scale = (3 / P) ** 0.5
    return (
        random(B, H, W, D, dtype=dtype, scale=5),
        random(T, P, D, dtype=dtype),
        random(C, P, 7, 7, dtype=dtype, scale=scale),
        random(C, dtype=dtype, scale=0.1),
    )


def run(features: Tensor, text: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The kernel's result in a poisoned buffer."""
    out = poisoned(features.shape[0], text.shape[-3], *features.shape[1:3], weight.shape[0], dtype=features.dtype)
    launch(features, text, weight, bias, out)
    return out


def check(*given: Tensor) -> None:
    assert_close(run(*given), cost_volume_reference(*(tensor.double() for tensor in given)))


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_shapes(shape, dtype):
    check(*inputs(*shape, dtype))


@pytest.mark.slow
@pytest.mark.parametrize("shape", WHOLE_GRIDS.values(), ids=WHOLE_GRIDS)
def test_whole_grids(shape, dtype):
    check(*inputs(*shape, dtype))


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    B=st.integers(1, 2),
    T=st.integers(1, 20),
    P=st.sampled_from([1, 1, 2, 5]),
    D=st.integers(1, 40),
    H=st.integers(1, 7),
    W=st.integers(1, 13),
    C=st.sampled_from([16, 32]),
)
def test_any_shape(dtype, B, T, P, D, H, W, C):
    check(*inputs(B, T, P, D, H, W, C, dtype))


def test_texts_of_each_image(dtype):
    features, _, weight, bias = inputs(2, 3, 2, 32, 5, 6, 32, dtype)
    check(features, random(2, 3, 2, 32, dtype=dtype), weight, bias)


def test_float32_texts_with_narrower_features(dtype):
    features, text, weight, bias = inputs(1, 3, 1, 32, 5, 6, 32, dtype)
    check(features, text.float() * 1.001, weight, bias)


def test_zero_vectors(dtype):
    features, text, weight, bias = inputs(1, 3, 1, 32, 6, 6, 32, dtype)
    features[0, 2, 3], text[1] = 0, 0
    values = run(features, text, weight, bias)
    assert_close(values, cost_volume_reference(*(t.double() for t in (features, text, weight, bias))))
    assert torch.equal(values[0, 1], bias.expand(6, 6, -1))


@pytest.mark.skipif(DEVICE == "cuda", reason="for the interpreter; on a GPU the whole tensor runs in test_large")
def test_indices_beyond_32_bits(monkeypatch):
    B, T, D, H, W, C = 128, 256, 32, 24, 24, 128
    features, text, weight, bias = inputs(B, T, 1, D, H, W, C, torch.float16)
    out = torch.empty(B, T, H, W, C, dtype=torch.float16)
    assert out.numel() > 2**31
    last_program_alone(monkeypatch)
    launch(features, text, weight, bias, out)
    reference = cost_volume_reference(*(t.double() for t in (features[-1:], text[-1:], weight, bias)))
    assert_close(out[-1, -1].flatten(0, 1)[-64:], reference.flatten(0, 3)[-64:])


@pytest.mark.gpu
@pytest.mark.skipif(DEVICE == "cpu", reason="no GPU")
def test_large():
    given = inputs(64, 256, 1, 512, 24, 24, 128, torch.bfloat16)
    values = run(*given)
    assert values.isfinite().all()
    reference = cost_volume_reference(given[0][-1:].double(), *(t.double() for t in given[1:]))
    assert_close(values[-1:], reference)


def test_operator_runs_the_reference_on_a_cpu_and_the_kernel_on_a_gpu(dtype):
    given = inputs(1, 3, 1, 32, 5, 6, 32, dtype)
    with registry.recording() as calls:
        values = cost_volume(*given)
    assert calls == [("cost_volume", "triton" if DEVICE == "cuda" else "reference")]
    assert values.is_contiguous()
    assert_close(values, cost_volume_reference(*(t.double() for t in given)))


def test_operator_is_sound():
    given = inputs(2, 3, 1, 32, 5, 6, 32, torch.float32)
    torch.library.opcheck(torch.ops.pcaseg.cost_volume.default, given, test_utils=("test_schema", "test_faketensor"))


def test_reference_is_what_the_folded_model_computes():
    model = fold(small_model().double()).aggregator
    features, text = torch.randn(2, 64, 12, 12).double(), torch.randn(5, 1, 64).double()
    volume = model_cost_volume(features, text.expand(2, -1, -1, -1))
    embedding = model.cost_embedding
    values = cost_volume_reference(features.permute(0, 2, 3, 1), text, embedding.weight, embedding.bias)
    assert SMALL_EVA.hidden == values.shape[-1]
    assert_close(values.flatten(2, 3), model.embed(volume))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f, e, w, b: (f.transpose(1, 2), e, w, b), "features is not contiguous"),
        (lambda f, e, w, b: (f, e[..., :16], w, b), r"text has shape \(3, 1, 16\); give \(any, 1, 32\)"),
        (lambda f, e, w, b: (f, e, w[..., :5], b), "weight has shape"),
        (lambda f, e, w, b: (f, e, w, b.double()), "bias is torch.float64 on cpu; give torch.float32 on cpu"),
        (lambda f, e, w, b: (f, e[:0], w, b), "text has shape"),
    ],
)
def test_refused(change, message):
    given = [tensor.cpu() for tensor in inputs(1, 3, 1, 32, 5, 6, 32, torch.float32)]
    with pytest.raises(PcasegError, match=message):
        cost_volume(*change(*given))


def test_three_tf32_products_reach_float32():
    """The kernels' float32 products: each factor as a sum of two numbers with 11 bits, three of four products."""

    def tf32(x: Tensor) -> Tensor:
        bits = x.view(torch.int32)
        return ((bits + 0xFFF + ((bits >> 13) & 1)) & ~0x1FFF).view(torch.float32)

    a, b = F.normalize(torch.randn(64, 512), dim=1), torch.randn(512, 64)
    (a1, a2), (b1, b2) = ((tf32(x), tf32(x - tf32(x))) for x in (a, b))
    assert_close(a1 @ b2 + a2 @ b1 + a1 @ b1, a.double() @ b.double())
    assert (a1 @ b1 - a @ b).abs().max() > 1e-4  # one product alone does not
