"""The graphs that TensorRT builds: the numbers of the bundle's own, in operators that its parsers take."""

from __future__ import annotations

import itertools
from collections import defaultdict

import numpy as np
import onnx
import onnxruntime
import pytest
from PIL import Image
from support import SMALL_OPENAI, small_model
from tensorrt_listing import operators

from pcaseg.errors import EngineError
from pcaseg.export.graphs import export_segmenter, export_text_encoder
from pcaseg.export.label_graph import export_label_graph
from pcaseg.export.options import ExportOptions
from pcaseg.export.tensorrt.graphs import derive_graph
from pcaseg.export.tensorrt.quantize import Calibration, quantize
from pcaseg.runtime.bundle import Bundle

OLD = {"opset": 17, "layer_norm": "decomposed"}
FORMS = {
    "logits": ExportOptions(),
    "logits-old": ExportOptions(**OLD),
    "logits-old-half": ExportOptions(**OLD, precision="float16"),
    "labels-old-sliding": ExportOptions(graph="labels", strategy="sliding", **OLD),
}
TYPES = {1: "FP32", 2: "UINT8", 3: "INT8", 6: "INT32", 7: "INT64", 9: "BOOL", 10: "FP16", 17: "FP8"}


@pytest.fixture
def graphs(shared_bundle):
    """Gives the graph of a form."""
    return lambda form: onnx.load(shared_bundle(FORMS[form]) / "segmenter.onnx")


