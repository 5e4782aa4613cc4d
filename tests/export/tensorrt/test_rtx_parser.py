"""TensorRT-RTX itself, without a GPU: its parser takes every graph that engines are built from, its builder builds."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from support import SMALL_EVA, ShortlistedColours

from pcaseg.benchmarks.studies.rtx_layers import measure
from pcaseg.cli import main
from pcaseg.errors import EngineError, MissingDependencyError, PcasegError
from pcaseg.export.bundle import write_bundle
from pcaseg.export.graphs import export_graph
from pcaseg.export.label_graph import PERMITTED_OPS, LabelGraph, label_signature
from pcaseg.export.options import ExportOptions
from pcaseg.export.tensorrt.builder import BuildOptions, build_plan, parse_graph
from pcaseg.export.tensorrt.graphs import derive_graph
from pcaseg.export.tensorrt.quantize import Calibration, quantize
from pcaseg.model.checkpoint import load_model
from pcaseg.runtime.backends import open_backend
from pcaseg.runtime.bundle import Bundle
from pcaseg.runtime.cuda import open_driver
from pcaseg.runtime.engines import ShapeProfile
from pcaseg.runtime.tensorrt_api import capture_log, deserialize, import_tensorrt, known_capabilities

pytestmark = pytest.mark.rtx

OLD = {"opset": 17, "layer_norm": "decomposed"}
FORMS = {
    "newest": ExportOptions(),
    "newest-half": ExportOptions(precision="float16"),
    "old": ExportOptions(**OLD),
    "old-half": ExportOptions(**OLD, precision="float16"),
    "labels": ExportOptions(graph="labels", image_size=(60, 80)),
    "labels-old-sliding": ExportOptions(graph="labels", strategy="sliding", **OLD),
}
TYPE = {"main": {"FLOAT"}, "half": {"FLOAT", "HALF"}, "int8": {"FLOAT", "INT8"}, "fp8": {"FLOAT", "FP8"}}
NUMBERS = ("FLOAT", "HALF", "BF16", "INT8", "FP8")


@pytest.fixture(scope="module")
def trt():
    try:
        return import_tensorrt("rtx")
    except MissingDependencyError as error:
        pytest.skip(str(error))


@pytest.fixture
def parsed(trt):
    """Parses a graph; gives the layers' number and the types that they make."""

    def parse(proto: onnx.ModelProto) -> tuple[int, set[str]]:
        log = capture_log(trt)
        builder = trt.Builder(log)
        network = parse_graph(trt, builder, proto.SerializeToString(), log=log, source="x")
        layers = [network.get_layer(i) for i in range(network.num_layers)]
        made = {layer.get_output(k).dtype.name for layer in layers for k in range(layer.num_outputs)}
        return len(layers), made & {*NUMBERS}

    return parse


@pytest.mark.parametrize("role", ["main", "large"])
@pytest.mark.parametrize("form", FORMS)
def test_segmenters_are_parsed(trt, parsed, shared_bundle, form, role):
    proto = onnx.load(shared_bundle(FORMS[form]) / "segmenter.onnx")
    layers, types = parsed(derive_graph(proto, role, source="x"))
    assert layers > 1000 and types == TYPE["half" if "half" in form else "main"]


@pytest.mark.parametrize("form", ["newest", "old"])
def test_text_encoders_are_parsed(parsed, shared_bundle, form):
    layers, types = parsed(onnx.load(shared_bundle(FORMS[form]) / "text_encoder.onnx"))
    assert layers > 100 and types == {"FLOAT"}


@pytest.mark.parametrize(("precision", "form"), [("int8", "newest"), ("int8", "old"), ("fp8", "newest")])
def test_quantised_segmenters_are_parsed(parsed, shared_bundle, tmp_path, precision, form):
    Image.fromarray(np.full((40, 50, 3), 90, np.uint8)).save(tmp_path / "0.png")
    bundle = Bundle(shared_bundle(FORMS[form]))
    derived = derive_graph(onnx.load_from_string(bundle.read("segmenter.onnx")), "main", source="x")
    graph = quantize(derived, "main", bundle, Calibration.read(tmp_path), precision=precision, progress=False)
    assert parsed(graph)[1] == TYPE[precision]


