"""Exported graphs with a shortlist: the eager model's logits and labels, and maps of the kept classes alone."""

from __future__ import annotations

import json
import tracemalloc
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from support import SMALL_EVA, ShortlistedColours, small_model
from torch import Tensor

from pcaseg.configs import Sliding
from pcaseg.errors import BundleError, PcasegError, VocabularyError
from pcaseg.export.bundle import write_bundle
from pcaseg.export.graphs import FORBIDDEN_OPS, export_graph
from pcaseg.export.label_graph import PERMITTED_OPS, LabelGraph, label_signature
from pcaseg.export.options import ExportOptions
from pcaseg.model.cost_volume import restore_classes
from pcaseg.model.inference import segment_image
from pcaseg.runtime.bundle import Bundle
from pcaseg.runtime.manifest import Manifest
from pcaseg.runtime.onnxruntime_backend import OnnxRuntimeBackend
from pcaseg.runtime.segmenter import Segmenter
from pcaseg.runtime.shortlist import all_logits, check_kept, join_kept
from pcaseg.runtime.vocabulary import Vocabulary
from pcaseg.runtime.windows import label_map, merge_windows

K = 6
COLOURS = replace(SMALL_EVA, name="colours", embed_dim=3)
SHOWN = [(COLOURS, "single"), (COLOURS, "sliding"), (replace(COLOURS, sliding=Sliding(160, 96, 32)), "sliding")]
SIZES = [(2, 1, (45, 71)), (1, K, (96, 96)), (2, K + 1, (33, 50)), (1, 40, (160, 200)), (1, 400, (60, 40))]
"""Images, classes, height and width."""


def unit_text(T: int, D: int) -> Tensor:
    return F.normalize(torch.randn(T, D, generator=torch.Generator().manual_seed(T)), dim=-1)


@torch.no_grad()
def test_logits_are_the_eager_models(tiny_shortlist):
    model, path = small_model("tiny"), tiny_shortlist
    bundle = Bundle(path)
    backend = OnnxRuntimeBackend(bundle)
    for N, T in ((1, 1), (2, K - 1), (2, K), (2, K + 1), (3, 40), (1, 1000)):
        images = torch.rand(N, 3, 96, 96, generator=torch.Generator().manual_seed(T)) * 255
        text = unit_text(T, 64)
        logits, classes = backend.kept_logits(images.numpy(), text.numpy())
        expected, kept = model.kept_logits(images, text[:, None], shortlist=K)
        assert logits.shape[:2] == classes.shape == (N, min(T, K))
        np.testing.assert_array_equal(classes, kept.numpy())
        assert np.abs(logits - expected.numpy()).max() <= 1e-4 * expected.abs().max()
        whole = model(images, text[:, None], shortlist=K).numpy()
        found = backend.logits(images.numpy(), text.numpy())
        np.testing.assert_array_equal(found == -100, whole == -100)
        assert np.abs(found - whole).max() <= 1e-4 * expected.abs().max()
    operators = {node.op_type for node in onnx.load(path / "segmenter.onnx").graph.node}
    assert not operators & FORBIDDEN_OPS
    assert bundle.manifest.shortlist == K
    assert [spec.shape[1] for spec in bundle.manifest.outputs.values()] == ["K", "K"]


@pytest.mark.parametrize("strategy", ["single", "sliding"])
@torch.no_grad()
def test_a_segmenter_labels_as_the_eager_model(tiny_shortlist, strategy):
    model, path = small_model("tiny"), tiny_shortlist
    names = tuple(f"thing {index}" for index in range(30))
    image = np.random.default_rng(0).integers(0, 256, (70, 110, 3), dtype=np.uint8)
    for window_batch in (1, 3):
        segmenter = Segmenter(path, strategy=strategy, shortlist=K, window_batch=window_batch)
        segmenter.set_vocabulary(names)
        result = segmenter(image)
        scores = model.segment(image, model.encode_text(names), strategy=strategy, shortlist=K)
        assert (result.labels == scores.argmax(dim=0).numpy()).mean() >= 0.999
        np.testing.assert_allclose(result.confidence, scores.amax(dim=0).numpy(), rtol=0, atol=1e-4)


@pytest.mark.slow
@torch.no_grad()
def test_in_float16(tmp_path):
    """Classes on the border of the shortlist may change sides; those that both keep agree."""
    model = small_model(SMALL_EVA)
    write_bundle(model, tmp_path / "h.pcaseg", options=ExportOptions(shortlist=K, precision="float16", opset=17))
    backend = OnnxRuntimeBackend(Bundle(tmp_path / "h.pcaseg"))
    for T in (3, 20):
        images, text = torch.rand(2, 3, 96, 96) * 255, unit_text(T, 64)
        found = torch.from_numpy(backend.logits(images.numpy(), text.numpy()))
        expected = model(images, text[:, None], shortlist=K)
        both = (found != -100) & (expected != -100)
        assert both.float().mean() >= 0.8 * min(T, K) / T
        if T <= K:
            assert (found - expected)[both].abs().max() <= 3e-2 * expected[both].abs().max()


