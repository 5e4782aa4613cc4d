"""Bundles are written whole, describe themselves, and segment as the eager model does."""

from __future__ import annotations

import json
import os
from collections import Counter
from shutil import copy

import numpy as np
import onnx
import pytest
from support import small_model

import pcaseg.export.bundle
from pcaseg.errors import BundleError, OutputError, PcasegError
from pcaseg.export.bundle import write_bundle
from pcaseg.export.options import ExportOptions
from pcaseg.export.torch_backend import TorchBackend
from pcaseg.files import sha256_of
from pcaseg.runtime.bundle import Bundle
from pcaseg.runtime.segmenter import Segmenter

NAMES = ["cat", "grass", "tv monitor, television", "élève"]


@pytest.fixture(scope="module")
def bundle(copy_bundle, tmp_path_factory):
    return copy_bundle(tmp_path_factory.mktemp("bundles") / "small.pcaseg")


@pytest.fixture
def traced_before(bundle, monkeypatch):
    """Takes the graphs from the bundle made above: tracing takes seconds and is tested elsewhere."""
    for name in ("segmenter", "text_encoder"):
        source = bundle / f"{name}.onnx"
        monkeypatch.setattr(
            pcaseg.export.bundle,
            f"export_{name}",
            lambda _, path, source=source, options=None: onnx.load(copy(source, path)),
        )


def test_files_and_hashes(bundle, small):
    files = {path.name for path in bundle.iterdir()}
    assert files == {"manifest.json", "segmenter.onnx", "text_encoder.onnx", "tokenizer.json"}
    manifest = json.loads((bundle / "manifest.json").read_text())
    for name, entry in manifest["files"].items():
        assert entry == {"sha256": sha256_of(bundle / name), "bytes": (bundle / name).stat().st_size}
    assert manifest["weights"] == {"kind": "seeded", "path": None, "sha256": small.source.sha256, "seed": 0}
    assert manifest["precision"] == "float32" and manifest["opset"] == 20
    assert manifest["inputs"]["text"]["shape"] == ["T", 64]
    assert manifest["versions"]["torch"]
    for name in ("segmenter.onnx", "text_encoder.onnx"):
        nodes = onnx.load(bundle / name).graph.node
        assert manifest["graphs"][name] == {"nodes": len(nodes), "operators": Counter(node.op_type for node in nodes)}
    Bundle(bundle).verify()
    assert os.listdir(bundle.parent) == [bundle.name]


@pytest.mark.parametrize("strategy", ["single", "sliding"])
def test_segments_as_the_eager_model(bundle, small, strategy):
    image = np.random.default_rng(1).integers(0, 256, (120, 200, 3), dtype=np.uint8)
    segmenter = Segmenter(bundle, strategy=strategy)
    segmenter.set_vocabulary(NAMES)
    scores = small.segment(image, small.encode_text(NAMES), strategy=strategy)
    result = segmenter(image)
    assert (result.labels == scores.argmax(dim=0).numpy()).mean() >= 0.999
    np.testing.assert_allclose(result.confidence, scores.amax(dim=0).numpy(), atol=1e-4)
    eager = Segmenter(TorchBackend(small), strategy=strategy)
    eager.set_vocabulary(NAMES)
    assert (eager(image).labels == result.labels).mean() >= 0.999
    assert eager.backend.name == "torch-cpu" and segmenter.backend.name == "onnxruntime-cpu"


@pytest.mark.long
def test_vocabulary_changes_without_a_new_bundle(bundle, small):
    image = np.random.default_rng(2).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    segmenter = Segmenter(bundle)
    for vocabulary, count in ((["cat"], 1), ("voc_20", 20), ("ade20k_150", 150), ("ade20k_847", 847), (["cat"], 1)):
        segmenter.set_vocabulary(vocabulary)
        result = segmenter(image)
        assert len(result.classes) == count and result.labels.max() < count
        scores = small.segment(image, small.encode_text(result.classes), strategy="single")
        assert (result.labels == scores.argmax(dim=0).numpy()).mean() >= 0.999


def test_zipped_bundle_is_the_same(small, tmp_path, traced_before):
    write_bundle(small, tmp_path / "small.pcaseg.zip")
    assert os.listdir(tmp_path) == ["small.pcaseg.zip"]
    segmenter = Segmenter(tmp_path / "small.pcaseg.zip")
    segmenter.set_vocabulary(["cat", "grass"])
    assert segmenter(np.zeros((5, 5, 3), dtype=np.uint8)).labels.shape == (5, 5)


def test_bundles_of_one_model_are_the_same_bytes(small, tmp_path, traced_before):
    """Wherever they are written; that tracing too repeats itself is shown by `test_exports_of_two_processes`."""
    for name in ("a.pcaseg", "b/other.pcaseg", "a.pcaseg.zip", "b/c.pcaseg.zip"):
        write_bundle(small, tmp_path / name)
    a, b = ({path.name: sha256_of(path) for path in (tmp_path / n).iterdir()} for n in ("a.pcaseg", "b/other.pcaseg"))
    assert a == b and len(a) == 4
    assert sha256_of(tmp_path / "a.pcaseg.zip") == sha256_of(tmp_path / "b" / "c.pcaseg.zip")


