"""Engines of TensorRT-RTX over a stand-in of it, with and without a GPU: building, refusals, running."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from cuda_fake import FakeDriver
from tensorrt_fake import fake_tensorrt
from tensorrt_listing import RTX

from pcaseg.cli import main
from pcaseg.errors import EngineError, MissingDependencyError, PcasegError
from pcaseg.export.tensorrt import build as building
from pcaseg.export.tensorrt.build import build_engines
from pcaseg.export.tensorrt.builder import BuildOptions
from pcaseg.export.tensorrt.inspection import reported_layers, reported_types
from pcaseg.runtime.backends import open_backend
from pcaseg.runtime.cuda import Gpu
from pcaseg.runtime.engines import find_engines, stored_engines
from pcaseg.runtime.onnxruntime_backend import OnnxRuntimeBackend
from pcaseg.runtime.tensorrt_backend import TensorRTBackend

ADA = Gpu("NVIDIA RTX 4090", "8.9")


@pytest.fixture
def rtx(monkeypatch, tmp_path):
    """Installs the stand-in on a machine with that GPU, or with none; gives the driver."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def install(gpu=None):
        driver = None if gpu is None else FakeDriver(gpu)
        monkeypatch.setitem(sys.modules, "tensorrt_rtx", fake_tensorrt(RTX, driver))

        def open_driver(device):
            if driver is None:
                raise EngineError("no NVIDIA driver can be used here")
            return driver

        monkeypatch.setattr(building, "open_driver", open_driver)
        monkeypatch.setattr("pcaseg.runtime.tensorrt_backend.open_driver", open_driver)
        return driver

    return install


def targets(*names: str) -> BuildOptions:
    return BuildOptions(compute_capabilities=names)


@pytest.mark.long
def test_engines_are_built_without_a_gpu(bundle, rtx, plan_of):
    rtx()
    (engine, text) = build_engines(bundle(), runtime="rtx", profile="edge")
    sidecar = engine.engine.sidecar
    assert engine.built and text.built
    assert (sidecar.key.runtime, sidecar.key.gpu, sidecar.key.compute_capability) == ("rtx", None, "8.0+")
    assert sidecar.opened_on is None and sidecar.versions["tensorrt-rtx"] == sidecar.key.tensorrt
    assert {*sidecar.layers} == {"fp32"} and sidecar.layers["fp32"].layers > 100
    assert sidecar.layers["fp32"].time_ms is None
    assert plan_of(engine)["capabilities"] == [] and "TF32" not in plan_of(engine)["flags"]
    again = build_engines(bundle(), runtime="rtx", profile="edge", build=False)
    assert [(found.built, found.engine.plan) for found in again] == [(False, e.engine.plan) for e in (engine, text)]


def test_targets_are_part_of_an_engine(bundle, rtx, plan_of):
    rtx()
    (engine, _) = build_engines(bundle(), runtime="rtx", profile="edge", options=targets("12.0", "8.9", "12.0"))
    assert plan_of(engine)["capabilities"] == ["SM89", "SM120"]
    assert engine.engine.sidecar.key.compute_capability == "8.9,12.0"
    same = build_engines(bundle(), runtime="rtx", profile="edge", options=targets("8.9", "12.0"), build=False)
    assert same[0].engine == engine.engine
    with pytest.raises(EngineError, match=r"compute_capability is 8\.9,12\.0, not 8\.6"):
        build_engines(bundle(), runtime="rtx", profile="edge", options=targets("8.6"), build=False)


@pytest.mark.long
@pytest.mark.parametrize(
    ("gpu", "names", "opened"),
    [(ADA, (), True), (ADA, ("8.9",), True), (ADA, ("12.0",), False), (Gpu("GeForce RTX 2080 Ti", "7.5"), (), False)],
)
def test_a_gpu_at_hand_proves_what_it_can_open(bundle, rtx, gpu, names, opened):
    rtx(gpu)
    (engine, _) = build_engines(bundle("float16"), runtime="rtx", profile="edge", options=targets(*names))
    sidecar = engine.engine.sidecar
    assert sidecar.opened_on == (gpu.name if opened else None)
    assert [share.time_ms is not None for share in sidecar.layers.values()] == [opened, opened]
    assert sidecar.layers["fp16"].layers > sidecar.layers["fp32"].layers > 0


def test_a_gpu_that_is_named_is_needed(bundle, rtx):
    rtx()
    with pytest.raises(EngineError, match="no NVIDIA driver"):
        build_engines(bundle(), runtime="rtx", device="cuda:0")


@pytest.mark.parametrize("report", ["half", None, "Layers:\nsomething else", "Layers:\n"])
def test_what_the_builder_says_is_held_against_the_precision(bundle, rtx, monkeypatch, report):
    rtx()
    real = building.build_plan

    def altered(*arguments, **named):
        built = real(*arguments, **named)
        log = named["log"]
        log.report = log.report.replace("Float", "Half") if report == "half" else report
        return built

    monkeypatch.setattr(building, "build_plan", altered)
    said = "fp32 was asked for, but TensorRT built layers of {'fp16'" if report == "half" else "does not name the types"
    with pytest.raises(EngineError, match=said):
        build_engines(bundle(), runtime="rtx")
    assert not stored_engines(bundle())


