"""The graph with plugin nodes computes what the plain one computes, node by node and by the kernels themselves."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun
from support import small_model

from pcaseg.export.graphs import export_segmenter
from pcaseg.export.options import ExportOptions
from pcaseg.export.plugins.graph import export_plugin_segmenter
from pcaseg.export.plugins.table import NAMESPACE, PLUGINS, Integers, fixed_for
from pcaseg.model.checkpoint import load_model


def run_kernel(name: str, inputs: tuple[np.ndarray, ...], attributes: dict[str, int]) -> np.ndarray:
    """A plugin as an engine runs it: its own launch of the kernel, here through Triton's interpreter."""
    plugin = PLUGINS[name]
    dtype = "fp16" if inputs[0].dtype == np.float16 else "fp32"
    for array, kind in zip(inputs, plugin.types, strict=False):
        assert array.dtype == (np.float32 if kind == "FP32" else inputs[0].dtype), (name, array.dtype, kind)
    variant = plugin.variant(dtype, attributes)
    shapes = [array.shape for array in inputs]
    assert [len(shape) for shape in shapes] == list(plugin.ranks)
    launch = plugin.launch(shapes, fixed_for(plugin, variant, attributes), Integers())
    tensors = [torch.from_numpy(np.array(array)) for array in inputs]
    out = torch.full(plugin.output(shapes), float("nan"), dtype=tensors[0].dtype)
    variant.kernel[launch.grid](*tensors, *launch.scalars, out, **variant.constexprs)
    return out.numpy()


def operator_of(name: str) -> type:
    """The plugin for ONNX's reference evaluator."""

    def run(self, *inputs, plugin_namespace=None, plugin_version=None, aot=None, **attributes):
        assert (plugin_namespace, plugin_version, aot) == ("pcaseg", "1", 1)
        calls.append(name)
        return (run_kernel(name, inputs, attributes),)

    return type(name, (OpRun,), {"op_domain": NAMESPACE, "_run": run})


calls: list[str] = []


OLD = {"opset": 17, "layer_norm": "decomposed"}


@pytest.mark.parametrize(
    ("form", "class_counts", "tolerance"),
    [(OLD, (1, 3), 2e-5), ({"precision": "float16"}, (3,), 1e-2)],
    ids=["float32-opset17", "float16"],
)
def test_the_graph_with_kernels_equals_the_plain_one(tmp_path, form, class_counts, tolerance):
    options = ExportOptions(**form)
    plain = export_segmenter(small_model(), tmp_path / "plain.onnx", options=options)
    plugins = export_plugin_segmenter(small_model(), tmp_path / "plugins.onnx", options=options)
    assert [value.name for value in plugins.graph.input] == [value.name for value in plain.graph.input]
    session = onnxruntime.InferenceSession(plain.SerializeToString())
    evaluator = ReferenceEvaluator(plugins, new_ops=[operator_of(name) for name in PLUGINS])
    assert [entry.version for entry in plugins.opset_import if entry.domain == ""] == [options.opset]
    rng = np.random.default_rng(0)
    for T in class_counts:
        text = rng.standard_normal((T, 64)).astype(np.float32)
        text /= np.linalg.norm(text, axis=1, keepdims=True)
        feed = {"image": rng.uniform(0, 255, (1, 3, 96, 96)).astype(np.float32), "text": text}
        calls.clear()
        (expected,), (found,) = session.run(None, feed), evaluator.run(None, feed)
        assert sorted(calls) == sorted(["PcasegCostVolume", *["PcasegClassAttention", "PcasegExpertMix"] * 2])
        np.testing.assert_allclose(found, expected, atol=tolerance * np.abs(expected).max())


def test_a_model_without_padding_has_no_class_attention(tmp_path):
    proto = export_plugin_segmenter(load_model("tiny", {}), tmp_path / "tiny.onnx")
    found = {node.op_type for node in proto.graph.node if node.domain == NAMESPACE}
    assert found == {"PcasegCostVolume", "PcasegExpertMix"}


def test_a_serial_model_has_no_expert_mixing(tmp_path):
    proto = export_plugin_segmenter(small_model(aggregation="serial"), tmp_path / "serial.onnx")
    found = {node.op_type for node in proto.graph.node if node.domain == NAMESPACE}
    assert found == {"PcasegCostVolume", "PcasegClassAttention"}
    standard = {schema.name for schema in onnx.defs.get_all_schemas()}
    assert not set(PLUGINS) & standard
