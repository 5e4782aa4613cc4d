"""The exported graphs hold for every vocabulary and batch, and contain nothing that freezes a shape."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper
from support import SMALL_EVA, SMALL_OPENAI, small_model

from pcaseg.errors import PcasegError
from pcaseg.export.graphs import FORBIDDEN_OPS, Signature, audit_graph, export_segmenter
from pcaseg.export.options import ExportOptions
from pcaseg.model.checkpoint import load_model
from pcaseg.runtime.manifest import TensorSpec

CLASS_COUNTS = (1, 7, 20, 150, 255, 256, 257, 300)


@pytest.fixture(
    scope="module",
    params=[
        "eva-parallel",
        pytest.param("eva-serial", marks=pytest.mark.long),
        pytest.param("openai-parallel", marks=pytest.mark.long),
        pytest.param("eva-qq", marks=pytest.mark.slow),
    ],
)
def exported(request, small, shared_bundle, tmp_path_factory):
    kind = request.param
    if kind == "eva-parallel":
        path = shared_bundle(ExportOptions()) / "segmenter.onnx"
        return small, path, onnx.load(path)
    model = small_model(
        SMALL_OPENAI if kind.startswith("openai") else SMALL_EVA,
        aggregation="serial" if kind.endswith("serial") else "parallel",
        dense_mode="qq" if kind.endswith("qq") else "csa",
    )
    path = tmp_path_factory.mktemp(kind) / "segmenter.onnx"
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    proto = export_segmenter(model, path)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    return model, path, proto


def inputs(N: int, T: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1000 * N + T + seed)
    images = torch.rand(N, 3, SMALL_EVA.image_px, SMALL_EVA.image_px, generator=generator) * 255
    return images, F.normalize(torch.randn(T, SMALL_EVA.embed_dim, generator=generator), dim=-1)


def relative_error(values: np.ndarray, reference: np.ndarray) -> float:
    assert values.shape == reference.shape
    assert np.array_equal(values == -100, reference == -100)
    return float(np.abs(values - reference).max() / np.abs(reference[reference != -100]).max())


@pytest.mark.parametrize("N", [1, pytest.param(2, marks=pytest.mark.long), pytest.param(5, marks=pytest.mark.slow)])
def test_agrees_with_eager_for_every_vocabulary(exported, N):
    """All sizes for the default model; for its variants those where a mistake would show."""
    model, path, _ = exported
    session = onnxruntime.InferenceSession(path)
    default = (model.preset.family, model.aggregation, model.dense_mode) == ("eva", "parallel", "csa")
    for T in CLASS_COUNTS if default else (1, 20, 257):
        images, text = inputs(N, T)
        (values,) = session.run(["logits"], {"image": images.numpy(), "text": text.numpy()})
        with torch.no_grad():
            reference = model(images, text[:, None]).numpy()
        assert relative_error(values, reference) <= 1e-4, T


def test_graph_is_clean(exported):
    _, path, proto = exported
    onnx.checker.check_model(path)
    operators = Counter(node.op_type for node in onnx.load(path).graph.node)
    assert not FORBIDDEN_OPS & operators.keys()
    axes = {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*proto.graph.input, *proto.graph.output)
    }
    assert axes == {"image": ["N", 3, 96, 96], "text": ["T", 64], "logits": ["N", "T", 48, 48]}
    assert [entry.version for entry in proto.opset_import if entry.domain == ""] == [20]


def test_graph_holds_no_local_path(exported):
    _, path, _ = exported
    data = path.read_bytes()
    assert b"site-packages" not in data and b".py" not in data


def test_audit_finds_what_it_looks_for():
    def graph(op: str, axis: str | int) -> onnx.GraphProto:
        value = helper.make_tensor_value_info
        x, y = value("x", TensorProto.FLOAT, [axis, 3]), value("y", TensorProto.FLOAT, [axis, 3])
        return helper.make_graph([helper.make_node(op, ["x"], ["y"])], "g", [x], [y])

    spec = TensorSpec(("N", 3), "float32", "")
    signature = Signature({"x": spec}, {"y": spec})
    assert audit_graph(graph("Relu", "N"), signature) == {"Relu": 1}
    with pytest.raises(PcasegError, match="holds Einsum"):
        audit_graph(graph("Einsum", "N"), signature)
    with pytest.raises(PcasegError, match=r"has x as \(\(3, 3\), 'float32'\), not \(\('N', 3\)"):
        audit_graph(graph("Relu", 3), signature)
    with pytest.raises(PcasegError, match=r"has x as .*'int64'\)"):
        audit_graph(graph("Relu", "N"), Signature({"x": replace(spec, dtype="int64")}, {"y": spec}))
    with pytest.raises(PcasegError, match=r"has z as None"):
        audit_graph(graph("Relu", "N"), Signature({"x": spec}, {"y": spec, "z": spec}))


def test_audit_of_resizes():
    """Forbidden unless permitted, and then bilinear, pixels by their centres, without antialiasing."""
    spec = TensorSpec(("N", 3), "float32", "")
    signature = Signature({"x": spec}, {"y": spec})
    good = {"mode": "linear", "coordinate_transformation_mode": "half_pixel", "antialias": 0}

    def audit(attributes: dict[str, object], permitted: set[str]) -> Counter[str]:
        x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 3]) for name in "xy")
        node = helper.make_node("Resize", ["x"], ["y"], **attributes)
        return audit_graph(helper.make_graph([node], "g", [x], [y]), signature, permitted=permitted)

    assert audit(good, {"Resize"}) == {"Resize": 1} == audit({"mode": "linear"}, {"Resize"})
    with pytest.raises(PcasegError, match="holds Resize"):
        audit(good, set())
    for change in ({"mode": "cubic"}, {"coordinate_transformation_mode": "align_corners"}, {"antialias": 1}):
        with pytest.raises(PcasegError, match=f"resizes with {next(iter(change))}"):
            audit(good | change, {"Resize"})
    with pytest.raises(PcasegError, match="resizes with mode b'nearest'"):
        audit({}, {"Resize"})


def test_text_encoder(small, shared_bundle):
    from open_clip.tokenizer import tokenize

    session = onnxruntime.InferenceSession(shared_bundle(ExportOptions()) / "text_encoder.onnx")
    for names in (["cat"], ["a cat", "grass", "tv monitor"], [f"thing number {i}" for i in range(70)]):
        tokens = tokenize(names)
        (values,) = session.run(["text"], {"tokens": tokens.numpy()})
        with torch.no_grad():
            reference = small.text_tower(tokens).numpy()
        assert np.abs(values - reference).max() <= 1e-5
        np.testing.assert_allclose(np.linalg.norm(values, axis=1), 1, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["eva-b-384", "openai-b-384"])
def test_published_presets_for_every_vocabulary(name, tmp_path):
    model = load_model(name)
    export_segmenter(model, tmp_path / "segmenter.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "segmenter.onnx")
    for N, T in [(1, T) for T in CLASS_COUNTS] + [(2, 7), (5, 20), (2, 257)]:
        images = torch.rand(N, 3, 384, 384) * 255
        text = F.normalize(torch.randn(T, 512), dim=-1)
        (values,) = session.run(["logits"], {"image": images.numpy(), "text": text.numpy()})
        with torch.no_grad():
            assert relative_error(values, model(images, text[:, None]).numpy()) <= 1e-4, (N, T)
