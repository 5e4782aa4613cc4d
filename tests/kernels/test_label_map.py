"""The label map's kernel against its reference in float64, and that against the model's own steps."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from kernel_support import DEVICE, assert_close, last_program_alone, poisoned, random
from support import SMALL_EVA
from torch import Tensor

from pcaseg.configs import Sliding
from pcaseg.errors import PcasegError
from pcaseg.kernels import registry
from pcaseg.kernels.label_map import label_map, label_map_reference
from pcaseg.kernels.triton.label_map import launch
from pcaseg.kernels.tuning import forced, tuning_points
from pcaseg.model.inference import segment_image

SMALL = (30, 18, 12)
PUBLISHED = (640, 384, 256)

SHAPES = {
    "single": (1, 3, 12, 12, 20, 33, ()),
    "two images": (2, 3, 24, 24, 20, 15, ()),
    "odd grid": (1, 2, 27, 31, 33, 20, ()),
    "one pixel": (1, 2, 12, 12, 1, 1, ()),
    "one logit": (1, 2, 1, 1, 20, 9, ()),
    "as it is": (1, 2, 20, 20, 20, 20, ()),
    "sliding": (1, 3, 12, 12, 24, 20, SMALL),
    "sliding, two images": (2, 2, 12, 12, 9, 17, SMALL),
    "sliding, larger image": (1, 1, 6, 6, 40, 31, SMALL),
    "nine windows": (1, 2, 6, 6, 20, 20, (40, 20, 10)),
    "published windows": (1, 1, 96, 96, 7, 6, PUBLISHED),
}
"""N, T, h, w, H, W, sliding."""


def windows(sliding: tuple[int, ...]) -> int:
    return len(Sliding(*sliding).origins()) + 1 if sliding else 1


def logits_of(N: int, T: int, h: int, w: int, sliding: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    return random(windows(sliding) * N, T, h, w, dtype=dtype, scale=3)


def run(logits: Tensor, size: tuple[int, int], sliding: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """The kernel's results in poisoned buffers."""
    shape = (logits.shape[0] // windows(sliding), *size)
    labels = torch.full(shape, -7, dtype=torch.int32, device=DEVICE)
    confidence = poisoned(*shape, dtype=torch.float32)
    launch(logits, size, sliding, labels, confidence)
    return labels, confidence


def check(logits: Tensor, size: tuple[int, int], sliding: tuple[int, ...]) -> None:
    """Confidences within rounding, and labels the same where the two best classes differ by more."""
    labels, confidence = run(logits, size, sliding)
    expected, reference = label_map_reference(logits.double(), size, sliding)
    assert_close(confidence, reference)
    others = logits.double()
    clear = torch.ones_like(labels, dtype=torch.bool)
    if logits.shape[1] > 1:
        scores = torch.stack(
            [label_map_reference(others[:, t : t + 1].contiguous(), size, sliding)[1] for t in range(others.shape[1])]
        )
        first, second = scores.topk(2, dim=0).values
        clear = first - second > 1e-5
    assert clear.float().mean() > 0.9
    assert torch.equal(labels[clear], expected[clear])


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_shapes(shape, dtype):
    N, T, h, w, H, W, sliding = shape
    check(logits_of(N, T, h, w, sliding, dtype), (H, W), sliding)


@pytest.mark.slow
@pytest.mark.parametrize("sliding", [(), SMALL], ids=["single", "sliding"])
@pytest.mark.parametrize("T", [20, 150, 255, 256])
def test_many_classes(T, sliding, dtype):
    check(logits_of(1, T, 24, 24, sliding, dtype), (20, 18), sliding)


@pytest.mark.slow
def test_an_image_of_the_published_windows(dtype):
    check(logits_of(1, 2, 96, 96, PUBLISHED, dtype), (16, 24), PUBLISHED)


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    N=st.integers(1, 2),
    T=st.integers(1, 3),
    h=st.integers(1, 40),
    w=st.integers(1, 40),
    H=st.integers(1, 25),
    W=st.integers(1, 25),
)
def test_any_size(dtype, N, T, h, w, H, W):
    check(logits_of(N, T, h, w, (), dtype), (H, W), ())


