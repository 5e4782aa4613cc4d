"""Stages of the model alone, as one image's run first calls them: `pytest benchmarks/bench_stages.py`.

A stage includes what is within it: `cost volume` in the eager model is the whole aggregator. The folded model on a CPU
runs few classes at a time, and a stage is then one such part.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from pcaseg.benchmarks.implementations import Implementation
from pcaseg.benchmarks.plan import Target
from pcaseg.benchmarks.stages import first_calls, stage_methods
from pcaseg.class_lists import first_names
from pcaseg.runtime.segmenter import Segmenter

STAGES = ("encoder", "guidance", "spatial stream", "semantic stream", "EPL", "decoder")


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("implementation", ["eager", "folded"], indirect=True)
def test_stage(
    benchmark: Any, request: pytest.FixtureRequest, target: Target, implementation: Implementation, stage: str
) -> None:
    """One stage, on the inputs of a real run."""
    segmenter = Segmenter(implementation.backend)
    segmenter.set_vocabulary(first_names(request.config.getoption("--classes")))
    calls = first_calls(stage_methods(implementation.backend), lambda: segmenter(target.images[0]))
    with torch.no_grad():
        assert benchmark.pedantic(calls[stage], rounds=5, warmup_rounds=1) is not None
