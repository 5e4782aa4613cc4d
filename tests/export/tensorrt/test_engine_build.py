"""The builder and the engine cache over a fake TensorRT of each version, the proof of precision, and `pcaseg build`."""

from __future__ import annotations

import base64
import json
import multiprocessing
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from cuda_fake import FakeDriver
from PIL import Image
from tensorrt_fake import fake_tensorrt
from tensorrt_listing import VERSIONS

from pcaseg.class_lists import class_list
from pcaseg.cli import main
from pcaseg.errors import EngineError, MissingDependencyError, PcasegError
from pcaseg.export.bundle import check_destination
from pcaseg.export.tensorrt import build as building
from pcaseg.export.tensorrt.build import build_engines
from pcaseg.export.tensorrt.builder import BuildOptions
from pcaseg.export.tensorrt.graphs import derive_graph
from pcaseg.export.tensorrt.inspection import check_precision, layer_shares
from pcaseg.export.tensorrt.quantize import Calibration, quantize
from pcaseg.images import read_image
from pcaseg.runtime.bundle import Bundle
from pcaseg.runtime.cuda import Gpu
from pcaseg.runtime.engines import EIGHT_BITS, LayerShare, stored_engines
from pcaseg.runtime.onnxruntime_backend import OnnxRuntimeBackend
from pcaseg.runtime.windows import prepare_windows

OLD = {"opset": 17, "layer_norm": "decomposed"}
FORMS = {"float32": OLD, "float16": OLD | {"precision": "float16"}, "newer": {}}


@pytest.fixture
def bundle(copy_bundle, tmp_path):
    """Copies a bundle, so that its engines are this test's own."""

    def copy(name="float32"):
        path = tmp_path / f"{name}.pcaseg"
        return Bundle(path if path.exists() else copy_bundle(path, **FORMS[name]))

    return copy


