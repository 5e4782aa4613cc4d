"""Whole runs of the benchmark on a small model, with honest and with spoilt backends."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pcaseg.benchmarks import implementations
from pcaseg.benchmarks import rows as row_files
from pcaseg.benchmarks.bench import bench
from pcaseg.benchmarks.bench_table import tables, verdict
from pcaseg.benchmarks.cold import cold_start
from pcaseg.benchmarks.implementations import Implementation, Setting, open_implementation
from pcaseg.benchmarks.plan import BenchOptions, Target
from pcaseg.benchmarks.rows import BenchRow, Cold, read_rows
from pcaseg.benchmarks.timed_calls import ImageCall
from pcaseg.cli import main
from pcaseg.errors import PcasegError
from pcaseg.evaluation.labelled import read_labelled
from pcaseg.runtime.bundle import Bundle
from pcaseg.runtime.onnxruntime_backend import OnnxRuntimeBackend

THREADS = (torch.get_num_threads(),)
QUICK = BenchOptions(classes=(5,), backends=("eager", "onnxruntime-cpu"), threads=THREADS, seconds=0.1, cold=False)


@pytest.fixture(scope="module")
def target(small, copy_bundle, tmp_path_factory) -> Target:
    folder = tmp_path_factory.mktemp("bench")
    bundle = Bundle(copy_bundle(folder / "small.pcaseg"))
    rng = np.random.default_rng(0)
    images = [folder / f"{index}.png" for index in range(2)]
    for path in images:
        Image.fromarray(rng.integers(0, 256, (60, 80, 3), dtype=np.uint8)).save(path)
    return Target(small, {"float32": bundle}, images)


def run(target: Target, **changes) -> dict[str, BenchRow]:
    rows = list(bench(target, replace(QUICK, **changes)))
    found = {row.backend: row for row in rows}
    assert len(found) == len(rows)
    return found


class Spoilt(OnnxRuntimeBackend):
    """A backend with a delay, or with a class that always wins."""

    delay_s = 0.0
    wrong_class: int | None = None

    def logits(self, images, text):
        logits = super().logits(images, text)
        time.sleep(self.delay_s)
        if self.wrong_class is not None:
            logits[:, self.wrong_class] = logits.max() + 1e-5
        return logits


@pytest.fixture
def spoil(monkeypatch):
    """Adds the backend `spoilt` with such a fault."""

    def add(**fault) -> None:
        cls = type("Faulty", (Spoilt,), fault)

        def open_it(setting) -> Implementation:
            backend = cls(setting.bundle, threads=setting.threads)
            return Implementation("spoilt", "a spoilt backend", "float32", backend)

        monkeypatch.setitem(implementations.IMPLEMENTATIONS, "spoilt", open_it)
        monkeypatch.setattr(row_files, "BACKENDS", (*row_files.BACKENDS, "spoilt"))

    return add


def test_rows_say_what_ran_and_that_it_is_right(target):
    rows = run(target, backends=("eager", "folded", "onnxruntime-cpu", "onnxruntime-cuda"))
    eager, folded, graph, skipped = rows.values()
    for row in (eager, folded, graph):
        assert row.status == "ok" and row.reason == "" and row.accuracy.relative_error <= 1e-4
        assert row.engine.latency.p50_ms < row.end_to_end.latency.p50_ms
        assert row.engine.latency.rounds >= 3 and row.gmac > 0 and row.least_mb > 1
        assert row.machine.matmul_gflops > 1 and row.environment["cpu"] and row.point.classes == 5
    assert (eager.computation, folded.computation, graph.computation) == ("published", "folded", "folded")
    assert eager.engine.ratio.value == 1 and graph.engine.ratio.value > 1 and eager.gmac > folded.gmac == graph.gmac
    assert eager.bundle_sha256 is None and graph.bundle_sha256 == target.bundles["float32"].sha256
    assert skipped.status == "skipped" and "GPU" in skipped.reason and skipped.engine is None


PARTS = {"encoder", "cost volume", "guidance", "spatial stream", "semantic stream", "EPL", "decoder"}
WHOLE = {"decode", "preprocess", "engine", "label map"}


@pytest.mark.parametrize(
    ("backend", "stages"),
    [
        ("eager", PARTS | WHOLE | {"copy in", "copy out"}),
        ("folded", PARTS | WHOLE | {"copy in", "copy out"}),
        ("onnxruntime-cpu", WHOLE),
    ],
)
def test_stages_add_up_to_the_whole(target, backend, stages):
    setting = Setting(target.model, target.bundles["float32"], "float32", "cpu", THREADS[0])
    call = ImageCall(open_implementation(backend, setting), ["cat", "grass"], "single", target.images, watch=True)
    start = time.perf_counter()
    call(0)
    total_ms = (time.perf_counter() - start) * 1e3
    (found,) = call.stages
    assert found.keys() == stages == call.stages_ms().keys() and min(found.values()) > 0
    outside = sum(found[stage] for stage in ("decode", "preprocess", "label map"))
    assert sum(found.values()) - outside == pytest.approx(call.engine_ms[0])
    assert 0.5 * total_ms < sum(found.values()) <= total_ms
    assert "forward" not in vars(target.model.aggregator)  # the wrapping is gone


@pytest.mark.timing
def test_a_planted_delay_is_found_in_the_engine(target, spoil):
    spoil(delay_s=0.3)
    rows = run(target, backends=("eager", "onnxruntime-cpu", "spoilt"))
    plain, delayed = (rows[name].engine.latency.min_ms for name in ("onnxruntime-cpu", "spoilt"))
    assert delayed - plain == pytest.approx(300, rel=0.1)


def test_a_planted_wrong_class_fails_its_gate(target, spoil, capsys):
    spoil(wrong_class=3)
    rows = run(target, backends=("eager", "onnxruntime-cpu", "spoilt"))
    assert rows["onnxruntime-cpu"].status == "ok"
    wrong = rows["spoilt"]
    assert wrong.status == "failed" and "label_agreement" in wrong.reason and wrong.accuracy.worst_iou < 0.5
    assert "FAILED" in tables(rows.values()) and "NOT RIGHT by their gates: spoilt" in verdict(list(rows.values()))


def test_a_backend_that_breaks_is_named_and_the_others_go_on(target, spoil):
    def broken(self, images, text):
        raise RuntimeError("out of luck\nsecond line")

    spoil(logits=broken)
    rows = run(target, backends=("eager", "spoilt", "onnxruntime-cpu"))
    assert (rows["spoilt"].status, rows["spoilt"].reason) == ("failed", "out of luck")
    assert rows["spoilt"].engine is None and rows["onnxruntime-cpu"].status == "ok"


def test_a_gate_of_ones_own(target):
    rows = run(target, backends=("onnxruntime-cpu",), gate={"worst_iou": 1.0, "relative_error": 1e-12})
    assert rows["onnxruntime-cpu"].status == "failed" and "1e-12" in rows["onnxruntime-cpu"].reason


def test_several_images_a_call_and_streams(target):
    row = run(target, images=(3,), streams=(2,), backends=("onnxruntime-cpu",))["onnxruntime-cpu"]
    assert 0 < row.accuracy.relative_error <= 1e-4  # of eager float32, though that does not take part
    assert row.status == "ok" and row.end_to_end is None and row.stages_ms == {}
    one = run(target, backends=("onnxruntime-cpu",))["onnxruntime-cpu"]
    assert row.gmac == pytest.approx(3 * one.gmac, rel=1e-3)


def test_sweeps(target):
    sweep = replace(QUICK, classes=(3, 1), strategies=("single", "sliding"), backends=("onnxruntime-cpu", "tensorrt"))
    rows = list(bench(target, sweep))
    assert [(row.point.strategy, row.point.classes) for row in rows[::2]] == [
        ("single", 1),
        ("single", 3),
        ("sliding", 1),
        ("sliding", 3),
    ]
    assert rows[4].gmac == pytest.approx(5 * rows[0].gmac, rel=1e-3) and len({row.run for row in rows}) == 1


@pytest.mark.long
def test_halves_have_their_own_gate(target):
    rows = run(target, backends=("eager", "eager-autocast", "folded"), precisions=("bfloat16",))
    assert rows["eager-autocast"].precision == rows["folded"].precision == "bfloat16"
    assert rows["folded"].gate.keys() == {"relative_error"} and rows["eager"].precision == "float32"
    assert 1e-4 < rows["folded"].accuracy.relative_error < 5e-2


def test_labelled_images(target, tmp_path, spoil):
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    (tmp_path / "classes.txt").write_text("cat\ngrass\nsky\n")
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(tmp_path / "images" / "a.png")
    Image.fromarray(rng.integers(0, 3, (40, 50), dtype=np.uint8)).save(tmp_path / "labels" / "a.png")
    spoil(wrong_class=1)
    rows = run(
        target,
        backends=("onnxruntime-cpu", "spoilt"),
        labelled=read_labelled(tmp_path),
        gate={"miou_difference": 0.1},
    )
    right, wrong = rows["onnxruntime-cpu"], rows["spoilt"]
    assert right.status == "ok" and right.accuracy.miou > 5 and abs(right.accuracy.miou_difference) <= 0.1
    assert wrong.status == "failed" and wrong.accuracy.miou == pytest.approx(100 / 9, abs=1)  # a third of a third
    assert "miou_difference" in wrong.reason


def test_an_interrupted_run_leaves_no_empty_file(target, small_preset, tmp_path, capsys, monkeypatch):
    stored = tmp_path / "rows.jsonl"

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("pcaseg.benchmarks.bench.machine_rates", interrupted)
    assert main(["bench", str(target.bundles["float32"].path), "--no-cold", "--out", str(stored)]) == 130
    assert "interrupted" in capsys.readouterr().err and not stored.exists()


def start(target: Target, backend: str) -> Cold:
    """A cold start with three classes on one thread."""
    bundle, image = target.bundles["float32"].path, target.images[0]
    return cold_start(backend, bundle, image, classes=3, precision="float32", device="cpu", threads=1, model="")


def test_cold_start_without_torch(target):
    found = start(target, "onnxruntime-cpu")
    assert min(found.import_s, found.load_s, found.vocabulary_s, found.first_frame_s) > 0
    assert 20 < found.peak_host_mib < 400 and found.peak_device_mib is None  # torch alone takes more


def test_a_cold_start_that_fails_says_why(target):
    with pytest.raises(PcasegError, match=r"process of its own failed \(.*no such preset"):
        start(target, "eager")  # whose preset only this process knows


@pytest.mark.long
def test_the_command(target, small_preset, tmp_path, capsys, monkeypatch, spoil):
    bundle, photo, stored = target.bundles["float32"].path, target.images[0], tmp_path / "rows.jsonl"
    words = ["bench", bundle, "--photos", photo, "--classes", "2", "--seconds", "0.1", "--no-cold", "--out", stored]
    words += ["--backends", "eager,onnxruntime-cpu"]
    assert main([str(word) for word in words]) == 0
    out = capsys.readouterr().out
    assert "2 classes, single, 1 image of 80 x 60 px a call" in out and "all backends are right" in out
    assert "x eager   times faster than eager float32" in out and "drawn from a seed" in out
    assert "mIoU" in out
    assert [row.backend for row in read_rows([stored])] == ["eager", "onnxruntime-cpu"]
    spoil(wrong_class=0)
    words[-1] += ",spoilt"
    assert main([str(word) for word in words]) == 1
    assert len(read_rows([stored])) == 5


def test_where_nothing_runs_nothing_is_right(target, small_preset, tmp_path, capsys):
    words = ["bench", str(target.bundles["float32"].path), "--backends", "tensorrt", "--classes", "2"]
    words += ["--photos", str(target.images[0]), "--seconds", "0.1", "--no-cold"]
    assert main(words) == 2
    said = capsys.readouterr()
    assert "nothing was measured" in said.err and "are right" not in said.out


@pytest.mark.parametrize(
    ("words", "fragment"),
    [
        (["--backends", "tensorflow"], "choose from eager"),
        (["--labelled", "nowhere"], "nowhere"),
        (["--precision", "int8"], "choose from float32"),
        (["--seconds", "0"], "give seconds"),
        (["--batch", "0"], "whole numbers from 1"),
        (["--batch", "999999999"], "whole numbers from 1 to 1024"),
        (["--threads", "100000"], "whole numbers from 1"),
        (["--image-size", "0x0"], "sides from 1 to 8192"),
        (["--gate", "label_agreement=2"], "shares from 0 to 1"),
        (["--device", "cuda"], "cannot use a GPU here"),
        (["--html", "setup.py"], "is not a report"),
        (["--html", "x.html", "--out", "x.html"], "two files"),
        (["--gate", "speed=3"], "give NAME=NUMBER"),
        (["--photos", "nowhere.png"], "nowhere.png"),
        (["--strategy", "fast"], "choose from single"),
        (["--classes", "900"], "847"),
        (["--out", "setup.py"], "nothing was added"),
    ],
)
def test_options_that_cannot_be_used(target, small_preset, words, fragment, capsys, monkeypatch):
    monkeypatch.chdir(Path(__file__).parent.parent.parent)
    command = ["bench", str(target.bundles["float32"].path), *words]
    try:
        code = main(command)
    except SystemExit as error:  # argparse
        code = error.code
    err = capsys.readouterr().err
    assert code == 2 and fragment in err and "Traceback" not in err
