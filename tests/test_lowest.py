"""The declared lower bounds: `make test-lowest` runs them, and none is forgotten."""

from __future__ import annotations

import pytest
from lowest import pins, project


def test_every_dependency_has_one_lower_bound():
    everything = pins(*project()["optional-dependencies"])
    assert {"numpy==1.26", "onnxruntime==1.20", "torch==2.11"} <= set(everything)
    assert set(pins()) < set(pins("onnxruntime")) < set(pins("torch")) < set(everything)


@pytest.mark.parametrize("line", ["numpy", "numpy==1.26", "numpy<3", "numpy>=1.26,>=1.27"])
def test_a_dependency_without_one_is_refused(monkeypatch, line):
    monkeypatch.setattr("lowest.project", lambda: {"name": "pcaseg", "dependencies": [line]})
    with pytest.raises(ValueError, match="numpy.*declare one lower bound"):
        pins()
