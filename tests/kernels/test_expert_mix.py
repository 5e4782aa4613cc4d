"""The expert mixing kernel against its reference in float64."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kernel_support import DEVICE, assert_close, last_program_alone, poisoned, random
from torch import Tensor

from pcaseg.deploy.epl import fold_epl
from pcaseg.errors import PcasegError
from pcaseg.kernels import registry
from pcaseg.kernels.expert_mix import ExpertWeights, expert_mix, expert_mix_reference
from pcaseg.kernels.triton.expert_mix import _gelu, launch
from pcaseg.model.epl import EPL

SHAPES = {
    "one pixel": (1, 1, 1, 1, 32, 4),
    "one class": (1, 1, 4, 12, 32, 4),
    "two images": (2, 2, 3, 12, 32, 2),
    "groups of maps": (1, 11, 2, 12, 16, 4),
    "eight experts": (1, 5, 3, 6, 16, 8),
    "published width": (1, 2, 2, 24, 32, 4),
    "more channels": (1, 1, 2, 5, 64, 4),
    "odd width": (1, 1, 2, 31, 16, 4),
    "row of a block": (1, 1, 2, 127, 16, 4),
    "rows longer than a block": (1, 1, 2, 140, 16, 4),
}
"""B, T, H, W, C, experts."""

WHOLE_GRIDS = {
    "published channels": (1, 1, 2, 5, 128, 4),
    "12 x 12": (2, 2, 12, 12, 32, 2),
    "24 x 24": (1, 2, 24, 24, 32, 4),
    "27 x 31": (1, 1, 27, 31, 32, 4),
    "T=150": (1, 150, 12, 12, 16, 4),
    "T=255": (1, 255, 4, 24, 16, 4),
    "T=256": (1, 256, 3, 31, 16, 4),
    "published": (1, 5, 24, 24, 128, 4),
}
"""Shapes for the slow tests; rows are a loop within a program, so the few of the others stand for all."""


def inputs(
    B: int, T: int, H: int, W: int, C: int, experts: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor, ExpertWeights]:
    """Streams and weights that leave every part of the result of order one."""

    def matrix(*shape: int) -> Tensor:
        return random(*shape, dtype=dtype, scale=shape[-1] ** -0.5)

    def vector(*shape: int) -> Tensor:
        return random(*shape, dtype=dtype, scale=0.5)

    n, mapper = experts * C, C // 4
    weights = ExpertWeights(
        *(matrix(n, 2 * C), vector(n)),
        *(matrix(n, 2 * C), vector(n)),
        *(vector(n, 1, 3, 3), vector(n, 1, 3, 3), vector(n)),
        *(matrix(mapper, 2 * C), vector(mapper)),
        *(2 * vector(experts, mapper), vector(experts)),
        *(matrix(C, 2 * C), vector(C)),
    )
    return random(B, T, H, W, C, dtype=dtype), random(B, T, H, W, C, dtype=dtype), weights


def doubled(weights: ExpertWeights) -> ExpertWeights:
    return ExpertWeights(*(weight.double() for weight in weights))


def run(spatial: Tensor, semantic: Tensor, weights: ExpertWeights, rows: int | None = None) -> Tensor:
    """The kernel's result in a poisoned buffer."""
    out = poisoned(*spatial.shape, dtype=spatial.dtype)
    launch(spatial, semantic, weights, out, rows)
    return out


def check(spatial: Tensor, semantic: Tensor, weights: ExpertWeights, rows: int | None = None) -> None:
    values = run(spatial, semantic, weights, rows)
    assert_close(values, expert_mix_reference(spatial.double(), semantic.double(), doubled(weights)))


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_shapes(shape, dtype):
    check(*inputs(*shape, dtype))


@pytest.mark.slow
@pytest.mark.parametrize("shape", WHOLE_GRIDS.values(), ids=WHOLE_GRIDS)
def test_whole_grids(shape, dtype):
    check(*inputs(*shape, dtype))


@pytest.mark.parametrize("rows", [1, 3, 4, 6])
def test_maps_cut_in_parts(rows, dtype):
    check(*inputs(1, 3, 4, 5, 16, 4, dtype), rows)


@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    B=st.integers(1, 2),
    T=st.integers(1, 9),
    H=st.integers(1, 3),
    W=st.integers(1, 13),
    C=st.sampled_from([16, 32]),
    experts=st.sampled_from([1, 2, 4, 8]),
    rows=st.sampled_from([None, 2]),
)
def test_any_shape(dtype, B, T, H, W, C, experts, rows):
    check(*inputs(B, T, H, W, C, experts, dtype), rows)


def test_zero_streams(dtype):
    """Leaves the biases alone; the activated map is zero beyond the border, and not GELU(bias)."""
    spatial, semantic, weights = inputs(1, 2, 4, 5, 16, 4, dtype)
    spatial.zero_()
    semantic.zero_()
    check(spatial, semantic, weights)


