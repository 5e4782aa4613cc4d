"""The benchmarks that make the README's rows run, and measure what they say."""

from __future__ import annotations

import time

import pytest
import torch
from support import SMALL_EVA

import pcaseg.benchmarks.studies.folding
import pcaseg.benchmarks.studies.mixed_precision
from pcaseg.benchmarks.studies.folding import FoldingBackends, measure
from pcaseg.benchmarks.studies.operators import profile_folded, profile_graph

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def opened(tmp_path_factory) -> FoldingBackends:
    return FoldingBackends(SMALL_EVA, tmp_path_factory.mktemp("graphs"), threads=torch.get_num_threads())


def test_folding_compares_before_it_times(opened, monkeypatch):
    monkeypatch.setattr(pcaseg.benchmarks.studies.folding, "CLASS_COUNTS", {"aggregator": (3,), "image": (2,)})
    rows = {(row.part, row.classes, row.backend): row for row in measure(opened, rounds=2)}
    backends = ("eager", "folded", "onnxruntime")
    sizes = (("aggregator", 3), ("image", 2))
    assert rows.keys() == {*((*size, backend) for size in sizes for backend in backends), ("matmul", 0, "torch")}
    for (_, _, backend), row in rows.items():
        assert len(row.seconds) == (4 if backend == "torch" else 2) and min(row.seconds) > 0
        assert row.relative_error is None or row.relative_error <= (0 if backend == "eager" else 1e-4)
    assert rows["aggregator", 3, "eager"].gmac > 5 * rows["aggregator", 3, "folded"].gmac


@pytest.mark.timing
def test_a_delay_is_measured_where_it_is(opened, monkeypatch):
    calls = opened.calls("aggregator", 2)
    slow = lambda call: lambda: (time.sleep(0.5), call())[1]  # noqa: E731
    monkeypatch.setattr(opened, "calls", lambda part, T: calls | {"folded": slow(calls["folded"])})
    monkeypatch.setattr(pcaseg.benchmarks.studies.folding, "CLASS_COUNTS", {"aggregator": (2,)})
    rows = {row.backend: row for row in measure(opened, rounds=2)}
    assert 0.5 <= rows["folded"].median_s < 2 and rows["onnxruntime"].median_s < 0.5


def test_profiles_add_up(opened):
    folded, graph = profile_folded(opened, 3), profile_graph(opened, 3)
    assert folded["aten::addmm"] > 0 and graph["MatMul"] > 0 and graph["LayerNormalization"] > 0


def test_float32_regions_are_better_than_none():
    rows = {row.island: row for row in pcaseg.benchmarks.studies.mixed_precision.measure(SMALL_EVA, classes=5)}
    assert rows.keys() == {"LayerNorm", "softmax", "GroupNorm", "cosine norm", "class attention"}
    for row in rows.values():
        assert row.places > 0 and 0 < row.error < 6e-4 and row.error < row.error_without
