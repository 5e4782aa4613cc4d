"""Labels and confidences of the C++ library: those of the Python runtime, byte for byte."""

from __future__ import annotations

import zipfile
from ctypes import byref, c_void_p

import numpy as np
import pytest
from conftest import CLASSES
from native import BAD_ARGUMENT, BAD_IMAGE, BAD_VOCABULARY, RefusedError

import pcaseg
from pcaseg.runtime.bundle import Bundle
from pcaseg.runtime.segmenter import Segmenter
from pcaseg.runtime.vocabulary import Vocabulary

SIZES = ((480, 640), (97, 131), (1, 1), (1, 300), (300, 2), (33, 1000))
FEW_SIZES = SIZES[1:4]


def assert_same(native, image, result) -> None:
    labels, confidence, _ = native(image)
    assert labels.tobytes() == result.labels.tobytes()
    assert confidence.tobytes() == result.confidence.tobytes()


def set_random_classes(python, native, count) -> None:
    manifest, names = python.backend.manifest, [f"thing number {i}" for i in range(count)]
    rows = np.random.default_rng(count).normal(size=(count, manifest.text.embed_dim)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    python.set_vocabulary(Vocabulary(tuple(names), rows, manifest.text.encoder_sha256))
    native.set_vocabulary(names, rows, manifest.text.encoder_sha256)
    assert native.classes == names


@pytest.mark.parametrize("window_batch", [1, 3])
@pytest.mark.parametrize("strategy", ["single", "sliding"])
@pytest.mark.parametrize("graph", ["logits", "shortlist"])
def test_graphs_of_logits(library, bundle, vocabulary, frame, graph, strategy, window_batch):
    options = {"threads": 1, "strategy": strategy, "window_batch": window_batch}
    python, native = Segmenter(bundle(graph), **options), library.open(bundle(graph), **options)
    python.set_vocabulary(vocabulary)
    native.load_vocabulary(vocabulary)
    seen = set()
    for height, width in SIZES if graph == "logits" else FEW_SIZES:
        image = frame(height, width)
        result = python(image)
        assert_same(native, image, result)
        seen |= set(result.labels.flat)
    assert len(seen) > 2


@pytest.mark.parametrize("graph", ["labels", "sliding labels"])
def test_graphs_of_labels(library, bundle, vocabulary, frame, graph):
    python, native = Segmenter(bundle(graph), threads=1), library.open(bundle(graph))
    python.set_vocabulary(vocabulary)
    native.load_vocabulary(vocabulary)
    for height, width in FEW_SIZES:
        image = frame(height, width)
        assert_same(native, image, python(image))
    images = [frame(50, 61, seed=seed) for seed in range(3)]
    labels, confidence, _ = native(*images)
    wanted = python.backend.labels(np.stack(images), python.vocabulary.embeddings)
    assert (labels == wanted[0]).all() and (confidence == wanted[1]).all()


@pytest.mark.parametrize("count", [1, 2, 300])
@pytest.mark.parametrize("graph", ["logits", "shortlist"])
def test_any_number_of_classes(library, bundle, frame, graph, count):
    """More classes than a graph aggregates, fewer than its shortlist, and one."""
    python, native = (
        Segmenter(bundle(graph), threads=1, strategy="sliding"),
        library.open(bundle(graph), strategy="sliding"),
    )
    set_random_classes(python, native, count)
    image = frame(40, 57)
    assert_same(native, image, python(image))


@pytest.mark.slow  # the export takes minutes, on a busy machine half an hour, and 3 GB of memory
@pytest.mark.timeout(5400)
def test_a_frame_of_eva_b_384(library, bundle, frame):
    python, native = Segmenter(bundle("eva-b-384"), threads=1), library.open(bundle("eva-b-384"))
    set_random_classes(python, native, 5)
    image = frame(480, 640)
    result = python(image)
    assert len(np.unique(result.labels)) > 1
    assert_same(native, image, result)


TREES = {
    "best": (["tv; television; screen", "grass", "car; automobile: wheel; tyre, window", "sky"], {}),
    "mean": (["tv; television; screen", "grass", "car; automobile: wheel; tyre, window"], {"synonyms": "mean"}),
    "parts": (["house: roof, door", "red thing", "car: wheel", "grass: blade of grass", "sky"], {}),
    "templates": (["cat; kitten", "grass"], {"templates": ["a {}", "a photo of a {}."]}),
    "many": ([f"thing {i}; object {i}" for i in range(20)] + ["car: wheel"], {}),
}
"""Vocabularies of the second format: several rows for a class, parts, prompts of one's own."""


@pytest.mark.parametrize("tree", TREES)
def test_synonyms_and_parts(library, bundle, frame, tmp_path, tree):
    entries, prompts = TREES[tree]
    path = tmp_path / "tree.safetensors"
    Segmenter(bundle("logits"), threads=1).prepare(entries, **prompts).save(path)
    seen = 0
    for graph, strategy in (("logits", "single"), ("shortlist", "sliding"), ("labels", None)):
        options = {"threads": 1, "strategy": strategy}
        python, native = Segmenter(bundle(graph), **options), library.open(bundle(graph), **options)
        python.set_vocabulary(path)
        native.load_vocabulary(path)
        assert tuple(native.classes) == python.vocabulary.names
        for height, width in ((97, 131), (33, 200)):
            image = frame(height, width)
            result = python(image)
            assert_same(native, image, result)
            seen = max(seen, len(np.unique(result.labels)))
    assert seen > 1


@pytest.mark.parametrize("graph", ["logits", "shortlist"])
def test_pixels_of_parts(library, bundle, frame, tmp_path, graph):
    """Rows that lie close together: pixels of objects, of their parts, and of parts that are not there."""
    python, native = Segmenter(bundle(graph), threads=1), library.open(bundle(graph), threads=1)
    random = np.random.default_rng(7)
    rows = np.concatenate([python.prepare([name]).embeddings for name in CLASSES])
    rows = np.concatenate([rows, rows + 0.05 * random.normal(size=rows.shape).astype(np.float32)])
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    names, objects = [f"thing {i}" for i in range(14)], [*range(7), *(i if i < 5 else i + 7 for i in range(7))]
    encoder = python.backend.manifest.text.encoder_sha256
    Vocabulary(tuple(names), rows, encoder, objects=tuple(objects)).save(tmp_path / "parts.safetensors")
    python.set_vocabulary(tmp_path / "parts.safetensors")
    native.load_vocabulary(tmp_path / "parts.safetensors")
    kinds = set()
    for seed in range(4):
        image = frame(120, 160, seed=seed)
        result = python(image)
        assert_same(native, image, result)
        kinds |= {label < 7 for label in np.unique(result.labels).tolist()}
    assert kinds == {True, False}


def test_frames_of_a_batch_are_those_alone(library, bundle, vocabulary, frame):
    for strategy in ("single", "sliding"):
        native = library.open(bundle("shortlist"), strategy=strategy)
        native.load_vocabulary(vocabulary)
        images = [frame(70, 90, seed=seed) for seed in range(3)]
        together, alone = native(*images), [native(image) for image in images]
        for place in (0, 1):
            assert (together[place] == np.concatenate([one[place] for one in alone])).all()


def test_rows_may_be_apart(library, bundle, vocabulary, frame):
    wide = frame(60, 200)
    for graph in ("logits", "labels"):
        native = library.open(bundle(graph))
        native.load_vocabulary(vocabulary)
        part = wide[:, 20:133]
        assert (native(part)[0] == native(part.copy())[0]).all()


def test_zip_files(library, bundle, vocabulary, frame, tmp_path):
    """Stored as `pcaseg export` does it, deflated, within a folder, and behind other bytes."""
    image, folder = frame(30, 40), bundle("logits")
    plain = library.open(folder)
    plain.load_vocabulary(vocabulary)
    for prefix, method in (("", zipfile.ZIP_STORED), ("scene.pcaseg/", zipfile.ZIP_DEFLATED)):
        path = tmp_path / f"{method}.zip"
        with zipfile.ZipFile(path, "w", method) as archive:
            for file in folder.iterdir():
                archive.write(file, prefix + file.name)
        shifted = tmp_path / "shifted.zip"
        shifted.write_bytes(b"#!/bin/sh\n" + path.read_bytes())
        for packed in (path, shifted):
            native = library.open(packed)
            native.load_vocabulary(vocabulary)
            assert (native(image)[0] == plain(image)[0]).all()
            assert library.text("bundle_sha256", native.handle) == Bundle(folder).sha256


def test_vocabularies_change_between_frames(library, bundle, vocabulary, frame, tmp_path):
    """And a refused one leaves the former in place."""
    python, native = Segmenter(bundle("logits"), threads=1), library.open(bundle("logits"))
    image = frame(64, 64)
    for names in (CLASSES, ("cat", "dog"), CLASSES[::-1]):
        python.set_vocabulary(list(names))
        python.vocabulary.save(tmp_path / "now.safetensors")
        native.load_vocabulary(tmp_path / "now.safetensors")
        assert tuple(native.classes) == names
        assert_same(native, image, python(image))
    (tmp_path / "now.safetensors").write_bytes(b"damaged")
    with pytest.raises(RefusedError) as refused:
        native.load_vocabulary(tmp_path / "now.safetensors")
    assert refused.value.status == BAD_VOCABULARY
    assert_same(native, image, python(image))


def test_what_cannot_be_is_refused_in_one_sentence(library, bundle, vocabulary, frame):
    def refusal(status, work, *arguments, **options) -> str:
        with pytest.raises(RefusedError) as refused:
            work(*arguments, **options)
        assert refused.value.status == status
        assert refused.value.sentence.count("\n") == 0
        return refused.value.sentence

    path = bundle("logits")
    for options in ({"threads": -1}, {"window_batch": -2}, {"strategy": "whole"}):
        with pytest.raises(pcaseg.PcasegError) as wanted:
            Segmenter(path, **options)
        assert refusal(BAD_ARGUMENT, library.open, path, **options) == str(wanted.value)
    assert "choose one of onnxruntime" in refusal(BAD_ARGUMENT, library.open, path, backend="openvino")
    with pytest.raises(pcaseg.PcasegError) as wanted:
        Segmenter(bundle("labels"), strategy="sliding")
    assert refusal(BAD_ARGUMENT, library.open, bundle("labels"), strategy="sliding") == str(wanted.value)
    native = library.open(path)
    assert "no vocabulary" in refusal(BAD_VOCABULARY, native, frame(3, 3))
    native.load_vocabulary(vocabulary)
    assert "give frames of one size" in refusal(BAD_IMAGE, native, frame(3, 3), frame(3, 4))
    assert "1 x 1 or more" in refusal(BAD_IMAGE, native, np.zeros((0, 4, 3), np.uint8))
    assert "segmenter is NULL" in refusal(BAD_ARGUMENT, library.call, "load_vocabulary", None, b"x.safetensors")
    assert "bundle is NULL" in refusal(BAD_ARGUMENT, library.call, "open", None, None, byref(c_void_p()))


def test_version(library):
    assert library.text("version") == pcaseg.__version__