def session(proto: onnx.ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(proto.SerializeToString(), options)


def inputs(T: int, N: int, form: str = "logits") -> dict[str, np.ndarray]:
    rng = np.random.default_rng(T + N)
    text = rng.standard_normal((T, 64)).astype(np.float32)
    text /= np.linalg.norm(text, axis=1, keepdims=True)
    if form.startswith("labels"):
        return {"image": rng.integers(0, 256, (N, 50, 70, 3), dtype=np.uint8), "text": text}
    return {"image": rng.uniform(0, 255, (N, 3, 96, 96)).astype(np.float32), "text": text}


@pytest.mark.parametrize(
    ("form", "role", "counts"),
    [
        ("logits", "main", (1, 7, 256)),
        ("logits", "large", (257,)),
        pytest.param("logits-old", "main", (7,), marks=pytest.mark.long),
        pytest.param("logits-old-half", "main", (7,), marks=pytest.mark.long),
        pytest.param("logits", "large", (847,), marks=pytest.mark.slow),
        pytest.param("logits-old", "main", (1, 256), marks=pytest.mark.slow),
        pytest.param("logits-old", "large", (257,), marks=pytest.mark.slow),
        pytest.param("logits-old-half", "main", (1, 256), marks=pytest.mark.slow),
        pytest.param("logits-old-half", "large", (300,), marks=pytest.mark.slow),
    ],
)
def test_derived_graphs_compute_the_same(graphs, form, role, counts):
    proto = graphs(form)
    whole, derived = session(proto), session(derive_graph(proto, role, source="x"))
    tolerance = 2e-3 if "half" in form else 2e-6  # classes in another order are summed in another order
    for T in counts:
        feed = inputs(T, 2 if T < 300 else 1)
        (expected,), (found,) = whole.run(None, feed), derived.run(None, feed)
        np.testing.assert_array_equal(found == -100, expected == -100)
        assert (expected == -100).any() == (T > 256)
        np.testing.assert_allclose(found, expected, atol=tolerance * np.abs(expected[expected != -100]).max())


@pytest.mark.long
@pytest.mark.parametrize("frames", ["uint8", "float32"])
def test_derived_label_graphs_compute_the_same(graphs, frames):
    proto = graphs("labels-old-sliding")
    whole, derived = session(proto), session(derive_graph(proto, "main", source="x", frames=frames))
    feed = inputs(7, 1, "labels")
    expected = whole.run(None, feed)
    found = derived.run(None, feed | {"image": feed["image"].astype(frames)})
    assert (found[0] == expected[0]).mean() > 0.999  # seeded classes tie now and then
    np.testing.assert_allclose(found[1], expected[1], atol=1e-6)  # and then their confidence is the same


def test_derived_graphs_sort_as_parsers_can(graphs):
    proto = graphs("logits")
    main, large = (derive_graph(proto, role, source="x").graph for role in ("main", "large"))
    assert not [node for node in main.node if node.op_type in ("TopK", "GatherElements", "Min")]
    (sort,) = [node for node in large.node if node.op_type == "TopK"]
    (count,) = [tensor for tensor in large.initializer if tensor.name == sort.input[1]]
    assert onnx.numpy_helper.to_array(count).tolist() == [256]
    assert sum(len(t.raw_data) for t in main.initializer) <= sum(len(t.raw_data) for t in proto.graph.initializer)


def test_an_edited_graph_is_refused(graphs):
    for kind in ("TopK", "Min", "Concat", "GatherElements"):
        proto = onnx.ModelProto()
        proto.CopyFrom(graphs("logits"))
        node = next(node for node in proto.graph.node if node.op_type == kind)
        node.op_type = "Identity"
        with pytest.raises(EngineError, match=r"edited\.onnx: .*export the bundle anew"):
            derive_graph(proto, "main", source="edited.onnx")


CONSTANT_INPUTS = {
    "TopK": (1,),
    "Slice": (3,),
    "Squeeze": (1,),
    "Unsqueeze": (1,),
    "Pad": (3,),
    "InstanceNormalization": (1, 2),
    **dict.fromkeys(("ReduceL2", "ReduceMax", "ReduceMean", "ReduceSum"), (1,)),
}
"""Inputs that some parser's table wants as initializers: K, axes, scales and biases."""


QUANTISING = ("QuantizeLinear", "DequantizeLinear")


def broken_restrictions(node: onnx.NodeProto, constants: dict[str, np.ndarray], text: str) -> list[str]:
    """What a node does that the table's remark on its operator excludes."""
    attributes = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
    found = []
    if node.op_type in CONSTANT_INPUTS and "nitializer" in text + ("initializer" if "constant" in text else ""):
        behind = [node.input[i] for i in CONSTANT_INPUTS[node.op_type] if i < len(node.input) and node.input[i]]
        found += ["initializer"] if not constants.keys() >= set(behind) else []
    if "3840" in text and not (node.input[1] in constants and constants[node.input[1]].max() < 3840):
        found.append("K")
    if node.op_type == "TopK" and not attributes.get("sorted", 1):
        found.append("sorted")
    if node.op_type == "LayerNormalization" and [name for name in node.output[1:] if name]:
        found.append("outputs")
    if node.op_type == "Resize":
        mode, place = attributes.get("mode"), attributes.get("coordinate_transformation_mode", b"half_pixel").decode()
        found += ["mode"] if mode not in (b"linear", b"nearest") or place not in text else []
        found += ["antialias"] if attributes.get("antialias") else []
    if node.op_type in QUANTISING:
        zero = constants.get(node.input[2])
        found += [] if zero is not None and not zero.astype(np.float32).any() else ["zero point"]
    if node.op_type in ("Einsum", "Mod"):
        found.append("not examined here")
    return found


def refusals(proto: onnx.ModelProto, parser: str) -> dict[tuple[str, str], int]:
    """What a parser's table does not list: operator and type of what it reads first or makes, or what its remark
    excludes, and how often."""
    table, found = operators(parser), defaultdict(int)
    graph = onnx.shape_inference.infer_shapes(proto).graph
    kinds = {v.name: v.type.tensor_type.elem_type for v in (*graph.value_info, *graph.input, *graph.output)}
    kinds |= {tensor.name: tensor.data_type for tensor in graph.initializer}
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    made = {node.output[0]: node.attribute[0] for node in graph.node if node.op_type == "Constant"}
    constants |= {name: onnx.numpy_helper.to_array(item.t) for name, item in made.items() if item.HasField("t")}
    for node in graph.node:
        if not table.get(node.op_type, {}).get("supported"):
            found[node.op_type, "operator"] += 1
            continue
        for what in broken_restrictions(node, constants, table[node.op_type]["restrictions"] or ""):
            found[node.op_type, what] += 1
        listed = {*table[node.op_type]["types"]}
        if node.op_type == "Equal":
            listed.add("BOOL")  # the tables name what it compares, not what comes out
        if parser == "8.5" and ("INT32" in listed or node.op_type in ("TopK", "ArgMax")):
            listed.add("INT64")  # that parser makes INT32 of it, and these make indices
        names = [node.input[0], *node.output] if node.input else list(node.output)
        if node.op_type in QUANTISING:
            names = names[:1]  # nor what quantising makes
        for kind in {TYPES[kinds[name]] for name in names if name} - listed:
            found[node.op_type, kind] += 1
    return dict(found)


@pytest.mark.parametrize(
    ("form", "parser", "frames"),
    [
        pytest.param("logits-old", "8.5", "uint8", marks=pytest.mark.long),
        pytest.param("logits-old-half", "8.5", "uint8", marks=pytest.mark.long),
        pytest.param("labels-old-sliding", "8.5", "float32", marks=pytest.mark.long),
        *(
            pytest.param(form, parser, "uint8", marks=[] if form == "logits" else pytest.mark.long)
            for form in FORMS
            for parser in ("10.1", "10.15")
        ),
    ],
)
@pytest.mark.parametrize("role", ["main", "large"])
def test_every_operator_and_type_is_in_the_parsers_tables(graphs, form, parser, frames, role):
    derived = derive_graph(graphs(form), role, source="x", frames=frames)
    assert not refusals(derived, parser)


EVERY_FORM = [
    ("main" if index % 2 else "large", ExportOptions(**form, **age))
    for index, (form, age) in enumerate(
        itertools.product(
            [
                {"precision": "float16"},
                {"graph": "labels"},
                {"graph": "labels", "precision": "float16"},
                {"graph": "labels", "strategy": "sliding", "precision": "float16"},
                {"graph": "labels", "strategy": "sliding", "image_size": (50, 70)},
                {"graph": "labels", "image_size": (96, 96), "precision": "float16"},
            ],
            [{}, OLD],
        )
    )
]


@pytest.mark.slow
@pytest.mark.parametrize(("role", "options"), EVERY_FORM)
def test_every_form_is_in_the_parsers_tables(tmp_path, role, options):
    export = export_label_graph if options.graph == "labels" else export_segmenter
    proto = export(small_model(), tmp_path / "graph.onnx", options=options)
    old = options.opset == OLD["opset"]
    for parser in ("8.5", "10.1", "10.15") if old else ("10.1", "10.15"):
        frames = "float32" if parser == "8.5" else "uint8"
        assert not refusals(derive_graph(proto, role, source="x", frames=frames), parser)


@pytest.mark.parametrize(
    ("precision", "form", "parsers"),
    [
        pytest.param("int8", OLD, ("8.5", "10.1", "10.15"), marks=pytest.mark.long),
        ("int8", {}, ("10.1", "10.15")),
        ("fp8", {}, ("10.1", "10.15")),
    ],
)
def test_quantised_graphs_are_in_the_parsers_tables(copy_bundle, tmp_path, precision, form, parsers):
    Image.fromarray(np.full((40, 50, 3), 90, np.uint8)).save(tmp_path / "0.png")
    bundle = Bundle(copy_bundle(tmp_path / "b.pcaseg", **form))
    derived = derive_graph(onnx.load_from_string(bundle.read("segmenter.onnx")), "main", source="x")
    quantised = quantize(derived, "main", bundle, Calibration.read(tmp_path), precision=precision, progress=False)
    assert {*QUANTISING} <= {node.op_type for node in quantised.graph.node}
    for parser in parsers:
        assert not refusals(quantised, parser)
    assert ("DequantizeLinear", "FP8") in refusals(quantised, "8.5") or precision == "int8"


@pytest.mark.long
def test_text_encoders_are_in_the_parsers_tables(shared_bundle, tmp_path):
    other = small_model(SMALL_OPENAI)
    for options, parsers in ((ExportOptions(**OLD), ("8.5", "10.1", "10.15")), (ExportOptions(), ("10.1", "10.15"))):
        eva = onnx.load(shared_bundle(options) / "text_encoder.onnx")
        openai = export_text_encoder(other, tmp_path / "openai.onnx", options=options)
        assert not any(refusals(proto, parser) for proto in (eva, openai) for parser in parsers)


def test_the_tables_find_what_a_parser_lacks(graphs):
    found = refusals(derive_graph(graphs("logits"), "main", source="x"), "8.5")
    assert {("LayerNormalization", "operator"), ("Gelu", "operator")} <= found.keys()
    whole = refusals(graphs("logits-old"), "8.5")
    assert ("Clip", "INT64") in whole  # ranks, which derived graphs clip no more
    assert {("TopK", "initializer"), ("TopK", "INT64")} & whole.keys()  # the number of classes, and sorting indices
    assert ("TopK", "K") in refusals(graphs("logits"), "10.15")


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda node: node.input.__setitem__(1, "text"), ("ReduceMean", "initializer")),
        (lambda node: setattr(node, "op_type", "Mod"), ("Mod", "operator")),
        (lambda node: setattr(node, "op_type", "Einsum"), ("Einsum", "not examined here")),
    ],
)
def test_a_planted_operator_is_found(graphs, change, fault):
    proto = derive_graph(graphs("logits"), "main", source="x")
    node = next(node for node in proto.graph.node if node.op_type == "ReduceMean")
    change(node)
    assert fault in refusals(proto, "10.15" if fault[0] == "ReduceMean" else "8.5")
