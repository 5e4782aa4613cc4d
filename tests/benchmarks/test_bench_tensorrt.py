"""TensorRT in the benchmark, over a fake TensorRT and a fake driver."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from cuda_fake import FakeDriver
from PIL import Image
from support_rows import make_row
from tensorrt_fake import fake_tensorrt

from pcaseg.benchmarks import cold, implementations
from pcaseg.benchmarks.bench import bench
from pcaseg.benchmarks.implementations import Setting, SkippedError, open_implementation
from pcaseg.benchmarks.plan import BenchOptions, Target
from pcaseg.benchmarks.report import html_report
from pcaseg.benchmarks.rows import EngineFacts
from pcaseg.benchmarks.timed_calls import NetworkCall
from pcaseg.benchmarks.timing import OwnTime, perf_timer, unless_own
from pcaseg.export.tensorrt.build import build_engines
from pcaseg.runtime.bundle import Bundle
from pcaseg.runtime.engines import LayerShare

THREADS = (torch.get_num_threads(),)


@pytest.fixture(scope="module")
def target(small, copy_bundle, tmp_path_factory) -> Target:
    folder = tmp_path_factory.mktemp("bench-trt")
    bundle = Bundle(copy_bundle(folder / "small.pcaseg"))
    path = folder / "0.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)).save(path)
    return Target(small, {"float32": bundle}, [path])


@pytest.fixture
def driver(monkeypatch, tmp_path) -> FakeDriver:
    """Of a machine with TensorRT."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    driver = FakeDriver()
    monkeypatch.setitem(sys.modules, "tensorrt", fake_tensorrt("11.4", driver))
    monkeypatch.setattr("pcaseg.runtime.tensorrt_backend.open_driver", lambda device: driver)
    return driver


@pytest.fixture
def built(target, driver):
    """The sidecar of the main engine."""
    main, _ = build_engines(target.bundles["float32"], driver=driver)
    return main.engine.sidecar


def setting(target: Target, **changes) -> Setting:
    return replace(Setting(target.model, target.bundles["float32"], "float32", "cuda", 1), **changes)


def test_skipped_for_its_true_reason(target, monkeypatch):
    with pytest.raises(SkippedError, match="this run is on the CPU"):
        open_implementation("tensorrt", setting(target, device="cpu"))
    with pytest.raises(SkippedError, match="export one with --precision float16"):
        open_implementation("tensorrt", setting(target, precision="float16"))
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(SkippedError, match=r'TensorRT cannot be imported.*pip install "\.\[tensorrt\]"'):
        open_implementation("tensorrt", setting(target))


def test_skipped_without_an_engine(target, driver):
    with pytest.raises(SkippedError, match=r"no TensorRT engine of its main graph; run: pcaseg build .*small\.pcaseg"):
        open_implementation("tensorrt", setting(target))


@pytest.fixture
def on_fake_gpu(monkeypatch):
    """Opens TensorRT as on a GPU, though the run is on a CPU."""
    real = implementations.IMPLEMENTATIONS["tensorrt"]
    monkeypatch.setitem(implementations.IMPLEMENTATIONS, "tensorrt", lambda given: real(replace(given, device="cuda")))


def test_rows_hold_what_the_engine_is_made_of(target, built, on_fake_gpu):
    options = BenchOptions(classes=(5,), backends=("eager", "tensorrt"), threads=THREADS, seconds=0.1, cold=False)
    eager, row = bench(target, options)
    assert row.status == "ok" and row.accuracy.relative_error <= 1e-4 and row.precision == "float32"
    assert row.engine_sha256 == built.sha256 and row.bundle_sha256 == target.bundles["float32"].sha256
    assert row.engine_facts == EngineFacts(built.key.tensorrt, built.layers, built.build_seconds)
    assert row.engine_facts.layers["fp32"].layers > 10 and built.key.tensorrt in row.runs
    assert row.end_to_end.latency.p50_ms > row.engine.latency.p50_ms and set(row.stages_ms) >= {"decode", "engine"}
    assert eager.engine_sha256 is None and eager.engine_facts is None


def test_the_engine_alone_takes_its_own_time(target, built, on_fake_gpu):
    options = BenchOptions(classes=(5,), images=(3,), backends=("tensorrt",), threads=THREADS, seconds=0.1, cold=False)
    (row,) = bench(target, options)
    assert row.status == "ok" and set(row.engine.latency.samples_ms) == {1.0}  # the fake driver's events


def test_several_streams_are_timed_from_outside(target, built):
    implementation = open_implementation("tensorrt", setting(target))
    batches = [np.zeros((1, 3, 96, 96), np.float32)]
    assert isinstance(NetworkCall(implementation, ["cat"], batches)(0), OwnTime)
    assert not isinstance(NetworkCall(implementation, ["cat"], batches, streams=2)(0), OwnTime)


def test_timers_believe_calls_that_took_their_time():
    timer = unless_own(perf_timer)
    assert timer(lambda: OwnTime(123.0)) == 123.0
    assert timer(lambda: 123.0) < 100


def test_a_vocabulary_without_an_engine_fails_and_says_so(target, built, on_fake_gpu):
    options = BenchOptions(classes=(300,), backends=("tensorrt",), threads=THREADS, seconds=0.1, cold=False)
    (row,) = bench(target, options)
    assert row.status == "failed" and "--profile large" in row.reason and row.engine_facts is None


def test_cold_start(target, built):
    found = cold.measure(
        "tensorrt",
        target.bundles["float32"].path,
        target.images[0],
        classes=3,
        precision="float32",
        device="cuda",
        threads=1,
        model="",
        started=0.0,
    )
    assert min(found.load_s, found.vocabulary_s, found.first_frame_s) > 0


def test_a_cold_start_needs_no_torch(target):
    code = (
        "import sys; sys.modules['torch'] = sys.modules['tensorrt'] = None\n"
        "from pathlib import Path\n"
        "from pcaseg.benchmarks.cold import measure\n"
        "measure('tensorrt', Path(sys.argv[1]), Path(sys.argv[2]), classes=1, precision='float32', device='cuda',\n"
        "        threads=1, model='', started=0.0)"
    )
    words = [sys.executable, "-c", code, target.bundles["float32"].path, target.images[0]]
    run = subprocess.run(words, capture_output=True, text=True)
    assert "MissingDependencyError: TensorRT cannot be imported" in run.stderr


def test_the_report_shows_layer_types():
    facts = EngineFacts("10.13.3.9", {"fp16": LayerShare(212, 3.21), "fp32": LayerShare(40, None)}, 61.4)
    page = html_report([make_row("eager"), make_row(engine_facts=facts, engine_sha256="cd" * 32)])
    assert "fp16 212 layers, 3.21 ms; fp32 40 layers" in page and "10.13.3.9" in page and "cd" * 8 in page
    assert "TensorRT engines" not in html_report([make_row("eager"), make_row()])