@pytest.fixture
def machine(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def install(version="11.4", driver=None):
        driver = driver or FakeDriver()
        module = fake_tensorrt(version, driver)
        monkeypatch.setitem(sys.modules, "tensorrt", module)
        monkeypatch.setattr("pcaseg.export.tensorrt.build.open_driver", lambda device: driver)
        return module

    return install


def plan_of(found):
    return json.loads(found.engine.plan.read_bytes())


@pytest.mark.parametrize("version", VERSIONS)
def test_half_precision_on_every_version(bundle, machine, version):
    trt = machine(version)
    (engine, text) = build_engines(bundle("float16"), profile="edge")
    plan, sidecar = plan_of(engine), engine.engine.sidecar
    assert engine.built and sidecar.key.precision == "fp16" and text.engine.sidecar.key.precision == "fp32"
    assert sidecar.layers["fp16"].layers > sidecar.layers["fp32"].layers > 0
    assert all(share.time_ms for share in sidecar.layers.values())
    weak = not hasattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED")
    assert weak == (version == "8.5")
    assert ("FP16" in plan["flags"], "OBEY_PRECISION_CONSTRAINTS" in plan["flags"]) == (weak, weak)
    assert (plan["constrained"] > 0) == weak
    assert "TF32" not in plan["flags"]
    assert [set(profile) for profile in plan["profiles"]] == [{"image", "text"}] * 2
    log = engine.engine.plan.with_suffix(".log")
    assert log.exists()


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


def test_options_reach_the_builder(bundle, machine):
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
    with pytest.raises(EngineError, match=r"node 17 node_TopK_3 \(TopK\): Assertion failed: K must .*--opset 17"):
        build_engines(bundle())
    trt._say = []
    trt._fail = "Out of memory: requested 12345678 bytes"
    with pytest.raises(EngineError, match=r"builds no engine: Out of memory.*lower --workspace"):
        build_engines(bundle())
    assert not [path for path in (bundle().path / "engines").iterdir() if path.suffix in (".plan", ".json")]
    trt._fail = None
    assert build_engines(bundle())[0].built


def test_precision_is_in_the_graph(bundle, machine):
    machine()
    with pytest.raises(PcasegError, match="for fp16 export the bundle with --precision float16"):
        build_engines(bundle(), precision="fp16")
    for named in ({"precision": "int8"}, {"calibration": bundle().path}):
        with pytest.raises(PcasegError, match="int8 and fp8, and nothing else, take a folder of images"):
            build_engines(bundle(), **named)
    with pytest.raises(PcasegError, match=r"has no segmenter\.plugins\.onnx; export it with --plugins"):
        build_engines(bundle(), plugins="inside")
    for named in ({"plugins": "library"}, {"plugin_library": bundle().path / "manifest.json"}):
        with pytest.raises(PcasegError, match="library, and nothing else, takes a file"):
            build_engines(bundle(), **named)
    with pytest.raises(PcasegError, match=r"nothing\.so: no such file"):
        build_engines(bundle(), plugins="library", plugin_library=Path("nothing.so"))
    with pytest.raises(PcasegError, match="no quantised weights to refit"):
        stripped = BuildOptions(weight_stripped=True)
        build_engines(bundle(), precision="int8", calibration=bundle().path, options=stripped)
    assert build_engines(bundle("float16"), precision="fp16")[0].built


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(2):
        pixels = np.random.default_rng(i).integers(0, 256, (40, 50, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    return folder


@pytest.mark.parametrize(
    ("precision", "name", "version"),
    [("int8", "float32", "8.5"), ("int8", "float32", "11.4"), ("fp8", "newer", "10.3"), ("fp8", "newer", "11.4")],
)
def test_eight_bits_are_calibrated_on_images(bundle, machine, images, precision, name, version):
    machine(version)
    named = {"precision": precision, "calibration": images, "profile": "edge"}
    (engine, _) = build_engines(bundle(name), **named)
    sidecar = engine.engine.sidecar
    assert sidecar.key.precision == precision and sidecar.layers[precision].layers > 50
    graph = onnx.load_from_string(base64.b64decode(plan_of(engine)["onnx"])).graph
    zeros = {tensor.name: tensor for tensor in graph.initializer}
    quantised = [node for node in graph.node if node.op_type == "QuantizeLinear"]
    kind = {"int8": onnx.TensorProto.INT8, "fp8": onnx.TensorProto.FLOAT8E4M3FN}[precision]
    assert quantised and {zeros[node.input[2]].data_type for node in quantised} == {kind}
    assert not any(any(zeros[node.input[2]].raw_data) for node in quantised)
    assert ("INT8" in plan_of(engine)["flags"], "FP16" in plan_of(engine)["flags"]) == (version == "8.5", False)
    assert not build_engines(bundle(name), **named, build=False)[0].built
    (images / "1.png").unlink()
    with pytest.raises(EngineError, match="calibration is [0-9a-f]+, not"):
        build_engines(bundle(name), **named, build=False)


def test_eight_bits_are_near(bundle, images):
    opened = bundle("newer")
    proto = derive_graph(onnx.load_from_string(opened.read("segmenter.onnx")), "main", source="x")
    size = opened.manifest.image.size_px
    inputs = {
        "image": prepare_windows(
            read_image(images / "0.png"), "single", image_px=size, sliding=opened.manifest.sliding
        ),
        "text": OnnxRuntimeBackend(opened).encode_text(class_list("voc_20")),
    }

    def logits(graph):
        session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
        return session.run(None, inputs)[0]

    exact = logits(proto)
    for precision in EIGHT_BITS:
        graph = quantize(proto, "main", opened, Calibration.read(images), precision=precision, progress=False)
        assert 0.9 < np.corrcoef(logits(graph).ravel(), exact.ravel())[0, 1] < 1 - 1e-6


def test_the_largest_weight_of_a_channel_is_the_largest_fp8(bundle, images):
    opened = bundle("newer")
    proto = derive_graph(onnx.load_from_string(opened.read("segmenter.onnx")), "main", source="x")
    graph = quantize(proto, "main", opened, Calibration.read(images), precision="fp8", progress=False).graph
    known = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer if tensor.data_type == 1}
    quantised = [node for node in graph.node if node.op_type == "QuantizeLinear" and node.input[0] in known]
    assert len(quantised) > 20
    for node in quantised:
        weight, scale = known[node.input[0]], known[node.input[1]]
        axis = node.attribute[0].i if scale.ndim else None
        others = tuple(i for i in range(weight.ndim) if axis is None or i != axis % weight.ndim)
        np.testing.assert_allclose(np.abs(weight).max(axis=others) / scale, 448, rtol=1e-5)


def test_what_fp8_needs(bundle, machine, images):
    named = {"precision": "fp8", "calibration": images}
    for version, driver, options, said in (
        ("8.5", None, BuildOptions(), r"TensorRT 8\.5.* has no fp8"),
        ("11.4", FakeDriver(Gpu("NVIDIA A100", "8.0")), BuildOptions(), r"A100: has no fp8 .*8\.0, not 8\.9"),
        ("11.4", None, BuildOptions(hardware="ampere-and-newer"), "Ampere GPUs have no fp8"),
    ):
        machine(version, driver)
        with pytest.raises(EngineError, match=said):
            build_engines(bundle("newer"), options=options, **named)
    for name, said in (("float32", "fp8 needs a graph of opset 19"), ("float16", "fp8 is made of a float32 bundle")):
        with pytest.raises(PcasegError, match=said):
            build_engines(bundle(name), **named)


def test_a_precision_that_was_not_met_is_an_error(bundle, machine, monkeypatch):
    machine("10.13")
    real = building.build_plan

    def single(*arguments, **named):  # a builder that drops the strong typing builds floats from halves
        plan, cache = real(*arguments, **named)
        return json.dumps(json.loads(plan) | {"half": False}).encode(), cache

    monkeypatch.setattr(building, "build_plan", single)
    with pytest.raises(EngineError, match=r"fp16 was asked for, but only 0% of the time is fp16 \(fp32 \d+ layers"):
        build_engines(bundle("float16"))
    assert not list((bundle("float16").path / "engines").glob("*.plan"))


def test_check_precision():
    types = {"a": "fp16", "b": "fp16", "c": "fp32"}
    check_precision(layer_shares(types, None), "fp16", source="x")
    check_precision({"fp32": LayerShare(9, 3.0)}, "fp32", source="x")
    with pytest.raises(EngineError, match="fp32 was asked for"):
        check_precision(layer_shares(types, None), "fp32", source="x")
    with pytest.raises(EngineError, match="only 25% of the time"):
        check_precision(layer_shares(types, {"a": 0.5, "b": 0.5, "c": 3.0}), "fp16", source="x")
    with pytest.raises(EngineError, match="no layer's type"):
        check_precision({}, "fp16", source="x")


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
        with pytest.raises(EngineError, match="timing cache cannot be used"):
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


def test_a_broken_calibration_image_is_named(bundle, machine, tmp_path):
    machine()
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.jpg").write_bytes(b"no image")
    with pytest.raises(PcasegError, match=r"^[^ ]*a\.jpg: "):
        build_engines(bundle(), precision="int8", calibration=tmp_path / "images", profile="edge")


def build_in_process(path: str, cache: str, results) -> None:
    import os

    os.environ["XDG_CACHE_HOME"] = cache
    driver = FakeDriver()
    sys.modules["tensorrt"] = fake_tensorrt("11.4", driver)
    results.put([found.built for found in build_engines(Bundle(path), profile="edge", driver=driver)])


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


def test_check_of_an_eight_bit_engine(bundle, machine, images, monkeypatch, small_preset, tmp_path, capsys):
    driver = FakeDriver()
    machine(driver=driver)
    monkeypatch.setattr("pcaseg.runtime.tensorrt_backend.open_driver", lambda device: driver)
    path = str(bundle("newer").path)
    quantised = ["--precision", "int8", "--calibration", str(images), "--profile", "edge"]
    assert main(["build", path, *quantised]) == 0
    command = ["check", path, "--backend", "tensorrt", "--engine-precision", "int8", "--classes", "3"]
    assert main(command) == 2
    assert "never trained, so labels in int8 prove nothing; give --gate" in capsys.readouterr().err
    report = tmp_path / "rows.json"
    assert main([*command, "--images", str(images), "--gate", "label_agreement=0.1", "--json", str(report)]) == 0
    found = json.loads(report.read_text())
    assert (found["precision"], found["backend"]) == ("int8", "tensorrt-int8")
    assert main([*command, "--images", str(images), "--gate", "relative_error=1e-6"]) == 1
