"""Label graphs: every step between pixels and labels with a network of one product, then whole models."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from support import SMALL_EVA, SMALL_OPENAI, small_model
from torch import Tensor, nn

import pcaseg
from pcaseg.configs import Sliding
from pcaseg.errors import PcasegError
from pcaseg.export.bundle import write_bundle
from pcaseg.export.graphs import FORBIDDEN_OPS, RESIZE_ATTRIBUTES, audit_graph, export_graph
from pcaseg.export.label_graph import PERMITTED_OPS, LabelGraph, label_signature
from pcaseg.export.options import ExportOptions
from pcaseg.model.inference import segment_image
from pcaseg.runtime.segmenter import Segmenter

COLOURS = replace(SMALL_EVA, name="colours", embed_dim=3)
STRATEGIES = {
    "single": (COLOURS, "single"),
    "sliding": (COLOURS, "sliding"),
    "sliding, windows resized": (replace(COLOURS, sliding=Sliding(176, 112, 64)), "sliding"),
    "sliding, overlap of three": (replace(COLOURS, sliding=Sliding(160, 96, 32)), "sliding"),
}
SIZES = [(1, 1), (1, 33), (50, 1), (45, 71), (96, 96), (160, 160), (176, 176), (131, 300), (720, 1280)]
"""Height and width: one pixel wide, odd, the network's input, the canvas, smaller and larger than either."""


class ColourNetwork(nn.Module):
    """Stands for the network: the window's means over patches and a share of the place, times a colour per class."""

    def __init__(self) -> None:
        super().__init__()
        ramp = torch.linspace(-1, 1, COLOURS.image_px // 2)
        self.register_buffer("place", torch.stack([ramp[:, None] - ramp, ramp[:, None] + ramp, ramp * ramp[:, None]]))

    def forward(self, windows: Tensor, text: Tensor) -> Tensor:
        """windows (N, 3, R, R), text (T, 3) -> (N, T, R / 2, R / 2)."""
        means = F.avg_pool2d(windows, 2) / 64 - 2 + self.place
        return (text @ means.flatten(2)).unflatten(2, means.shape[-2:])


def frames(N: int, size: tuple[int, int], seed: int = 0) -> np.ndarray:
    """Smooth images with noise, so that labels form regions and borders: (N, H, W, 3) uint8."""
    generator = torch.Generator().manual_seed(seed)
    coarse = F.interpolate(torch.rand(N, 3, 5, 7, generator=generator) * 255, size=size, mode="bicubic")
    noisy = coarse + 8 * torch.randn(coarse.shape, generator=generator)
    return noisy.clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).numpy()


def unit_text(T: int, D: int) -> Tensor:
    return F.normalize(torch.randn(T, D, generator=torch.Generator().manual_seed(T)), dim=-1)


def assert_agree(session: onnxruntime.InferenceSession, images: np.ndarray, text: Tensor, scores: Tensor) -> None:
    """Labels and confidence of a session against scores (N, T, H, W)."""
    labels, confidence = session.run(["labels", "confidence"], {"image": images, "text": text.numpy()})
    assert labels.dtype == np.int32 and confidence.dtype == np.float32
    assert labels.shape == confidence.shape == images.shape[:3]
    assert (labels == scores.argmax(dim=1).numpy()).mean() >= 0.999
    np.testing.assert_allclose(confidence, scores.amax(dim=1).numpy(), rtol=0, atol=1e-4)


QUICK = ("single", "sliding, windows resized")


@pytest.fixture(
    scope="module", params=[pytest.param(name, marks=[] if name in QUICK else pytest.mark.long) for name in STRATEGIES]
)
def colours(request, tmp_path_factory):
    """Preset, strategy and the graph's path, on `ColourNetwork`; any image size."""
    preset, strategy = STRATEGIES[request.param]
    path = tmp_path_factory.mktemp("colours") / "segmenter.onnx"
    module = LabelGraph(ColourNetwork(), preset, strategy=strategy)
    export_graph(module, path, label_signature(preset, None), permitted=PERMITTED_OPS)
    return preset, strategy, path


def test_every_size_and_number_of_images(colours):
    preset, strategy, path = colours
    session, network = onnxruntime.InferenceSession(path), ColourNetwork()
    for index, size in enumerate(SIZES):
        images, text = frames(1 + index % 3, size, seed=index), unit_text((1, 7, 20)[index % 3], 3)
        pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float()
        scores = [segment_image(image, lambda w: network(w, text), preset, strategy) for image in pixels]  # noqa: B023
        assert_agree(session, images, text, torch.stack(scores))


def test_of_equal_scores_the_lowest_label_wins(colours):
    text = unit_text(5, 3)[[0, 0, 1, 0, 1]]
    session = onnxruntime.InferenceSession(colours[2])
    labels, _ = session.run(None, {"image": frames(2, (45, 71)), "text": text.numpy()})
    assert set(np.unique(labels)) == {0, 2}


def test_one_class_that_is_not_finite_shows_in_its_image(colours):
    """A maximum passes over NaN; the confidence must not."""
    session = onnxruntime.InferenceSession(colours[2])
    images = frames(2, (20, 30))
    for position in range(3):
        for value in (np.nan, np.inf):
            text = unit_text(3, 3).numpy()
            text[position, 0] = value
            assert np.isnan(session.run(["confidence"], {"image": images, "text": text})[0]).all()