@pytest.mark.parametrize("role", ["main", "large"])
def test_segmenters_with_a_shortlist_are_parsed(parsed, tiny_shortlist, role):
    proto = onnx.load(tiny_shortlist / "segmenter.onnx")
    assert parsed(derive_graph(proto, role, source="x"))[0] > 1000


@pytest.mark.parametrize("role", ["main", "large"])
@pytest.mark.parametrize("strategy", ["single", "sliding"])
def test_graphs_of_labels_with_a_shortlist_are_parsed(parsed, tmp_path, strategy, role):
    preset = replace(SMALL_EVA, name="colours", embed_dim=3)
    module = LabelGraph(ShortlistedColours(6), preset, strategy=strategy, shortlist=6)
    options = ExportOptions(graph="labels", strategy=strategy, opset=17)
    signature = label_signature(preset, None)
    proto = export_graph(module, tmp_path / "s.onnx", signature, options=options, permitted=PERMITTED_OPS)
    assert parsed(derive_graph(proto, role, source="x"))[1] == {"FLOAT"}


def graph(*nodes: onnx.NodeProto, constants: dict | None = None, kind: int = TensorProto.FLOAT) -> onnx.ModelProto:
    """A graph from x to y, both `(N, 64)`."""
    x, y = (helper.make_tensor_value_info(name, kind, ["N", 64]) for name in "xy")
    made = [numpy_helper.from_array(value, name) for name, value in (constants or {}).items()]
    opset = [helper.make_opsetid("", 20)]
    return helper.make_model(helper.make_graph(nodes, "g", [x], [y], made), opset_imports=opset, ir_version=10)


def product(kind: str) -> onnx.ModelProto:
    """A product with a constant matrix, in float32 or 8-bit."""
    weights = {"w": np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32), "s": np.float32(0.1)}
    if kind == "fp32":
        return graph(helper.make_node("MatMul", ["x", "w"], ["y"]), constants=weights)
    quantised = [
        node
        for name in "xw"
        for node in (
            helper.make_node("QuantizeLinear", [name, "s", "zero"], [f"{name}_8"]),
            helper.make_node("DequantizeLinear", [f"{name}_8", "s", "zero"], [f"{name}_near"]),
        )
    ]
    made = graph(*quantised, helper.make_node("MatMul", ["x_near", "w_near"], ["y"]), constants=weights)
    types = {"int8": TensorProto.INT8, "fp8": TensorProto.FLOAT8E4M3FN}
    made.graph.initializer.append(helper.make_tensor("zero", types[kind], [], [0]))
    return made


PLUGIN = helper.make_node("CostVolume", ["x"], ["y"], plugin_namespace="pcaseg", plugin_version="1")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (graph(helper.make_node("Det", ["x"], ["y"])).SerializeToString(), r"\(Det\)"),
        (graph(helper.make_node("Abs", ["x"], ["y"]), kind=TensorProto.UINT8).SerializeToString(), r"\(Abs\)"),
        (graph(PLUGIN).SerializeToString(), "Plugin not found"),
        (product("fp32").SerializeToString()[:2000], "refuses the graph"),
        (b"no graph", "refuses the graph"),
        (b"", "finds no layer in the graph"),
    ],
    ids=["operator", "type", "plugin", "truncated", "foreign", "empty"],
)
def test_what_the_parser_refuses(trt, data, said):
    log = capture_log(trt)
    builder = trt.Builder(log)
    with pytest.raises(EngineError, match=rf"^x: .*TensorRT-RTX 1\..*{said}") as raised:
        parse_graph(trt, builder, data, log=log, source="x")
    assert "--opset 17" not in str(raised.value) and "\n" not in str(raised.value)


