"""The same model in every way that it can be written: opsets, float16, LayerNorm in parts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from onnx import TensorProto
from support import SMALL_EVA, SMALL_OPENAI, small_model

import pcaseg.export.graphs
from pcaseg.errors import PcasegError
from pcaseg.export.graphs import Signature, export_graph, export_segmenter, export_text_encoder
from pcaseg.export.label_graph import export_label_graph
from pcaseg.export.options import ExportOptions
from pcaseg.model.precision import unit_norm
from pcaseg.runtime.manifest import TensorSpec

FLOAT32_OPS = ("LayerNormalization", "Softmax", "InstanceNormalization", "ReduceL2", "ReduceSum")
FLOAT32_ERROR = 1e-4
FLOAT16_ERROR = 3e-2
"""Of the largest logit; float16 rounds every tensor to 5e-4 of its value, and small models average little out."""

VARIANTS = {
    "opset 17 in parts": ExportOptions(opset=17, layer_norm="decomposed"),
    "opset 17": ExportOptions(opset=17),
    "newest": ExportOptions(opset=25),
    "float16": ExportOptions(precision="float16"),
    "float16, opset 17 in parts": ExportOptions(precision="float16", opset=17, layer_norm="decomposed"),
    "float16, newest": ExportOptions(precision="float16", opset=25),
}
SLOW = ("opset 17", "float16, newest", "float16, opset 17 in parts")
"""They mix what others have; of the last the tests of engines run graphs."""


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=pytest.mark.slow if name in SLOW else pytest.mark.long) for name in VARIANTS],
)
def variant(request, small, shared_bundle):
    """A row of `VARIANTS`: options, the model, the graph's path, and what was written."""
    path = shared_bundle(VARIANTS[request.param]) / "segmenter.onnx"
    return VARIANTS[request.param], small, path, onnx.load(path)


def logits_of(path: Path, images: torch.Tensor, text: torch.Tensor) -> np.ndarray:
    session = onnxruntime.InferenceSession(path, quiet())
    return session.run(None, {"image": images.numpy(), "text": text.numpy()})[0]


def quiet() -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return options


@torch.no_grad()
def assert_agrees(model, path: Path, allowed: float, cases=((1, 1), (2, 20), (2, 256))) -> None:
    for N, T in cases:
        generator = torch.Generator().manual_seed(T)
        images = torch.rand(N, 3, 96, 96, generator=generator) * 255
        text = F.normalize(torch.randn(T, model.preset.embed_dim, generator=generator), dim=-1)
        reference = model(images, text[:, None]).numpy()
        error = np.abs(logits_of(path, images, text) - reference).max() / np.abs(reference).max()
        assert error <= allowed, (N, T)


def test_agrees_with_eager(variant):
    options, model, path, _ = variant
    assert_agrees(model, path, FLOAT32_ERROR if options.precision == "float32" else FLOAT16_ERROR)


def test_an_image_of_one_colour(variant):
    """Nothing in it varies."""
    options, model, path, _ = variant
    text = F.normalize(torch.randn(3, model.preset.embed_dim, generator=torch.Generator().manual_seed(3)), dim=-1)
    for value in (0.0, 255.0):
        images = torch.full((1, 3, 96, 96), value)
        logits = logits_of(path, images, text)
        assert np.isfinite(logits).all()
        with torch.no_grad():
            reference = model(images, text[:, None]).numpy()
        allowed = FLOAT32_ERROR if options.precision == "float32" else FLOAT16_ERROR
        assert np.abs(logits - reference).max() <= allowed * np.abs(reference).max()


class _UnitNorm(torch.nn.Module):
    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return unit_norm(image.half(), dim=1).float()


