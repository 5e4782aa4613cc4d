"""What precision an engine has: the graph's, proven layer by layer, or eight bits, calibrated on images."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from cuda_fake import FakeDriver
from tensorrt_listing import VERSIONS

from pcaseg.class_lists import class_list
from pcaseg.cli import main
from pcaseg.errors import EngineError, PcasegError
from pcaseg.export.tensorrt import build as building
from pcaseg.export.tensorrt.build import build_engines
from pcaseg.export.tensorrt.builder import BuildOptions
from pcaseg.export.tensorrt.graphs import derive_graph
from pcaseg.export.tensorrt.inspection import check_precision, layer_shares
from pcaseg.export.tensorrt.quantize import Calibration, quantize
from pcaseg.images import read_image
from pcaseg.runtime.cuda import Gpu
from pcaseg.runtime.engines import EIGHT_BITS, LayerShare
from pcaseg.runtime.onnxruntime_backend import OnnxRuntimeBackend
from pcaseg.runtime.windows import prepare_windows

pytestmark = pytest.mark.long


@pytest.mark.parametrize("version", VERSIONS)
def test_half_precision_on_every_version(bundle, machine, version, plan_of):
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


@pytest.mark.parametrize(
    ("precision", "name", "version"),
    [("int8", "float32", "8.5"), ("int8", "float32", "11.4"), ("fp8", "newer", "10.3"), ("fp8", "newer", "11.4")],
)
def test_eight_bits_are_calibrated_on_images(bundle, machine, images, precision, name, version, plan_of):
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
    assert not any("image" in node.input for node in quantised), "pixels keep their eight bits"
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


def test_a_broken_calibration_image_is_named(bundle, machine, tmp_path):
    machine()
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.jpg").write_bytes(b"no image")
    with pytest.raises(PcasegError, match=r"^[^ ]*a\.jpg: "):
        build_engines(bundle(), precision="int8", calibration=tmp_path / "images", profile="edge")


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