def test_exporters_own_resize_would_be_wrong_for_one_pixel(colours, tmp_path):
    """Why the graph says `half_pixel`: images one pixel wide; the comparison above would notice."""
    proto = onnx.load(colours[2])
    for node in proto.graph.node:
        for item in node.attribute:
            if item.name == "coordinate_transformation_mode":
                item.s = b"pytorch_half_pixel"
    onnx.save(proto, tmp_path / "wrong.onnx")
    feeds = {"image": frames(1, (50, 1)), "text": unit_text(7, 3).numpy()}
    right, wrong = (
        onnxruntime.InferenceSession(p).run(["confidence"], feeds)[0] for p in (colours[2], tmp_path / "wrong.onnx")
    )
    assert np.abs(right - wrong).max() > 0.01
    with pytest.raises(PcasegError, match="resizes with coordinate_transformation_mode b'pytorch_half_pixel'"):
        audit_graph(proto.graph, label_signature(colours[0], None), permitted=PERMITTED_OPS)


def test_each_resize_is_done_once(colours):
    """Canvas, whole image, logits, whole scores, labels; and windows where they are not the network's size."""
    preset, strategy, path = colours
    resizes = [node for node in onnx.load(path).graph.node if node.op_type == "Resize"]
    assert len(resizes) == (2 if strategy == "single" else 5 + (preset.sliding.window_px != preset.image_px))
    for node in resizes:
        attributes = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
        assert {name: attributes.get(name, 0) for name in RESIZE_ATTRIBUTES} == RESIZE_ATTRIBUTES


MODELS = {
    "single": (SMALL_EVA, "single", None),
    "sliding": (SMALL_EVA, "sliding", None),
    "sliding, fixed": (replace(SMALL_OPENAI, sliding=Sliding(176, 112, 64)), "sliding", (45, 71)),
}
CASES = {
    "single": [(1, 1, (1, 33)), (2, 7, (131, 97)), (3, 20, (50, 1)), (1, 257, (45, 70)), (1, 300, (96, 96))],
    "sliding": [(1, 20, (45, 70)), (2, 7, (50, 1)), (1, 257, (200, 131))],
    "sliding, fixed": [(3, 1, (45, 71)), (1, 20, (45, 71))],
}
"""For each: numbers of images and classes, and the images' size."""


@pytest.fixture(
    scope="module",
    params=[
        "single",
        pytest.param("sliding", marks=pytest.mark.long),
        pytest.param("sliding, fixed", marks=pytest.mark.slow),
    ],
)
def labelled(request, shared_bundle, tmp_path_factory):
    """A row of `MODELS`: its name, the model, and its bundle of labels."""
    preset, strategy, size = MODELS[request.param]
    model, options = small_model(preset), ExportOptions(graph="labels", strategy=strategy, image_size=size)
    if preset is SMALL_EVA:
        return request.param, model, shared_bundle(options)
    path = tmp_path_factory.mktemp("labelled") / "camera.pcaseg"
    write_bundle(model, path, options=options)
    return request.param, model, path


def test_agrees_with_the_eager_model(labelled):
    """One image against the eager model, several against the folded, which is quicker."""
    name, model, path = labelled
    strategy = MODELS[name][1]
    session, folded = onnxruntime.InferenceSession(path / "segmenter.onnx"), pcaseg.fold(model)
    for N, T, size in CASES[name]:
        images, text = frames(N, size, seed=T), unit_text(T, model.preset.embed_dim)
        reference = model if N == 1 else folded
        scores = [reference.segment(image, text[:, None], strategy=strategy) for image in images]
        assert_agree(session, images, text, torch.stack(scores))


def test_graph_is_what_the_manifest_says(labelled):
    name, _, path = labelled
    _, strategy, fixed = MODELS[name]
    onnx.checker.check_model(path / "segmenter.onnx")
    graph = onnx.load(path / "segmenter.onnx").graph
    operators = Counter(node.op_type for node in graph.node)
    assert operators.keys() & FORBIDDEN_OPS == {"Resize"}
    frame = ["N", *(fixed or ("H", "W"))]
    axes = {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.output)
    }
    assert axes == {"image": [*frame, 3], "text": ["T", 64], "labels": frame, "confidence": frame}
    manifest = Segmenter(path).backend.manifest
    assert {name: list(spec.shape) for name, spec in (manifest.inputs | manifest.outputs).items()} == axes
    assert manifest.inputs["image"].dtype == "uint8" and manifest.outputs["labels"].dtype == "int32"
    assert (manifest.graph, manifest.strategy, manifest.image_size) == ("labels", strategy, fixed)
    assert manifest.graphs["segmenter.onnx"].operators == operators


def test_a_frozen_axis_is_noticed(colours):
    graph = onnx.load(colours[2]).graph
    with pytest.raises(PcasegError, match=r"has image as \(\('N', 'H', 'W', 3\), 'uint8'\), not \(\('N', 45, 70, 3\)"):
        audit_graph(graph, label_signature(colours[0], (45, 70)), permitted=PERMITTED_OPS)


def test_segmenter_runs_it(labelled):
    """From names to labels, with the strategy of the graph."""
    name, model, path = labelled
    _, strategy, fixed = MODELS[name]
    names = ["cat", "grass", "sky"]
    segmenter = Segmenter(path)
    segmenter.set_vocabulary(names)
    image = frames(1, fixed or (60, 83))[0]
    result = segmenter(image)
    scores = model.segment(image, model.encode_text(names), strategy=strategy)
    assert segmenter.strategy == strategy and result.labels.dtype == np.uint16
    assert (result.labels == scores.argmax(dim=0).numpy()).mean() >= 0.999
    np.testing.assert_allclose(result.confidence, scores.amax(dim=0).numpy(), rtol=0, atol=1e-4)
