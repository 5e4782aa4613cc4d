"""The folded model calls the kernels' operators, and graphs see them or their references."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
import torch.nn.functional as F
from support import SMALL_EVA, small_model
from torch import Tensor, nn

import pcaseg
from pcaseg.kernels.registry import plain_operators, recording


class FoldedHead(nn.Module):
    """The folded aggregator on fixed shapes, as a module of tensors alone."""

    def __init__(self, aggregation: str) -> None:
        super().__init__()
        self.aggregator = pcaseg.fold(small_model(SMALL_EVA, aggregation=aggregation)).aggregator

    def forward(self, features: Tensor, first: Tensor, second: Tensor, text: Tensor) -> Tensor:
        return self.aggregator(features, text, (features, first, second))


INPUTS = (
    torch.randn(2, 64, 12, 12),
    torch.randn(2, 64, 24, 24),
    torch.randn(2, 32, 48, 48),
    F.normalize(torch.randn(5, 1, 64), dim=-1),
)
CALLS = {
    "parallel": {"cost_volume": 1, "class_attention": 2, "expert_mix": 2},
    "serial": {"cost_volume": 1, "class_attention": 1},
}


@pytest.fixture(scope="module", params=CALLS)
def aggregation(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def head(aggregation) -> FoldedHead:
    return FoldedHead(aggregation).requires_grad_(False)


def targets(program: torch.export.ExportedProgram) -> Counter[str]:
    """The project's operators in a graph."""
    names = (str(node.target) for node in program.graph.nodes if node.op == "call_function")
    return Counter(name.split(".")[1] for name in names if name.startswith("pcaseg."))


def test_folded_model_runs_the_operators(head, aggregation):
    with recording() as calls:
        head(*INPUTS)
    assert Counter(name for name, _ in calls) == CALLS[aggregation]
    assert {path for _, path in calls} == {"reference"}


def test_chunks_run_those_that_need_one_class_alone(head, aggregation):
    features, first, second, text = INPUTS
    with recording() as calls:
        chunked = head.aggregator(features, text, (features, first, second), chunk=2)
    expected = {"cost_volume": 1} | ({"expert_mix": 6} if aggregation == "parallel" else {})
    assert Counter(name for name, _ in calls) == expected
    torch.testing.assert_close(chunked, head(*INPUTS), rtol=1e-4, atol=1e-4)


def test_export_sees_the_operators_or_their_references(head, aggregation):
    program = torch.export.export(head, INPUTS)
    assert targets(program) == CALLS[aggregation]
    torch.testing.assert_close(program.module()(*INPUTS), head(*INPUTS))
    with plain_operators():
        plain = torch.export.export(head, INPUTS)
    assert not targets(plain)
    torch.testing.assert_close(plain.module()(*INPUTS), head(*INPUTS), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("strategy", ["single", "sliding"])
@pytest.mark.parametrize("size", [(70, 50), (200, 310)])
def test_labels_are_the_largest_scores(strategy, size):
    model = pcaseg.fold(small_model(SMALL_EVA))
    image, text = torch.rand(*size, 3) * 255, INPUTS[-1]
    with recording() as calls:
        labels, confidence = model.label(image, text, strategy=strategy)
    assert calls[-1] == ("label_map", "reference")
    scores = model.segment(image, text, strategy=strategy)
    assert labels.dtype == torch.int32 and labels.shape == confidence.shape == size
    torch.testing.assert_close(confidence, scores.amax(dim=0), rtol=0, atol=1e-6)
    first, second = scores.topk(2, dim=0).values
    sure = first - second > 1e-5
    assert sure.float().mean() > 0.9
    assert torch.equal(labels[sure].long(), scores.argmax(dim=0)[sure])


def test_compile_sees_one_graph(head):
    compiled = torch.compile(head, backend="aot_eager", fullgraph=True)
    with torch.no_grad(), recording() as calls:
        values = compiled(*INPUTS)
    assert calls
    torch.testing.assert_close(values, head(*INPUTS), rtol=1e-4, atol=1e-4)