def test_torch_backend_rebuilds_seeded_weights(tmp_path, small_preset, traced_before):
    write_bundle(small_model(seed=4), tmp_path / "b.pcaseg")
    segmenter = Segmenter(tmp_path / "b.pcaseg", backend="torch")
    segmenter.set_vocabulary(["cat", "grass"])
    assert segmenter(np.zeros((8, 8, 3), dtype=np.uint8)).backend == "torch-cpu"


def test_torch_backend_refuses_changed_weights(tmp_path, small_preset, traced_before):
    from pcaseg.model.checkpoint import open_model, save_model

    save_model(small_model(seed=4), tmp_path / "m.safetensors")
    write_bundle(open_model(tmp_path / "m.safetensors"), tmp_path / "b.pcaseg")
    save_model(small_model(seed=5), tmp_path / "m.safetensors")
    with pytest.raises(BundleError, match="not what it was exported from"):
        Segmenter(tmp_path / "b.pcaseg", backend="torch")
    (tmp_path / "m.safetensors").unlink()
    with pytest.raises(BundleError, match="no such file.*pass the model with --model"):
        Segmenter(tmp_path / "b.pcaseg", backend="torch")


def test_nothing_is_overwritten_unasked(bundle, small, tmp_path):
    with pytest.raises(OutputError, match="exists; choose another name or pass --overwrite"):
        write_bundle(small, bundle)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "one.jpg").write_text("precious")
    with pytest.raises(OutputError, match="exists and is not a bundle"):
        write_bundle(small, tmp_path / "photos", overwrite=True)
    assert (tmp_path / "photos" / "one.jpg").read_text() == "precious"


def test_failed_export_leaves_nothing_and_keeps_the_old(small, tmp_path, monkeypatch, traced_before):
    out = tmp_path / "b.pcaseg"
    write_bundle(small, out)
    before = sha256_of(out / "manifest.json")

    def fail(path):
        path.write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pcaseg.export.bundle, "write_tokenizer", fail)
    with pytest.raises(OutputError, match="No space left on device"):
        write_bundle(small, out, overwrite=True)
    assert os.listdir(tmp_path) == ["b.pcaseg"] and sha256_of(out / "manifest.json") == before


def test_only_float32_models(tmp_path):
    with pytest.raises(PcasegError, match="takes a float32 model"):
        write_bundle(small_model().double(), tmp_path / "b.pcaseg")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strategy": "sliding"}, "strategy='sliding': a graph of logits runs any; leave it out"),
        ({"image_size": (480, 640)}, r"image_size=\(480, 640\): a graph of logits takes any; leave it out"),
        ({"graph": "masks"}, "graph='masks': choose one of logits, labels"),
        ({"graph": "labels", "strategy": "both"}, "strategy='both': choose one of single, sliding"),
        ({"graph": "labels", "image_size": (0, 640)}, r"image_size=\(0, 640\): give .* from 1 to 8192 pixels"),
        ({"graph": "labels", "image_size": (480, 8193)}, "from 1 to 8192 pixels"),
        ({"precision": "int8"}, "precision='int8': choose one of float32, float16"),
        ({"layer_norm": "fused"}, "layer_norm='fused': choose one of operator, decomposed"),
        ({"opset": 16}, "opset=16: choose one from 17 to 25"),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(PcasegError, match=message):
        ExportOptions(**options)


@pytest.mark.long
def test_eager_backend_follows_the_strategy_of_a_label_graph(tmp_path, small_preset, bundle, monkeypatch):
    """It runs its logits, merged as the bundle's graph would."""

    def written(_, path, **options):
        return onnx.load(copy(bundle / "segmenter.onnx", path))

    model = small_model(seed=4)
    monkeypatch.setattr(pcaseg.export.bundle, "export_label_graph", written)
    write_bundle(model, tmp_path / "b.pcaseg", options=ExportOptions(graph="labels", strategy="sliding"))
    segmenter = Segmenter(tmp_path / "b.pcaseg", backend="torch")
    assert segmenter.strategy == "sliding" and segmenter.backend.manifest.graph == "logits"
    segmenter.set_vocabulary(["cat", "grass"])
    image = np.random.default_rng(3).integers(0, 256, (30, 41, 3), dtype=np.uint8)
    scores = model.segment(image, model.encode_text(["cat", "grass"]), strategy="sliding")
    assert (segmenter(image).labels == scores.argmax(dim=0).numpy()).mean() >= 0.999
    with pytest.raises(PcasegError, match="has no graph of labels"):
        segmenter.backend.labels(image[None], segmenter.vocabulary.embeddings)


def test_unwritable_destination(small, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        write_bundle(small, tmp_path / "file" / "b.pcaseg")
