"""Whole images, file to label map, by pytest-benchmark: `pytest benchmarks/bench_images.py`."""

from __future__ import annotations

from typing import Any

import pytest

from pcaseg.benchmarks.implementations import IMPLEMENTATIONS, NOT_BY_DEFAULT, Implementation
from pcaseg.benchmarks.plan import Target
from pcaseg.class_lists import first_names
from pcaseg.runtime.segmenter import Segmenter


@pytest.mark.parametrize(
    "implementation", [name for name in IMPLEMENTATIONS if name not in NOT_BY_DEFAULT], indirect=True
)
def test_image(benchmark: Any, request: pytest.FixtureRequest, target: Target, implementation: Implementation) -> None:
    """One image after the other; the vocabulary is set before."""
    segmenter = Segmenter(implementation.backend)
    segmenter.set_vocabulary(first_names(request.config.getoption("--classes")))
    result = benchmark.pedantic(segmenter, args=(target.images[0],), rounds=5, warmup_rounds=1)
    assert result.labels.shape == (480, 640)