def plan(trt, proto, log, *, options=BuildOptions(), precision="fp32", shapes=((1, 64), (4, 64), (8, 64)), **named):  # noqa: B008
    profiles = [ShapeProfile("one", {"x": shapes}), ShapeProfile("other", {"x": ((1, 64), (9, 64), (16, 64))})]
    data = proto.SerializeToString()
    named = {"timing_cache": b"", "progress": False, "source": "x"} | named
    return build_plan(trt, data, tuple(profiles), precision=precision, options=options, log=log, **named)


@pytest.mark.parametrize("hardware", ["this-gpu", "same-compute-capability", "ampere-and-newer"])
def test_settings_are_taken(trt, hardware, capsys):
    log = capture_log(trt)
    options = BuildOptions(hardware=hardware, optimization_level=5, workspace_mib=16)
    built, _ = plan(trt, product("fp32"), log, options=options, progress=True)
    assert len(built) > 64 * 64 * 4 and log.report and not log.errors
    assert "build x" in capsys.readouterr().err
    unsupported = [] if hardware == "this-gpu" else ["setHardwareCompatibilityLevel() is unsupported in TensorRT-RTX."]
    logs = "The logger passed into createInferBuilder differs"
    assert [said for said in log.problems if logs not in said] == unsupported  # which is why pcaseg build refuses it


@pytest.mark.parametrize("kind", ["fp32", "int8", "fp8"])
def test_cards_that_are_known_are_built_for(trt, kind):
    for name in known_capabilities(trt):
        log = capture_log(trt)
        options = BuildOptions(compute_capabilities=(name,))
        if name == "7.5" or (kind == "fp8" and float(name) < 8.9):
            with pytest.raises(EngineError, match=r"TensorRT-RTX 1\..* builds no engine: .*(?i:sm75|sm8)"):
                plan(trt, product(kind), log, options=options, precision=kind)
        else:
            assert plan(trt, product(kind), log, options=options, precision=kind)[0]


def test_a_profile_that_is_none_is_refused(trt):
    with pytest.raises(EngineError, match="refuses profile one"):
        plan(trt, product("fp32"), capture_log(trt), shapes=((8, 64), (4, 64), (1, 64)))


def test_two_engines_are_built_whole(trt, copy_bundle, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = copy_bundle(tmp_path / "half.pcaseg", precision="float16")
    command = ["build", str(path), "--runtime", "rtx", "--profile", "edge", "--compute-capability", "8.9,12.0"]
    assert main(command) == 0
    capsys.readouterr()
    assert main([*command, "--no-build"]) == 0
    assert capsys.readouterr().out.count("there already") == 2
    found = {}
    for sidecar in (path / "engines").glob("*.json"):
        found[json.loads(sidecar.read_text())["key"]["graph"]] = json.loads(sidecar.read_text())
    layers = {name: {kind: share["layers"] for kind, share in found[name]["layers"].items()} for name in found}
    assert {*layers["text"]} == {"fp32"} and layers["main"]["fp16"] > layers["main"]["fp32"] > 0
    assert found["main"]["key"]["compute_capability"] == "8.9,12.0"
    try:
        open_driver(None)
    except (EngineError, MissingDependencyError):
        text = next((path / "engines").glob("text-*.plan")).read_bytes()
        with pytest.raises(EngineError, match=r"text: TensorRT-RTX 1\..* refuses the engine \(.*cudaError 35"):
            deserialize(trt, text, capture_log(trt), source="text", host_code=False)
        with pytest.raises(PcasegError, match="no NVIDIA driver can be used here|needs the package cuda-python"):
            open_backend("tensorrt-rtx", Bundle(path))


@pytest.mark.slow
def test_a_published_size_is_built(trt, tmp_path):
    """Its time and size stand in `benchmarks/results/rtx_eva-b-384.json`."""
    write_bundle(load_model("eva-b-384"), tmp_path / "eva.pcaseg")
    row = measure(Bundle(tmp_path / "eva.pcaseg"), "main")
    assert 400 < sum(row.kernels.values()) < row.kept
    assert row.plan_bytes > row.weights_bytes > 300 * 2**20