@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    canvas=st.integers(8, 40),
    window=st.integers(4, 30),
    parts=st.integers(1, 3),
    h=st.integers(1, 20),
    H=st.integers(1, 20),
    W=st.integers(1, 20),
)
def test_any_windows(dtype, canvas, window, parts, h, H, W):
    """Windows that cover the canvas, as the published ones do."""
    assume(canvas - window >= parts and (canvas - window) % parts == 0 and (canvas - window) // parts <= window)
    assume(15 * window <= 14 * canvas)
    sliding = (canvas, window, (canvas - window) // parts)
    check(logits_of(1, 2, h, h, sliding, dtype), (H, W), sliding)


@pytest.mark.parametrize("name", tuning_points("label_map"))
def test_every_tuning_point(name):
    with forced("label_map", tuning_points("label_map")[name]):
        check(logits_of(1, 2, 12, 12, SMALL, torch.float32), (35, 20), SMALL)
        check(logits_of(1, 2, 12, 12, (), torch.float32), (35, 20), ())


@pytest.mark.parametrize("sliding", [(), SMALL], ids=["single", "sliding"])
def test_of_equal_scores_the_lowest(sliding, dtype):
    logits = logits_of(1, 1, 12, 12, sliding, dtype).expand(-1, 3, -1, -1).clone()
    assert not run(logits, (20, 21), sliding)[0].any()
    logits[:, 0] -= 1
    assert (run(logits, (20, 21), sliding)[0] == 1).all()


@pytest.mark.parametrize("sliding", [(), SMALL], ids=["single", "sliding"])
def test_nan_is_not_hidden(sliding, dtype):
    logits = logits_of(2, 3, 12, 12, sliding, dtype)
    logits[-1, 1, 4, 7] = float("nan")  # of the second image
    labels, confidence = run(logits, (24, 21), sliding)
    reference = label_map_reference(logits.double(), (24, 21), sliding)[1]
    assert torch.equal(confidence.isnan(), reference.isnan())
    assert confidence[1].isnan().any() and not confidence[0].isnan().any()
    assert (labels[confidence.isnan()] == 1).all()


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), -100, 80])
def test_extreme_logits(value):
    logits = logits_of(1, 2, 12, 12, (), torch.float32)
    logits[:, 1] = value
    _, confidence = run(logits, (20, 20), ())
    assert_close(confidence, label_map_reference(logits.double(), (20, 20), ())[1])


@pytest.mark.skipif(DEVICE == "cuda", reason="for the interpreter")
def test_indices_beyond_32_bits(monkeypatch):
    logits = torch.empty(60_000, 256, 12, 12, dtype=torch.float16)  # pages that are not written cost no memory
    assert logits.numel() > 2**31
    logits[-1] = random(256, 12, 12, dtype=torch.float16)
    labels, confidence = (torch.empty(60_000, 16, 16, dtype=kind) for kind in (torch.int32, torch.float32))
    last_program_alone(monkeypatch)
    launch(logits, (16, 16), (), labels, confidence)
    assert_close(confidence[-1:], label_map_reference(logits[-1:].double(), (16, 16), ())[1])


@pytest.mark.gpu
@pytest.mark.skipif(DEVICE == "cpu", reason="no GPU")
def test_large():
    logits = logits_of(5, 150, 96, 96, PUBLISHED, torch.bfloat16)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    _, confidence = label_map(logits, (480, 640), sliding=Sliding())
    assert torch.cuda.max_memory_allocated() - before < 2**20 + 2 * 4 * confidence.numel()
    check(logits[:25:5].contiguous(), (480, 640), PUBLISHED)


@pytest.mark.parametrize("strategy", ["single", "sliding"])
def test_reference_is_what_the_model_computes(strategy):
    preset = replace(SMALL_EVA, sliding=Sliding(*SMALL))
    sliding = SMALL if strategy == "sliding" else ()
    logits = torch.randn(windows(sliding), 3, 12, 12, dtype=torch.float64)
    given = iter(logits[:, None])
    image = torch.rand(3, 23, 35, dtype=torch.float64)
    scores = segment_image(image, lambda _: next(given), preset, strategy)
    labels, confidence = label_map_reference(logits, (23, 35), sliding)
    assert_close(confidence[0], scores.amax(dim=0))
    assert torch.equal(labels[0], scores.argmax(dim=0).int())


@pytest.mark.parametrize("sliding", [None, Sliding(*SMALL)], ids=["single", "sliding"])
def test_operator_runs_the_reference_on_a_cpu_and_the_kernel_on_a_gpu(sliding, dtype):
    logits = logits_of(2, 3, 12, 12, SMALL if sliding else (), dtype)
    with registry.recording() as calls:
        labels, confidence = label_map(logits, (20, 30), sliding=sliding)
    assert calls == [("label_map", "triton" if DEVICE == "cuda" else "reference")]
    assert labels.dtype == torch.int32 and confidence.dtype == torch.float32
    assert_close(confidence, label_map_reference(logits.double(), (20, 30), SMALL if sliding else ())[1])


def test_operator_is_sound():
    operator = torch.ops.pcaseg.label_map.default
    for sliding in ((), SMALL):
        arguments = (logits_of(2, 3, 12, 12, sliding, torch.float32), [20, 30], list(sliding))
        torch.library.opcheck(operator, arguments, test_utils=("test_schema", "test_faketensor"))


def test_refused():
    logits = torch.zeros(6, 2, 12, 12)
    with pytest.raises(PcasegError, match="logits is not contiguous"):
        label_map(logits.transpose(2, 3), (20, 20))
    with pytest.raises(PcasegError, match=r"logits has shape \(6, 2, 12, 12\); give 5 windows of each image"):
        label_map(logits, (20, 20), sliding=Sliding())
    with pytest.raises(PcasegError, match=r"size=\(0, 20\)"):
        label_map(logits, (0, 20))
    with pytest.raises(PcasegError, match="logits has shape"):
        label_map(logits[0], (20, 20))