def test_gelu():
    values = torch.linspace(-30, 30, 2**12, device=DEVICE)
    out = poisoned(2**12, dtype=torch.float32)
    _gelu_kernel[(1,)](values, out, N=2**12)
    reference = F.gelu(values.double())
    assert ((out - reference).abs() <= 5e-7 + 6e-8 * reference.abs()).all()


@triton.jit
def _gelu_kernel(x_ptr, out_ptr, N: tl.constexpr):
    n = tl.arange(0, N)
    tl.store(out_ptr + n, _gelu(tl.load(x_ptr + n)))


@pytest.mark.skipif(DEVICE == "cuda", reason="for the interpreter; on a GPU the whole tensor runs in test_large")
def test_indices_beyond_32_bits(monkeypatch):
    maps, H, W, C = 350_400, 2, 24, 128  # a program goes through the rows of a map
    _, _, weights = inputs(1, 1, 1, 1, C, 4, torch.float16)
    spatial, semantic, out = (torch.empty(1, maps, H, W, C, dtype=torch.float16) for _ in range(3))
    assert spatial.numel() > 2**31
    for tensor in (spatial, semantic, out):  # pages that are not written cost no memory
        tensor[0, -5:] = random(5, H, W, C, dtype=torch.float16)
    last_program_alone(monkeypatch)
    launch(spatial, semantic, weights, out)
    last = [stream[:, -1:].double() for stream in (spatial, semantic)]
    assert_close(out[:, -1:, ..., -16:], expert_mix_reference(*last, doubled(weights))[..., -16:])


@pytest.mark.gpu
@pytest.mark.skipif(DEVICE == "cpu", reason="no GPU")
def test_large():
    spatial, semantic, weights = inputs(64, 256, 24, 24, 128, 4, torch.bfloat16)
    values = run(spatial, semantic, weights)
    assert values.isfinite().all()
    last = [stream[-1:, -5:].double() for stream in (spatial, semantic)]
    assert_close(values[-1:, -5:], expert_mix_reference(*last, doubled(weights)))


def test_operator_runs_the_reference_on_a_cpu_and_the_kernel_on_a_gpu(dtype):
    given = inputs(1, 3, 5, 6, 32, 4, dtype)
    with registry.recording() as calls:
        values = expert_mix(*given)
    assert calls == [("expert_mix", "triton" if DEVICE == "cuda" else "reference")]
    assert values.is_contiguous()
    assert_close(values, expert_mix_reference(given[0].double(), given[1].double(), doubled(given[2])))


def test_operator_is_sound():
    spatial, semantic, weights = inputs(2, 3, 5, 6, 32, 4, torch.float32)
    operator = torch.ops.pcaseg.expert_mix.default
    arguments = (spatial, semantic, list(weights))
    torch.library.opcheck(operator, arguments, test_utils=("test_schema", "test_faketensor"))


@pytest.mark.parametrize("grid", [(6, 6), (5, 9), (1, 1)])
def test_reference_is_what_the_model_computes(grid):
    epl = EPL(32).double().eval()
    with torch.no_grad():
        for name, tensor in epl.state_dict().items():
            if tensor.is_floating_point():
                tensor.copy_(torch.rand_like(tensor) + 0.5 if "running_var" in name else torch.randn_like(tensor) / 4)
        spatial, semantic = (torch.randn(2, 3, *grid, 32, dtype=torch.float64) for _ in range(2))
        values = expert_mix_reference(spatial, semantic, ExpertWeights(**fold_epl(epl)))
        assert_close(values, epl(spatial, semantic))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s, m, w: (s.transpose(2, 3).contiguous().transpose(2, 3), m, w), "spatial is not contiguous"),
        (lambda s, m, w: (s, m[:, :, :4], w), r"semantic has shape \(1, 3, 4, 6, 32\); give \(1, 3, 5, 6, 32\)"),
        (lambda s, m, w: (s, m.half(), w), "semantic is torch.float16 on cpu; give torch.float32 on cpu"),
        (lambda s, m, w: (s, m, w._replace(mapper=w.mapper[:, :32])), "mapper has shape"),
        (lambda s, m, w: (s, m, w._replace(residual=w.residual.double())), "residual is torch.float64"),
        (lambda s, m, w: (s, m, w._replace(parse_odd=w.parse_odd.T.contiguous().T)), "parse_odd is not contiguous"),
    ],
)
def test_refused(change, message):
    spatial, semantic, weights = inputs(1, 3, 5, 6, 32, 4, torch.float32)
    given = (spatial.cpu(), semantic.cpu(), ExpertWeights(*(weight.cpu() for weight in weights)))
    with pytest.raises(PcasegError, match=message):
        expert_mix(*change(*given))


@pytest.mark.parametrize(("C", "experts"), [(24, 4), (32, 3), (8, 4)])
def test_widths_that_the_kernel_does_not_take(C, experts):
    spatial, semantic, weights = inputs(1, 1, 2, 2, C, experts, torch.float16)
    with pytest.raises(PcasegError, match=f"{experts} experts, C={C}"):
        run(spatial, semantic, weights)