@pytest.mark.long
@pytest.mark.parametrize("shown", SHOWN)
def test_label_graphs_are_of_all_logits(shown, tmp_path):
    """Every vocabulary and size: labels and confidence of the whole T x H x W, though the graph never has it."""
    (preset, strategy), network = shown, ShortlistedColours(K)
    module = LabelGraph(network, preset, strategy=strategy, shortlist=K)
    path = tmp_path / "labels.onnx"
    proto = export_graph(module, path, label_signature(preset, None), permitted=PERMITTED_OPS)
    assert {node.op_type for node in proto.graph.node} & FORBIDDEN_OPS == {"Resize"}
    session = onnxruntime.InferenceSession(path)

    def restored(windows: Tensor, text: Tensor) -> Tensor:
        return restore_classes(*network(windows, text), len(text))

    rng = np.random.default_rng(0)
    for N, T, size in (
        (2, 1, (45, 71)),
        (1, K, (96, 96)),
        (2, K + 1, (33, 50)),
        (1, 40, (160, 200)),
        (1, 400, (60, 40)),
    ):
        coarse = torch.from_numpy(rng.uniform(0, 255, (N, 3, 4, 5)).astype(np.float32))
        images = F.interpolate(coarse, size=size, mode="bilinear").to(torch.uint8)
        text = unit_text(T, 3)
        text[T // 2 :] = text[T // 2]  # equal classes, of which rounding may choose any
        labels, confidence = session.run(None, {"image": images.permute(0, 2, 3, 1).numpy(), "text": text.numpy()})
        scores = torch.stack(
            [segment_image(image.float(), lambda w: restored(w, text), preset, strategy) for image in images]  # noqa: B023
        )
        found, expected = (np.minimum(one, T // 2) for one in (labels, scores.argmax(dim=1).numpy()))
        assert (found == expected).mean() >= 0.999
        np.testing.assert_allclose(confidence, scores.amax(dim=1).numpy(), rtol=0, atol=1e-4)


def test_a_merge_of_4096_names_holds_few_maps():
    """Stated in the docs: N windows * K + 1 maps; 4,096 of the canvas would take 400 MiB here."""
    sliding, T, rng = SMALL_EVA.sliding, 4096, np.random.default_rng(0)
    classes = np.stack([np.sort(rng.choice(T, K, replace=False)) for _ in range(5)])
    logits = rng.standard_normal((5, K, 48, 48)).astype(np.float32)
    tracemalloc.start()
    joined, shared = join_kept(logits, classes, T)
    labels, confidence = label_map(merge_windows(joined, "sliding", sliding), (120, 160))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(shared) == len(np.unique(classes)) + 1 <= 5 * K + 1
    assert peak <= 4 * (5 * K + 1) * (5 * 48 * 48 + sliding.image_px**2) + (8 << 20)
    few = all_logits(logits, classes, T)[:, shared]  # by the definition, of these classes
    expected, sure = label_map(merge_windows(few, "sliding", sliding), (120, 160))
    np.testing.assert_array_equal(labels, expected)
    np.testing.assert_array_equal(confidence, sure)


def test_a_graph_that_gives_nonsense_is_refused():
    good = np.zeros((2, 3, 4, 4), np.float32), np.array([[0, 1, 2], [1, 3, 4]])
    check_kept(*good, windows=2, classes_of=5, shortlist=3)
    for logits, classes in (
        (good[0][:1], good[1]),
        (good[0][:, :2], good[1][:, :2]),
        (good[0], good[1] + 2),
        (good[0], good[1] - 1),
        (good[0], good[1][:, ::-1]),
    ):
        with pytest.raises(BundleError, match="which are not 3 of 5 classes for 2 windows; export the bundle anew"):
            check_kept(logits, classes, windows=2, classes_of=5, shortlist=3)


def test_another_shortlist_than_the_exports_is_refused(tiny_shortlist):
    path = tiny_shortlist
    message = "shortlist=8: the bundle was exported with --shortlist 6; leave it out, or export with --shortlist 8"
    with pytest.raises(PcasegError, match=message):
        Segmenter(path, shortlist=8)
    with pytest.raises(PcasegError, match="shortlist=0: give 1 to 256 classes"):
        Segmenter(path, shortlist=0)
    with pytest.raises(PcasegError, match="shortlist=300: give 1 to 256 classes"):
        ExportOptions(shortlist=300)


def test_manifests_of_before_have_none(tiny_shortlist):
    manifest = Bundle(tiny_shortlist).manifest
    old = json.loads(manifest.to_json())
    assert old.pop("shortlist") == K
    assert Manifest.from_json(json.dumps(old), "x") == replace(manifest, shortlist=None)
    with pytest.raises(BundleError, match="x: shortlist=0: give 1 to 256"):
        Manifest.from_json(replace(manifest, shortlist=0).to_json(), "x")


def test_more_names_than_a_label_graph_takes_are_refused(fake_backend_of_labels):
    text, names = np.eye(1, 64, dtype=np.float32).repeat(4097, axis=0), tuple(f"name {i}" for i in range(4097))
    segmenter = Segmenter(fake_backend_of_labels)
    for vocabulary in (names, Vocabulary(names, text, "e" * 64)):
        with pytest.raises(
            VocabularyError, match="4097 names, but a graph of labels with a shortlist takes at most 4096"
        ):
            segmenter.set_vocabulary(vocabulary)


@pytest.fixture
def fake_backend_of_labels(tiny_shortlist):
    """A backend that is asked for its manifest alone."""

    class Asked:
        name = "asked"
        manifest = replace(Bundle(tiny_shortlist).manifest, graph="labels", strategy="single")

    Asked.manifest = replace(Asked.manifest, text=replace(Asked.manifest.text, encoder_sha256="e" * 64))
    return Asked()
