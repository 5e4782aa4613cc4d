"""The class attention's kernel against its reference in float64."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kernel_support import DEVICE, assert_close, last_program_alone, poisoned, random
from torch import Tensor

from pcaseg.deploy.semantic import FoldedSemanticStream
from pcaseg.errors import PcasegError
from pcaseg.kernels import registry
from pcaseg.kernels.class_attention import class_attention, class_attention_reference
from pcaseg.kernels.triton.class_attention import launch
from pcaseg.model.semantic_stream import SemanticStream

SHAPES = {
    **{f"T={T}": (2, T, 3, 32, 4) for T in (1, 2, 7, 20)},
    "published channels": (1, 20, 2, 128, 4),
    "all classes": (1, 256, 1, 32, 4),
    "255 classes": (1, 255, 1, 32, 2),
    "one head": (1, 7, 2, 32, 1),
    "eight heads": (1, 7, 2, 64, 8),
}
"""B, T, N, C, heads."""

WHOLE_GRIDS = {
    f"T={T} on {grid}": (1, T, grid[0] * grid[1], 32, 4)
    for T, grid in [(1, (12, 12)), (20, (12, 12)), (150, (12, 12)), (7, (24, 24)), (7, (27, 31)), (256, (12, 12))]
}


def inputs(B: int, T: int, N: int, C: int, heads: int, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """A sequence with a mean and a scale, shares of each image, projections that keep the scale."""
    d = C // heads
    return (
        random(B, T, N, C, dtype=dtype, scale=3) + 1,
        random(B, T, 2 * C, dtype=dtype),
        *(random(C, C, dtype=dtype, scale=C**-0.5) for _ in range(3)),
        random(C, dtype=dtype),
        random(heads, d, d, dtype=torch.float32),
        random(heads, d, dtype=torch.float32).abs(),
    )


def run(*arguments: Tensor) -> Tensor:
    """The kernel's result in a poisoned buffer."""
    out = poisoned(*arguments[0].shape, dtype=arguments[0].dtype)
    launch(arguments, out)
    return out


def check(*arguments: Tensor) -> None:
    """The output, and alone what attention adds to the sequence, which is smaller."""
    values, reference = run(*arguments), class_attention_reference(*(tensor.double() for tensor in arguments))
    assert_close(values, reference)
    if values.dtype == torch.float32:
        z = arguments[0].double()
        assert ((values - z) - (reference - z)).abs().max() <= 2e-5 * (reference - z).abs().max()


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
    T=st.integers(1, 40),
    N=st.integers(1, 3),
    C=st.sampled_from([16, 32, 64]),
    heads=st.sampled_from([1, 2, 4, 8]),
)
def test_any_shape(dtype, B, T, N, C, heads):
    check(*inputs(B, T, N, C, heads, dtype))


def test_shares_of_all_images(dtype):
    z, share, *weights = inputs(2, 5, 2, 32, 4, dtype)
    check(z, share[:1].contiguous(), *weights)


def test_zero_and_constant_tokens(dtype):
    z, *others = inputs(1, 5, 2, 32, 4, dtype)
    z[:, 1], z[:, 3] = 0, 7
    check(z, *others)


def test_large_sums(dtype):
    """phi(k)^T v beyond what float16 holds: 256 classes whose keys and values are in the hundreds."""
    z, share, q, k, v, v_bias, *padding = inputs(1, 256, 1, 32, 4, dtype)
    arguments = z, share.abs() * 100, q, k, v, v_bias.abs() * 100 + 100, *padding
    matrix_bound = (arguments[1].double().mean() * 100 * 256).item()
    assert matrix_bound > torch.finfo(torch.float16).max
    check(*arguments)


@pytest.mark.skipif(DEVICE == "cuda", reason="for the interpreter; on a GPU the whole tensor runs in test_large")
def test_indices_beyond_32_bits(monkeypatch):
    B, T, N, C = 128, 256, 576, 128
    _, share, *weights = inputs(1, T, 1, C, 4, torch.float16)
    z, out = (torch.empty(B, T, N, C, dtype=torch.float16) for _ in range(2))
    assert z.numel() > 2**31
    z[-1, :, -1] = random(T, C, dtype=torch.float16)
    last_program_alone(monkeypatch)
    launch((z, share, *weights), out)
    reference = class_attention_reference(z[-1:, :, -1:].double(), *(t.double() for t in (share, *weights)))
    made = slice(C - 32, C)  # at least these channels are the last program's, whatever the tuning point
    assert_close(out[-1:, :, -1:, made], reference[..., made])


@pytest.mark.gpu
@pytest.mark.skipif(DEVICE == "cpu", reason="no GPU")
def test_large():
    z, share, *weights = inputs(64, 256, 576, 128, 4, torch.bfloat16)
    values = run(z, share, *weights)
    assert values.isfinite().all()
    last = (z[-1:, :, -8:], share[-1:], *weights)
    assert_close(values[-1:, :, -8:], class_attention_reference(*(t.double() for t in last)))


def test_operator_runs_the_reference_on_a_cpu_and_the_kernel_on_a_gpu(dtype):
    arguments = inputs(2, 3, 2, 32, 4, dtype)
    with registry.recording() as calls:
        values = class_attention(*arguments)
    assert calls == [("class_attention", "triton" if DEVICE == "cuda" else "reference")]
    assert registry.last_path("class_attention") == calls[0][1]
    assert values.is_contiguous()
    assert_close(values, class_attention_reference(*(t.double() for t in arguments)))


def test_operator_is_sound():
    arguments = inputs(2, 3, 2, 32, 4, torch.float32)
    operator = torch.ops.pcaseg.class_attention.default
    torch.library.opcheck(operator, arguments, test_utils=("test_schema", "test_faketensor"))


@pytest.mark.parametrize("T", [1, 20, 256])
def test_reference_is_what_the_stream_computes(T):
    """Against the model's own attention over 256 padded classes."""
    stream = SemanticStream(32, 4).double()
    for tensor in stream.state_dict().values():
        tensor.copy_(torch.randn_like(tensor) * 0.3)
    folded = FoldedSemanticStream(stream, torch.float64)
    x, guidance = torch.randn(2, T, 3, 4, 32).double(), torch.rand(2, T, 32).double()
    values = class_attention_reference(
        x.flatten(2, 3),
        folded.share(guidance),
        *(folded.q, folded.k, folded.v, folded.v_bias, folded.pad_matrix, folded.pad_normaliser),
    )
    with torch.no_grad():
        reference = stream(x, guidance, (1, 1)) - x
        values = values + stream.mlp(stream.norm2(values))
    assert_close(values.unflatten(2, (3, 4)), reference)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (0, lambda z: z.transpose(1, 2).contiguous().transpose(1, 2), "z is not contiguous"),
        (0, lambda z: z[0], "z has shape"),
        (0, lambda z: z.repeat(1, 100, 1, 1), "T=300: at most 256 classes"),
        (1, lambda share: share.repeat(2, 1, 1), "share is of 4 images; give 1 or 2"),
        (1, lambda share: share[:, :, :32], r"share has shape \(2, 3, 32\)"),
        (2, lambda q: q.double(), "q is torch.float64 on cpu"),
        (6, lambda matrix: matrix[:, :2], "pad_matrix has shape"),
    ],
)
def test_refused(name, change, message):
    arguments = [tensor.cpu() for tensor in inputs(2, 3, 2, 32, 4, torch.float32)]
    arguments[name] = change(arguments[name])
    if "300" in message:
        arguments[1] = arguments[1].repeat(1, 100, 1)
    with pytest.raises(PcasegError, match=message):
        class_attention(*arguments)