def test_zero_has_a_unit_norm_in_float16(tmp_path):
    spec = TensorSpec(("N", 8), "float32", "vectors")
    export_graph(_UnitNorm(), tmp_path / "n.onnx", Signature({"image": spec}, {"logits": spec}))
    session = onnxruntime.InferenceSession(tmp_path / "n.onnx", quiet())
    rows = np.zeros((3, 8), np.float32)
    rows[1], rows[2] = 1e-7, 200  # the second's square is no float16, the third's sum is none
    (found,) = session.run(None, {"image": rows})
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), [0, 1, 1], atol=2e-3)


def test_is_what_was_asked_for(variant):
    options, _, path, proto = variant
    onnx.checker.check_model(path, full_check=True)
    assert [entry.version for entry in proto.opset_import] == [options.opset]
    operators = {node.op_type for node in proto.graph.node}
    assert ("LayerNormalization" in operators) == (options.layer_norm == "operator")
    assert ("Gelu" in operators) == (options.opset >= 20)
    for value in (*proto.graph.input, *proto.graph.output):
        assert value.type.tensor_type.elem_type == TensorProto.FLOAT


def test_types_are_in_the_graph(variant):
    """Weights and products have the precision; every float32 region reads float32 in either."""
    options, _, _, proto = variant
    inferred = onnx.shape_inference.infer_shapes(proto, strict_mode=True).graph
    types = {value.name: value.type.tensor_type.elem_type for value in (*inferred.value_info, *inferred.input)}
    types |= {tensor.name: tensor.data_type for tensor in proto.graph.initializer}
    precision = TensorProto.FLOAT if options.precision == "float32" else TensorProto.FLOAT16
    weights = [t for t in proto.graph.initializer if t.data_type in (TensorProto.FLOAT, TensorProto.FLOAT16)]
    share = sum(np.prod(t.dims) for t in weights if t.data_type == precision) / sum(np.prod(t.dims) for t in weights)
    assert share > 0.95  # the rest are norms and the constants of the linear attention's sums
    convolutions = [node for node in proto.graph.node if node.op_type in ("Conv", "ConvTranspose")]
    assert convolutions and all(types[node.input[0]] == precision for node in convolutions)
    regions = {node.name: node.input[0] for node in proto.graph.node if node.op_type in FLOAT32_OPS}
    assert regions and [name for name, read in regions.items() if types[read] != TensorProto.FLOAT] == []


@pytest.mark.slow
def test_float16_of_the_other_tower(tmp_path):
    model = small_model(SMALL_OPENAI)
    export_segmenter(model, tmp_path / "s.onnx", options=ExportOptions(precision="float16"))
    assert_agrees(model, tmp_path / "s.onnx", FLOAT16_ERROR, cases=((1, 20),))


@pytest.mark.slow
def test_labels_in_float16_for_an_old_parser(tmp_path):
    model, path = small_model(SMALL_EVA), tmp_path / "labels.onnx"
    options = ExportOptions(graph="labels", strategy="sliding", precision="float16", opset=17, layer_norm="decomposed")
    export_label_graph(model, path, options=options)
    image = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    text = F.normalize(torch.randn(7, 1, 64, generator=torch.Generator().manual_seed(0)), dim=-1)
    session = onnxruntime.InferenceSession(path, quiet())
    labels, confidence = session.run(None, {"image": image[None], "text": text[:, 0].numpy()})
    scores = model.segment(image, text, strategy="sliding")
    assert (labels[0] == scores.argmax(dim=0).numpy()).mean() > 0.98
    assert np.abs(confidence[0] - scores.amax(dim=0).numpy()).max() < 1e-2


def test_an_opset_that_cannot_be_written_is_refused(small, tmp_path, monkeypatch):
    """An exporter that falls back to another opset would otherwise go unnoticed."""
    monkeypatch.setattr(pcaseg.export.graphs, "OLDEST_TRACED", 17)
    with pytest.raises(PcasegError, match="opset=17: the installed torch and onnx write 18 instead"):
        export_text_encoder(small, tmp_path / "s.onnx", options=ExportOptions(opset=17))
    assert not (tmp_path / "s.onnx").exists()