@pytest.mark.parametrize(
    ("options", "named", "said"),
    [
        (BuildOptions(weight_stripped=True), {}, "--strip-weights: TensorRT-RTX does not offer it"),
        (BuildOptions(version_compatible=True), {}, "--version-compatible: TensorRT-RTX does not offer it"),
        (BuildOptions(), {"plugins": "inside"}, "--plugins: TensorRT-RTX does not offer it"),
        (BuildOptions(), {"plugins": "library"}, "--plugins: TensorRT-RTX does not offer it"),
        (BuildOptions(), {"timing_cache": Path("x.bin")}, "--timing-cache: TensorRT-RTX does not offer it"),
        (BuildOptions(hardware="ampere-and-newer"), {}, "told GPUs by --compute-capability"),
        (BuildOptions(hardware="same-compute-capability"), {}, "told GPUs by --compute-capability"),
    ],
)
def test_what_is_not_offered_is_refused_before_the_import(bundle, monkeypatch, options, named, said):
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    with pytest.raises(PcasegError, match=said):
        build_engines(bundle(), runtime="rtx", options=options, **named)


@pytest.mark.parametrize("name", ["9.0", "8.8", "89", "sm89", "8.9.1", "", "99.0", "8,9"])
def test_an_unknown_capability_is_named_with_those_there_are(bundle, rtx, name):
    rtx()
    with pytest.raises(EngineError, match=r"does not build for it; choose from 7\.5, 8\.0, .*12\.1$") as raised:
        build_engines(bundle(), runtime="rtx", options=targets("8.9", name))
    assert f"compute capability {name!r}" in str(raised.value)
    assert not (bundle().path / "engines").exists()


@pytest.mark.parametrize(
    ("form", "precision", "name"),
    [("float32", "fp32", "7.5"), ("float32", "int8", "7.5"), ("newer", "fp8", "8.6"), ("newer", "fp8", "8.0")],
)
def test_a_card_without_the_precision_is_named(bundle, rtx, images, form, precision, name):
    rtx()
    calibration = None if precision == "fp32" else images
    with pytest.raises(EngineError, match=rf"capability {name}: TensorRT-RTX has no products of {precision} there"):
        build_engines(
            bundle(form), runtime="rtx", precision=precision, calibration=calibration, options=targets("12.0", name)
        )


def test_fp8_is_built_for_the_cards_that_have_it(bundle, rtx, images, plan_of):
    rtx()
    (engine, _) = build_engines(bundle("newer"), runtime="rtx", precision="fp8", calibration=images, profile="edge")
    assert plan_of(engine)["capabilities"] == ["SM89", "SM120", "SM121"]
    assert engine.engine.sidecar.layers["fp8"].layers > 50


def test_tensorrt_takes_no_targets(bundle, machine):
    machine("11.4")
    with pytest.raises(EngineError, match=r"TensorRT 11\.4.* builds for the GPU at hand; leave --compute-capability"):
        build_engines(bundle(), options=targets("8.9"))


def test_the_two_keep_their_engines_apart(bundle, machine, rtx):
    machine("11.4")
    build_engines(bundle(), profile="edge")
    driver = rtx(ADA)
    with pytest.raises(
        EngineError, match="has no TensorRT-RTX engine of its main graph; run: pcaseg build .* --runtime"
    ):
        TensorRTBackend(bundle(), runtime="rtx", driver=driver)
    with pytest.raises(EngineError, match="has no TensorRT-RTX engine of its main graph; to build it"):
        build_engines(bundle(), runtime="rtx", build=False)
    build_engines(bundle(), runtime="rtx", profile="edge")
    assert len(stored_engines(bundle())) == 4
    backend = TensorRTBackend(bundle(), runtime="rtx", driver=driver)
    assert backend.name == "tensorrt-rtx-fp32"
    assert [engine.sidecar.key.runtime for engine in find_engines(bundle(), backend.machine, "text")] == ["rtx"]


def test_an_engine_for_other_cards_is_not_opened(bundle, rtx):
    driver = rtx(ADA)
    build_engines(bundle(), runtime="rtx", profile="edge", options=targets("8.6", "12.0"))
    with pytest.raises(EngineError, match=r"it was built for compute capability 8\.6,12\.0, not 8\.9"):
        TensorRTBackend(bundle(), runtime="rtx", driver=driver)


