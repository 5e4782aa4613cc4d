"""The soak run, short, on a graph of a few nodes; and that it finds what it looks for."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("scipy")
from pcaseg.benchmarks.studies import soak as study
from pcaseg.errors import PcasegError
from pcaseg.runtime.segmenter import Segmenter
from pcaseg.runtime.steps import Steps

FRAMES = 600


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study, "THROW_EVERY", 101)


def test_a_short_run(bundle_path: Path, tmp_path: Path, often: None) -> None:
    out = tmp_path / "soak.json"
    study.main([str(bundle_path), "--frames", str(FRAMES), "--threads", "1", "--out", str(out)])
    (row,) = json.loads(out.read_text())["rows"]
    assert (row["frames"], row["wrong"], row["threads"], row["files"]) == (FRAMES, 0, 0, 0)
    assert row["corrupt"] == len(range(0, FRAMES, study.CORRUPT_EVERY))
    assert row["changes"] == FRAMES // study.CHANGE_EVERY and row["exceptions"] == FRAMES // 101
    assert 0 < row["p50_ms"] <= row["p95_ms"] <= row["p99_ms"]
    assert row["mib_low"] <= row["mib_per_1000"] <= row["mib_high"]


def test_wrong_labels_are_found(bundle_path: Path, monkeypatch: pytest.MonkeyPatch, often: None) -> None:
    label, calls = Steps.label, iter(range(10**6))

    def now_and_then_wrong(self: Steps, job: Any, *more: Any) -> Any:
        result = label(self, job, *more)
        if next(calls) == 300:  # of the stream: the table of right answers takes the first 40
            result.labels[0, 0] ^= 1
        return result

    monkeypatch.setattr(Steps, "label", now_and_then_wrong)
    with Segmenter(bundle_path, threads=1) as segmenter:
        row = study.soak(segmenter, FRAMES)
    assert row.wrong == 1 and not row.passed


def test_growth_is_found(bundle_path: Path, monkeypatch: pytest.MonkeyPatch, often: None) -> None:
    kept, label = [], Steps.label

    def keeping(self: Steps, job: Any, *more: Any) -> Any:
        kept.append(np.ones(10_000))
        return label(self, job, *more)

    monkeypatch.setattr(Steps, "label", keeping)
    with Segmenter(bundle_path, threads=1) as segmenter:
        row = study.soak(segmenter, FRAMES)
    assert row.wrong == 0 and row.mib_low > 40 and not row.passed  # 76 MiB per 1,000 frames


def test_too_few_frames(make_fake_backend: Callable[[], Any]) -> None:
    with pytest.raises(PcasegError, match="frames=100: give 200 or more"):
        study.soak(Segmenter(make_fake_backend()), 100)
