"""Engines at the points of the references, over a fake TensorRT of version 8.5 and a fake driver."""

from __future__ import annotations

import shutil
import sys

import numpy as np
import pytest
from cuda_fake import FakeDriver
from tensorrt_fake import fake_tensorrt

from pcaseg.benchmarks.gpu import points, references
from pcaseg.benchmarks.gpu.references import GpuPoint, read_reference, write_references
from pcaseg.benchmarks.rows import read_rows
from pcaseg.errors import PcasegError
from pcaseg.export.bundle import write_bundle
from pcaseg.export.options import ExportOptions
from pcaseg.export.tensorrt.build import build_engines
from pcaseg.runtime.bundle import Bundle
from pcaseg.runtime.tensorrt_backend import TensorRTBackend

SMALL = (GpuPoint(3, "single", 1), GpuPoint(4, "sliding", 1), GpuPoint(3, "single", 2))
OLD = {"opset": 17, "layer_norm": "decomposed"}


@pytest.fixture(scope="module")
def folder(small, copy_bundle, tmp_path_factory):
    """A bundle, and references."""
    folder = tmp_path_factory.mktemp("gpu")
    copy_bundle(folder / "logits.pcaseg", **OLD)
    write_references(small, Bundle(folder / "logits.pcaseg"), folder / "references", "cpu", SMALL)
    return folder


@pytest.fixture
def opened(folder, monkeypatch, tmp_path):
    """Opens one of the bundles on its engines."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(points, "POINTS", SMALL)
    monkeypatch.setattr(points, "ROUNDS", 3)
    monkeypatch.setattr(points, "CALLS", 1)
    driver = FakeDriver()
    monkeypatch.setitem(sys.modules, "tensorrt", fake_tensorrt("8.5", driver))

    def open_it(name: str) -> tuple[Bundle, TensorRTBackend]:
        bundle = Bundle(folder / f"{name}.pcaseg")
        build_engines(bundle, driver=driver)
        return bundle, TensorRTBackend(bundle, driver=driver)

    return open_it


def test_every_point_has_a_row_once(folder, opened, tmp_path, capsys):
    out = tmp_path / "rows" / "engines.jsonl"
    assert points.measure(*opened("logits"), folder / "references", out)
    rows = read_rows([out])
    assert [(row.point.classes, row.point.strategy, row.point.images) for row in rows] == [
        (3, "single", 1),
        (4, "sliding", 1),
        (3, "single", 2),
    ]
    for row in rows:
        assert row.status == "ok" and row.accuracy.relative_error <= 1e-4 and row.accuracy.label_agreement > 0.999
        assert set(row.engine.latency.samples_ms) == {1.0} and row.engine.latency.n == points.ROUNDS
        assert row.engine_facts.tensorrt.startswith("8.5") and row.environment["gpu"] == "NVIDIA Test GPU"
        assert (row.end_to_end is None) == (row.point.images == 2) and row.point.height == 640
    assert "3 single 1: ok" in capsys.readouterr().out
    assert points.measure(*opened("logits"), folder / "references", out) and read_rows([out]) == rows


@pytest.mark.slow
def test_a_graph_of_labels_runs_its_own_strategy(small, folder, opened, tmp_path):
    labels = ExportOptions(graph="labels", strategy="sliding", image_size=(640, 640), **OLD)
    write_bundle(small, folder / "labels.pcaseg", options=labels)
    assert points.measure(*opened("labels"), folder / "references", tmp_path / "rows.jsonl")
    (row,) = read_rows([tmp_path / "rows.jsonl"])
    assert row.status == "ok" and row.point.strategy == "sliding" and "graph of labels" in row.runs


def test_what_is_not_right_is_a_failed_row(folder, opened, tmp_path):
    spoilt = tmp_path / "references"
    shutil.copytree(folder / "references", spoilt)
    (spoilt / SMALL[1].file).unlink()
    held = read_reference(spoilt / SMALL[0].file)
    np.savez(spoilt / SMALL[0].file, **(vars(held) | {"logits": held.logits[:, ::-1], "labels": 2 - held.labels}))
    out = tmp_path / "rows.jsonl"
    assert not points.measure(*opened("logits"), spoilt, out)  # one point did not run
    wrong, missing, right = read_rows([out])
    assert wrong.status == "failed" and "relative_error" in wrong.reason and wrong.engine is not None
    assert missing.status == "failed" and "gpu.prepare" in missing.reason and missing.engine is None
    assert right.status == "ok"
    shutil.copy(folder / "references" / SMALL[1].file, spoilt)
    assert points.measure(*opened("logits"), spoilt, out)
    assert [row.status for row in read_rows([out])] == ["failed", "failed", "ok", "ok"]  # only what had not run


def test_references_stay(small, folder):
    before = {path: path.stat().st_mtime_ns for path in (folder / "references").iterdir()}
    write_references(small, Bundle(folder / "logits.pcaseg"), folder / "references", "cpu", SMALL)
    assert before == {path: path.stat().st_mtime_ns for path in (folder / "references").iterdir()}
    assert len(before) == 4


def test_a_damaged_reference_is_an_error(tmp_path):
    path = tmp_path / SMALL[0].file
    for damaged in (b"", b"PK\x03\x04 no zip"):
        path.write_bytes(damaged)
        with pytest.raises(PcasegError, match=r"is no reference .*gpu\.prepare"):
            read_reference(path)


def test_the_command_names_what_is_missing(folder, monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    words = ["--references", str(folder / "references"), "--rows", str(tmp_path / "rows.jsonl")]
    assert points.main([str(folder / "logits.pcaseg"), *words]) == 2
    assert "TensorRT cannot be imported" in capsys.readouterr().err


def test_references_need_the_device(folder, tmp_path, capsys, monkeypatch):
    words = [str(folder / "logits.pcaseg"), "--out", str(tmp_path / "r"), "--device", "cuda"]
    monkeypatch.setattr("torch.zeros", lambda *_, **__: (_ for _ in ()).throw(RuntimeError("no CUDA")))
    assert references.main(words) == 2 and "cannot use a GPU here" in capsys.readouterr().err