def test_logits_and_kernels_kept_beside_the_engine(bundle, rtx, monkeypatch):
    driver = rtx(ADA)
    (engine, _) = build_engines(bundle(), runtime="rtx", profile="edge")
    reference = OnnxRuntimeBackend(bundle())
    rng = np.random.default_rng(0)
    text = rng.standard_normal((7, 64)).astype(np.float32)
    kept = engine.engine.plan.with_suffix(".jit")
    backend = TensorRTBackend(bundle(), runtime="rtx", driver=driver)
    sizes = []
    for N in (1, 1, 1, 2, 1):
        images = rng.uniform(0, 255, (N, 3, 96, 96)).astype(np.float32)
        expected = reference.logits(images, text)
        np.testing.assert_allclose(backend.logits(images, text), expected, atol=3e-6 * np.abs(expected).max())
        sizes.append(kept.stat().st_size)
    assert sizes[0] == sizes[1] == sizes[2] < sizes[3] == sizes[4]  # new shapes alone bring new kernels
    backend.close()
    written = kept.read_bytes()
    for before in (written, b"of another GPU", None):
        (kept.write_bytes(before) if before else kept.unlink())
        again = TensorRTBackend(bundle(), runtime="rtx", driver=driver)
        np.testing.assert_allclose(again.logits(images, text), expected, atol=3e-6 * np.abs(expected).max())
        again.close()
        assert (kept.read_bytes() == written) == (before == written)
        assert ADA.name.encode() in kept.read_bytes()


def test_kernels_that_cannot_be_kept_are_compiled_anew(bundle, rtx):
    driver = rtx(ADA)
    (engine, _) = build_engines(bundle(), runtime="rtx", profile="edge")
    engine.engine.plan.with_suffix(".jit").mkdir()
    backend = TensorRTBackend(bundle(), runtime="rtx", driver=driver)
    assert backend.logits(np.zeros((1, 3, 96, 96), np.float32), np.ones((2, 64), np.float32)).shape[1] == 2


def test_nothing_installed(bundle, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    with pytest.raises(MissingDependencyError, match=r"TensorRT-RTX cannot be imported .*\.\[tensorrt-rtx\]"):
        TensorRTBackend(bundle(), runtime="rtx")
    assert main(["build", str(bundle().path), "--runtime", "rtx"]) == 2
    assert 'pip install ".[tensorrt-rtx]"' in capsys.readouterr().err


def test_command(bundle, rtx, capsys):
    rtx()
    path = str(bundle().path)
    assert main(["build", path, "--runtime", "rtx", "--profile", "edge", "--compute-capability", "12.0, 8.9"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 2 and all(line.endswith("; not yet opened on a GPU") for line in printed)
    sidecars = [json.loads(path.read_text()) for path in (bundle().path / "engines").glob("*.json")]
    assert {sidecar["key"]["compute_capability"] for sidecar in sidecars} == {"8.9,12.0"}
    for wrong in (["--compute-capability", "8.9,"], ["--strip-weights"], ["--compute-capability", "9.0"]):
        assert main(["build", path, "--runtime", "rtx", *wrong]) == 2
        assert len(capsys.readouterr().err.strip().splitlines()) == 1


@pytest.mark.parametrize("name", ["threads", "plugin_library"])
def test_options_of_others_are_refused(bundle, name):
    named = {"threads": {"threads": 2}, "plugin_library": {"options": {"plugin_library": "x.so"}}}[name]
    with pytest.raises(PcasegError, match=name):
        open_backend("tensorrt-rtx", bundle(), **named)


REPORT = """Layers:
Name: [ShapeHostToDeviceCopy 0], LayerType: ShapeHostToDevice, Inputs: [], Outputs: [ { Name: n, Dimensions: [], \
Datatype: Int64, Format: any }], ParameterType: ShapeH2D, StreamId: 0, Metadata: 
Name: node_a+node_b_myl0_1, LayerType: gemm, Inputs: [ { Name: x, Dimensions: [1,-1,4], Datatype: Half, Format: f }], \
Constants: [ { Name: w, Dimensions: [4,4], Datatype: Float, Format: f }], Outputs: [ { Name: y, Dimensions: [1,4], \
Datatype: Half, Format: f }], TacticName: t, StreamId: 0, Metadata: [ONNX Layer: node_a][ONNX Layer: node_b]
Name: __myl_Cast_myl0_2, LayerType: kgen, Inputs: [ { Name: y, Dimensions: [1,4], Datatype: Int8, Format: f }], \
Constants: [], Outputs: [ { Name: z, Dimensions: [1,4], Datatype: Float, Format: f }], TacticName: t, StreamId: 0, \
Metadata: [ONNX Layer: node_c]

I/O Tensors:
 Name: image, IOMode: Input, DataType: Float
"""


def test_the_report_of_a_builder_is_read():
    assert reported_types(REPORT, source="x") == {"node_a+node_b_myl0_1": "fp16", "__myl_Cast_myl0_2": "int8"}
    assert [layer["Made of"] for layer in reported_layers(REPORT, source="x")] == [[], ["node_a", "node_b"], ["node_c"]]
