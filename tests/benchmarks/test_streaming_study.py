"""The study of streams beside plain loops: its rows, its table, and that wrong labels end it."""

from __future__ import annotations

import json

import numpy as np
import pytest

from pcaseg.benchmarks.studies import streaming
from pcaseg.benchmarks.study_tables import streaming_table
from pcaseg.errors import PcasegError


def test_rows_and_table(monkeypatch, trained_tiny, tmp_path):
    monkeypatch.setattr(streaming, "SIZES", ((20, 30), (33, 24)))
    monkeypatch.setattr(streaming, "LENGTHS", (2,))
    out = tmp_path / "streaming_x.json"
    assert streaming.main([str(trained_tiny), "--out", str(out), "--frames", "2", "--rounds", "2"]) == 0
    rows = json.loads(out.read_text())["rows"]
    assert [(row["height"], row["width"], row["classes"]) for row in rows] == [(20, 30, 2), (33, 24, 2)]
    assert all(len(row["loop_s"]) == len(row["stream_s"]) == 2 for row in rows)
    lines = streaming_table(tmp_path).splitlines()
    assert len(lines) == 4 and "20 x 30" in lines[2]


def test_other_labels_are_found(monkeypatch, trained_tiny):
    right = streaming.by_stream
    monkeypatch.setattr(streaming, "by_stream", lambda *given: [np.roll(one + 1, 1) for one in right(*given)])
    with streaming.Segmenter(trained_tiny) as segmenter, pytest.raises(PcasegError, match="not those of single calls"):
        streaming.measure(segmenter, (20, 30), 2, frames=2, rounds=2)


def test_one_round_has_no_interval():
    with pytest.raises(PcasegError, match="rounds=1: give 2 or more"):
        streaming.measure(None, (20, 30), 2, frames=1, rounds=1)
