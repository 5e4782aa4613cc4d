"""The benchmarks that make the README's rows run, and measure what they say."""

from __future__ import annotations

import time

import pytest
import torch
from support import SMALL_EVA

import pcaseg.benchmarks.folding
import pcaseg.benchmarks.islands
from pcaseg.benchmarks.folding import Subjects, measure
from pcaseg.benchmarks.operators import profile_folded, profile_graph


@pytest.fixture(scope="module")
def subjects(tmp_path_factory) -> Subjects:
    return Subjects(SMALL_EVA, tmp_path_factory.mktemp("graphs"), threads=torch.get_num_threads())


def test_folding_compares_before_it_times(subjects, monkeypatch):
    monkeypatch.setattr(pcaseg.benchmarks.folding, "CLASS_COUNTS", {"aggregator": (3,), "image": (2,)})
    rows = {(row.part, row.classes, row.backend): row for row in measure(subjects, rounds=2)}
    backends = ("eager", "folded", "onnxruntime")
    sizes = (("aggregator", 3), ("image", 2))
    assert rows.keys() == {*((*size, backend) for size in sizes for backend in backends), ("matmul", 0, "torch")}
    for (_, _, backend), row in rows.items():
        assert len(row.seconds) == (4 if backend == "torch" else 2) and min(row.seconds) > 0
        assert row.relative_error is None or row.relative_error <= (0 if backend == "eager" else 1e-4)
    assert rows["aggregator", 3, "eager"].gmac > 5 * rows["aggregator", 3, "folded"].gmac


def test_a_delay_is_measured_where_it_is(subjects, monkeypatch):
    calls = subjects.calls("aggregator", 2)
    slow = lambda call: lambda: (time.sleep(0.5), call())[1]  # noqa: E731
    monkeypatch.setattr(subjects, "calls", lambda part, T: calls | {"folded": slow(calls["folded"])})
    monkeypatch.setattr(pcaseg.benchmarks.folding, "CLASS_COUNTS", {"aggregator": (2,)})
    rows = {row.backend: row for row in measure(subjects, rounds=2)}
    assert 0.5 <= rows["folded"].median_s < 2 and rows["onnxruntime"].median_s < 0.5


def test_profiles_add_up(subjects):
    folded, graph = profile_folded(subjects, 3), profile_graph(subjects, 3)
    assert folded["aten::addmm"] > 0 and graph["MatMul"] > 0 and graph["LayerNormalization"] > 0


def test_float32_islands_are_better_than_none():
    rows = {row.island: row for row in pcaseg.benchmarks.islands.measure(SMALL_EVA, classes=5)}
    assert rows.keys() == {"LayerNorm", "softmax", "GroupNorm", "cosine norm", "class attention"}
    for row in rows.values():
        assert row.places > 0 and 0 < row.error < 6e-4 and row.error < row.error_without
