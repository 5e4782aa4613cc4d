"""The graph with plugin nodes computes what the folded model computes, by the kernels themselves."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun
from support import SMALL_EVA, small_model

from pcaseg.deploy.folded import fold
from pcaseg.export.graphs import SegmenterGraph, ShortlistGraph, segmenter_signature
from pcaseg.export.options import ExportOptions
from pcaseg.export.plugins.graph import export_plugin_segmenter
from pcaseg.export.plugins.table import NAMESPACE, PLUGINS, Integers, fixed_for
from pcaseg.export.tensorrt.graphs import graph_of
from pcaseg.kernels.registry import recording
from pcaseg.runtime.bundle import PLUGIN_SEGMENTER_NAME
from pcaseg.runtime.engines import takes_plugins


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
    tensors = [torch.from_numpy(np.array(array, order="C")) for array in inputs]
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


SMALLER = replace(SMALL_EVA, image_px=48, window=3, vision_blocks=3, taps=(0, 1))
"""A grid of 6 x 6, for the interpreter, and few nodes, for the exporter."""

OLD = {"opset": 17, "layer_norm": "decomposed"}


@pytest.mark.parametrize(
    ("form", "class_counts", "tolerance"),
    [
        pytest.param(OLD, (1, 3), 2e-5, marks=pytest.mark.slow, id="float32-opset17"),
        pytest.param({"precision": "float16"}, (2,), 1e-2, marks=pytest.mark.long, id="float16"),
    ],
)
def test_the_graph_with_kernels_computes_what_the_folded_model_does(tmp_path, form, class_counts, tolerance):
    options = ExportOptions(**form)
    plain = SegmenterGraph(fold(small_model(SMALLER)))
    plugins = export_plugin_segmenter(small_model(SMALLER), tmp_path / "plugins.onnx", options=options)
    assert [value.name for value in plugins.graph.input] == list(segmenter_signature(SMALLER).inputs)
    evaluator = ReferenceEvaluator(plugins, new_ops=[operator_of(name) for name in PLUGINS])
    assert [entry.version for entry in plugins.opset_import if entry.domain == ""] == [options.opset]
    rng = np.random.default_rng(0)
    for T in class_counts:
        text = rng.standard_normal((T, 64)).astype(np.float32)
        text /= np.linalg.norm(text, axis=1, keepdims=True)
        feed = {"image": rng.uniform(0, 255, (1, 3, 48, 48)).astype(np.float32), "text": text}
        calls.clear()
        with torch.no_grad(), recording() as computed:
            expected = plain(*map(torch.from_numpy, feed.values())).numpy()
        assert {path for _, path in computed} == {"reference"}
        (found,) = evaluator.run(None, feed)
        assert sorted(calls) == sorted(["PcasegCostVolume", *["PcasegClassAttention", "PcasegExpertMix"] * 2])
        np.testing.assert_allclose(found, expected, atol=tolerance * np.abs(expected).max())


def built_from(proto: onnx.ModelProto, role: str, *, shortlist: int | None) -> onnx.ModelProto:
    """The graph that an engine with plugins is built from, of a bundle that holds this one."""
    manifest = SimpleNamespace(shortlist=shortlist)
    assert takes_plugins(role, manifest)
    bundle = SimpleNamespace(
        manifest=manifest, path=Path("b.pcaseg"), read={PLUGIN_SEGMENTER_NAME: proto.SerializeToString()}.get
    )
    return graph_of(
        SimpleNamespace(DataType=SimpleNamespace(INT64=0)), bundle, SimpleNamespace(graph=role, plugins="inside-0")
    )


@pytest.mark.long
def test_a_shortlist_gives_each_image_its_own_classes(tmp_path):
    """The graph as exported and the two that engines are built from, for one image and for two."""
    options, rng = ExportOptions(shortlist=3), np.random.default_rng(0)
    plain = ShortlistGraph(fold(small_model(SMALLER), shortlist=3))
    proto = export_plugin_segmenter(small_model(SMALLER), tmp_path / "plugins.onnx", options=options)
    derived = {role: built_from(proto, role, shortlist=3) for role in ("main", "large")}
    assert built_from(proto, "main", shortlist=None) == proto
    for graph, T, N in ((proto, 60, 2), (derived["large"], 60, 2), (derived["large"], 4, 1), (derived["main"], 2, 2)):
        text = rng.standard_normal((T, 64)).astype(np.float32)
        text /= np.linalg.norm(text, axis=1, keepdims=True)
        feed = {"image": rng.uniform(0, 255, (N, 3, 48, 48)).astype(np.float32), "text": text}
        feed["image"][0] /= 50  # a dark image beside a bright one
        with torch.no_grad():
            expected, kept = (values.numpy() for values in plain(*map(torch.from_numpy, feed.values())))
        calls.clear()
        found, classes = ReferenceEvaluator(graph, new_ops=[operator_of(name) for name in PLUGINS]).run(None, feed)
        assert sorted(calls) == sorted(["PcasegClassAttention", "PcasegExpertMix"] * 2)
        assert np.array_equal(classes, kept) and (N == 1 or T < 3 or not np.array_equal(*classes))
        np.testing.assert_allclose(found, expected, atol=2e-5 * np.abs(expected).max())


@pytest.mark.slow
def test_a_model_without_padding_has_no_class_attention(tmp_path):
    proto = export_plugin_segmenter(small_model(replace(SMALLER, class_padding=0)), tmp_path / "unpadded.onnx")
    found = {node.op_type for node in proto.graph.node if node.domain == NAMESPACE}
    assert found == {"PcasegCostVolume", "PcasegExpertMix"}


@pytest.mark.slow
def test_a_serial_model_has_no_expert_mixing(tmp_path):
    proto = export_plugin_segmenter(small_model(SMALLER, aggregation="serial"), tmp_path / "serial.onnx")
    found = {node.op_type for node in proto.graph.node if node.domain == NAMESPACE}
    assert found == {"PcasegCostVolume", "PcasegClassAttention"}
    standard = {schema.name for schema in onnx.defs.get_all_schemas()}
    assert not set(PLUGINS) & standard
