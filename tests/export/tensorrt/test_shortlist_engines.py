"""The graphs that TensorRT builds of a bundle with a shortlist: the same numbers, with K as a constant."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
from support import SMALL_EVA, ShortlistedColours

from pcaseg.export.graphs import export_graph
from pcaseg.export.label_graph import PERMITTED_OPS, LabelGraph, label_signature
from pcaseg.export.options import ExportOptions
from pcaseg.export.tensorrt.graphs import derive_graph
from pcaseg.export.tensorrt.profiles import shape_profiles
from pcaseg.runtime.bundle import Bundle
from pcaseg.runtime.engines import build_command

K = 6


def session(proto: onnx.ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(proto.SerializeToString(), options)


def assert_parsers_take_it(proto: onnx.ModelProto, role: str) -> None:
    """No sort in the main graph; in the large one K is a constant and what is sorted floating-point."""
    sorts = [node for node in proto.graph.node if node.op_type == "TopK"]
    constants = {tensor.name for tensor in proto.graph.initializer}
    inferred = onnx.shape_inference.infer_shapes(proto, strict_mode=True).graph
    types = {value.name: value.type.tensor_type.elem_type for value in inferred.value_info}
    assert bool(sorts) == (role == "large")
    assert all(node.input[1] in constants and types[node.input[0]] == onnx.TensorProto.FLOAT for node in sorts)
    assert all(node.input[1] == "last_class" for node in proto.graph.node if node.op_type == "Min")


@pytest.mark.parametrize(("role", "counts"), [("main", (1, K - 1, K)), ("large", (K + 1, 40, 847))])
def test_logits_are_the_same(tiny_shortlist, role, counts):
    proto = onnx.load(tiny_shortlist / "segmenter.onnx")
    derived = derive_graph(proto, role, source="x")
    assert_parsers_take_it(derived, role)
    whole, other = session(proto), session(derived)
    for T in counts:
        rng = np.random.default_rng(T)
        text = rng.standard_normal((T, 64)).astype(np.float32)
        feed = {
            "image": rng.uniform(0, 255, (2, 3, 96, 96)).astype(np.float32),
            "text": text / np.linalg.norm(text, axis=1, keepdims=True),
        }
        (expected, kept), (found, classes) = (
            whole.run(["logits", "classes"], feed),
            other.run(["logits", "classes"], feed),
        )
        np.testing.assert_array_equal(classes, kept)
        np.testing.assert_allclose(found, expected, atol=2e-6 * np.abs(expected).max())


@pytest.mark.long
@pytest.mark.parametrize("strategy", ["single", "sliding"])
def test_labels_are_the_same(strategy, tmp_path):
    preset = replace(SMALL_EVA, name="colours", embed_dim=3)
    module = LabelGraph(ShortlistedColours(K), preset, strategy=strategy, shortlist=K)
    options = ExportOptions(graph="labels", strategy=strategy, opset=17)
    path, signature = tmp_path / "s.onnx", label_signature(preset, None)
    proto = export_graph(module, path, signature, options=options, permitted=PERMITTED_OPS)
    for role, counts in (("main", (1, K)), ("large", (K + 1, 2 * K, 5 * K, 5 * K + 1, 5 * K + 2, 60))):
        derived = derive_graph(proto, role, source="x")
        assert_parsers_take_it(derived, role)
        for T in counts:
            rng = np.random.default_rng(T)
            feed = {
                "image": rng.integers(0, 256, (2, 50, 70, 3), dtype=np.uint8),
                "text": rng.standard_normal((T, 3)).astype(np.float32),
            }
            for found, expected in zip(session(derived).run(None, feed), session(proto).run(None, feed), strict=True):
                np.testing.assert_allclose(found, expected, atol=1e-6)


def test_profiles_part_at_the_shortlist(tiny_shortlist):
    bundle = Bundle(tiny_shortlist)
    main, large = (shape_profiles(bundle.manifest, role, "large")[0].shapes["text"] for role in ("main", "large"))
    assert [shape[0] for shape in main] == [1, K, K]
    assert [shape[0] for shape in large] == [K + 1, 847, 4096]
    assert build_command(bundle, "main", classes=K + 1).endswith("--profile large")
    assert "--profile" not in build_command(bundle, "main", classes=K)
