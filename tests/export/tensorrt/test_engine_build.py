"""The builder and the engine cache over a fake TensorRT of each version, and `pcaseg build`."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from cuda_fake import FakeDriver
from tensorrt_fake import fake_tensorrt

from pcaseg.cli import main
from pcaseg.errors import EngineError, MissingDependencyError, PcasegError
from pcaseg.export.bundle import check_destination
from pcaseg.export.tensorrt.build import build_engines
from pcaseg.export.tensorrt.builder import BuildOptions, _reasons
from pcaseg.runtime.bundle import Bundle
from pcaseg.runtime.engines import stored_engines
from pcaseg.runtime.tensorrt_api import capture_log


def test_engines_are_found_again(bundle, machine):
    machine()
    first = build_engines(bundle(), profile="large")
    assert [found.engine.sidecar.key.graph for found in first] == ["main", "large", "text"]
    assert all(found.built for found in first)
    again = build_engines(bundle(), profile="large", build=False)
    assert not any(found.built for found in again)
    assert [a.engine.plan for a in again] == [a.engine.plan for a in first]
    other = build_engines(bundle(), profile="edge")
    assert other[0].built and len(stored_engines(bundle())) == 5


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"profile": "edge"}, "profiles are default-one"),
        ({"options": BuildOptions(version_compatible=True)}, "version_compatible is False, not True"),
        ({"options": BuildOptions(hardware="ampere-and-newer")}, "hardware is this-gpu, not ampere-and-newer"),
        ({"options": BuildOptions(optimization_level=5)}, "optimization_level is 3, not 5"),
    ],
)
def test_no_build_names_what_differs(bundle, machine, change, named):
    machine()
    with pytest.raises(EngineError, match="has no TensorRT engine of its main graph.*leave out --no-build"):
        build_engines(bundle(), build=False)
    build_engines(bundle())
    with pytest.raises(EngineError, match=named):
        build_engines(bundle(), build=False, **change)


def test_an_edited_graph_is_noticed(bundle, machine):
    machine()
    build_engines(bundle())
    opened = bundle()
    path = opened.path / "segmenter.onnx"
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    for profile in ("edge", "default"):  # one is still to be built, the other was
        with pytest.raises(PcasegError, match=r"segmenter\.onnx differs from the manifest"):
            build_engines(opened, profile=profile)


def test_options_reach_the_builder(bundle, machine, plan_of):
    machine("10.13")
    options = BuildOptions(version_compatible=True, weight_stripped=True, hardware="ampere-and-newer")
    (engine, _) = build_engines(bundle(), options=options)
    assert {"VERSION_COMPATIBLE", "STRIP_PLAN", "REFIT_IDENTICAL"} <= {*plan_of(engine)["flags"]}
    assert all(share.time_ms is None for share in engine.engine.sidecar.layers.values())
    machine("8.5")
    for wanted, what in (
        (BuildOptions(version_compatible=True), "version-compatible"),
        (BuildOptions(weight_stripped=True), "weight-stripped"),
        (BuildOptions(hardware="ampere-and-newer"), "ampere-and-newer"),
    ):
        with pytest.raises(EngineError, match=rf"TensorRT 8\.5.* has no .*{what}"):
            build_engines(bundle(), options=wanted)
    for number in ({"workspace_mib": 0}, {"optimization_level": 6}):
        with pytest.raises(PcasegError, match=next(iter(number)).split("_")[0]):
            BuildOptions(**number)


def test_failures_say_why_and_leave_nothing(bundle, machine):
    trt = machine()
    trt._say = [(17, "node_TopK_3", "Assertion failed: K must be an initializer")]
    with pytest.raises(EngineError, match=r"node 17 node_TopK_3 \(TopK\): Assertion failed: K must .*a newer TensorRT"):
        build_engines(bundle())
    trt._say = []
    trt._fail = "Out of memory: requested 12345678 bytes"
    with pytest.raises(EngineError, match=r"builds no engine: Out of memory.*lower --workspace"):
        build_engines(bundle())
    assert not [path for path in (bundle().path / "engines").iterdir() if path.suffix in (".plan", ".json")]
    trt._fail = None
    assert build_engines(bundle())[0].built


@pytest.mark.parametrize(("version", "advised"), [("8.5", True), ("10.3", False), ("11.4", False)])
def test_only_the_oldest_parser_is_said_to_need_old_graphs(bundle, machine, version, advised):
    machine(version)._say = [(0, "node_Gelu_0", "no importer registered for op: Gelu")]
    with pytest.raises(EngineError, match="no importer registered") as raised:
        build_engines(bundle())
    assert ("--opset 17 --layer-norm decomposed" in str(raised.value)) == advised


def _empty(self, model, path=None):
    return True


@pytest.mark.parametrize(
    ("kind", "method", "answer", "said"),
    [
        ("IBuilderConfig", "add_optimization_profile", lambda self, profile: -1, "refuses profile default-one"),
        ("IBuilderConfig", "set_timing_cache", lambda self, cache, ignore: False, "refuses the timing cache"),
        ("IBuilderConfig", "create_timing_cache", lambda self, data: None, "refuses the timing cache"),
        ("IBuilderConfig", "set_tactic_sources", lambda self, mask: False, "refuses to leave out CUBLAS"),
        ("OnnxParser", "parse", _empty, "no layer in the graph"),
    ],
)
def test_an_answer_of_no_is_an_error(bundle, machine, monkeypatch, kind, method, answer, said):
    monkeypatch.setattr(getattr(machine(), kind), method, answer)
    with pytest.raises(EngineError, match=said):
        build_engines(bundle())
    assert not [path for path in (bundle().path / "engines").iterdir() if path.suffix in (".plan", ".json")]


@pytest.mark.parametrize("before", [0, 1, 19, 20, 21, 45])
def test_the_reasons_are_those_of_the_build(before):
    trt = fake_tensorrt("10.13", FakeDriver())
    log = capture_log(trt)
    for i in range(before):
        log.log(trt.ILogger.Severity.ERROR, f"former {i}")
    began = log.error_count
    log.log(trt.ILogger.Severity.WARNING, "a warning")
    for i in range(5):
        log.log(trt.ILogger.Severity.ERROR, f"new {i}")
    assert _reasons(log, began).startswith("new 2; new 3; new 4; ")


def test_logs_of_a_process_hear_the_same(tmp_path):
    trt, other = (fake_tensorrt("10.13", FakeDriver()) for _ in range(2))
    first, second, foreign = capture_log(trt), capture_log(trt, tmp_path / "log"), capture_log(other)
    first.log(trt.ILogger.Severity.ERROR, "said to the first")
    second.close()
    first.log(trt.ILogger.Severity.ERROR, "said after the second was closed")
    assert second.errors == ["said to the first"] and first.errors == [
        *second.errors,
        "said after the second was closed",
    ]
    assert "said to the first" in (tmp_path / "log").read_text() and not foreign.errors


def test_a_zipped_bundle_keeps_its_engines_in_the_cache(bundle, machine, tmp_path):
    machine()
    folder = bundle().path
    with zipfile.ZipFile(tmp_path / "small.zip", "w") as archive:
        for path in folder.iterdir():
            archive.write(path, path.name)
    (engine, _) = build_engines(Bundle(tmp_path / "small.zip"))
    assert (tmp_path / "cache" / "pcaseg" / "engines") in engine.engine.plan.parents
    assert not build_engines(Bundle(tmp_path / "small.zip"), build=False)[0].built


def test_a_bundle_with_engines_may_be_exported_over(bundle, machine):
    machine()
    build_engines(bundle())
    check_destination(bundle().path, overwrite=True)
    (bundle().path / "notes.txt").write_text("mine")
    with pytest.raises(PcasegError, match=r"notes\.txt"):
        check_destination(bundle().path, overwrite=True)


def test_the_timing_cache_grows(bundle, machine, tmp_path):
    machine()
    cache = tmp_path / "tactics.bin"
    build_engines(bundle(), timing_cache=cache)
    first = cache.read_bytes()
    build_engines(bundle(), profile="edge", timing_cache=cache)
    assert len(cache.read_bytes()) > len(first) > 0
    (tmp_path / "folder").mkdir()
    for name in ("folder", "tactics.bin/beneath"):
        with pytest.raises(EngineError, match="cannot be used"):
            build_engines(bundle(), profile="large", timing_cache=tmp_path / name)
    assert sorted(path.name for path in tmp_path.glob("*.lock")) == ["tactics.bin.lock"]


def test_no_other_file_is_taken_for_a_timing_cache(bundle, machine, tmp_path):
    machine()
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(b"\xff\xd8 a photograph")
    with pytest.raises(EngineError, match=r"photo\.jpg: exists and is not a timing cache of pcaseg; name another file"):
        build_engines(bundle(), timing_cache=photo)
    assert photo.read_bytes() == b"\xff\xd8 a photograph"
    assert [path.name for path in tmp_path.glob("photo*")] == ["photo.jpg"]
    assert not (bundle().path / "engines").exists()


def test_a_place_without_room_for_engines(bundle, machine):
    machine()
    (bundle().path / "engines").write_text("not a folder")
    with pytest.raises(PcasegError, match=r"engines: no folder can be made there \(File exists\)"):
        build_engines(bundle())


def test_a_damaged_plan_is_named(bundle, machine):
    machine()
    (main_engine, _) = build_engines(bundle())
    main_engine.engine.plan.write_bytes(b"half")
    with pytest.raises(EngineError, match="the plan of its main engine is missing or damaged; to build it leave out"):
        build_engines(bundle(), build=False)
    main_engine.engine.plan.with_suffix(".json").write_text("{")
    with pytest.raises(EngineError, match=r"\.json: .*delete it, and run pcaseg build again"):
        build_engines(bundle(), profile="edge", build=False)


def build_in_process(path: str, cache: str, results) -> None:
    import os

    os.environ["XDG_CACHE_HOME"] = cache
    driver = FakeDriver()
    sys.modules["tensorrt"] = fake_tensorrt("11.4", driver)
    results.put([found.built for found in build_engines(Bundle(path), profile="edge", driver=driver)])


@pytest.mark.long
def test_two_processes_build_once(bundle, tmp_path):
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    arguments = (str(bundle().path), str(tmp_path / "cache"), results)
    workers = [context.Process(target=build_in_process, args=arguments) for _ in range(2)]
    for worker in workers:
        worker.start()
    built = [results.get(timeout=240) for _ in workers]
    for worker in workers:
        worker.join()
    assert [sum(pair) for pair in zip(*built, strict=True)] == [1, 1]


def test_without_a_gpu(bundle, machine, monkeypatch, capsys):
    module = machine()
    module._driver = None
    with pytest.raises(EngineError, match=r"finds no usable GPU \(CUDA initialization failure with error: 35\)"):
        build_engines(bundle())
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(MissingDependencyError, match="tensorrt"):
        build_engines(bundle())
    assert main(["build", str(bundle().path)]) == 2
    assert 'pip install ".[tensorrt]"' in capsys.readouterr().err


def test_a_plain_build_needs_neither_torch_nor_onnx_runtime():
    script = "import sys; sys.modules |= dict.fromkeys(('torch', 'triton', 'onnxruntime')); "
    script += "import pcaseg.export.tensorrt.build"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_command(bundle, machine, capsys):
    machine()
    assert main(["build", str(bundle().path), "--profile", "edge"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 2 and all("built in" in line and "fp32" in line for line in printed)
    assert main(["build", str(bundle().path), "--profile", "edge", "--no-build"]) == 0
    assert capsys.readouterr().out.count("there already") == 2
    assert main(["build", str(bundle().path), "--profile", "large", "--no-build"]) == 2
    assert "leave out --no-build" in capsys.readouterr().err
    assert main(["build", str(Path("nowhere.pcaseg"))]) == 2
    assert main(["build", str(bundle().path), "--workspace", "0"]) == 2
