"""Synonyms, templates and parts from names to labels, files and streams."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from stream_support import picture

from pcaseg.class_syntax import ClassTree
from pcaseg.data.scenes import render_scene
from pcaseg.errors import VocabularyError
from pcaseg.runtime import Segmenter, Vocabulary
from pcaseg.runtime.batch import segment_files

PARTS = "car: wheel, window; house: roof; sky; grass; road"


def test_the_best_synonym_counts_at_each_pixel(fake_backend: Any) -> None:
    segmenter = Segmenter(fake_backend)
    found = segmenter(picture(0), vocabulary=["cat; lion", "sky", "grass; meadow; lawn"])
    rows = segmenter(picture(0), vocabulary=["cat", "lion", "sky", "grass", "meadow", "lawn"])
    assert found.classes == ("cat; lion", "sky", "grass; meadow; lawn")
    np.testing.assert_array_equal(found.labels, np.array([0, 0, 1, 2, 2, 2])[rows.labels])
    np.testing.assert_array_equal(found.confidence, rows.confidence)
    assert len(np.unique(rows.labels)) > 3


def test_the_mean_of_synonyms_is_one_row(fake_backend: Any) -> None:
    segmenter = Segmenter(fake_backend)
    mean = segmenter.prepare(["cat; lion", "sky"], synonyms="mean")
    text = fake_backend.encode_text(["cat", "lion", "sky"])
    wanted = text[0] + text[1]
    np.testing.assert_allclose(mean.embeddings, [wanted / np.linalg.norm(wanted), text[2]], atol=1e-6)
    assert segmenter(picture(0), vocabulary=mean).classes == ("cat; lion", "sky")
    best = segmenter.prepare(["cat; lion", "sky"])
    assert best.rows == (0, 0, 1) and len(best.embeddings) == 3
    assert segmenter.prepare(["cat; lion", "sky"], synonyms="mean") is mean


def test_templates_are_averaged(fake_backend: Any) -> None:
    segmenter = Segmenter(fake_backend)
    found = segmenter.prepare(["cat, feline", "sky"], templates=["a {}", "{}, drawn"])
    assert fake_backend.encoded[-1] == ("a cat", "a sky", "cat, drawn", "sky, drawn")
    text = fake_backend.encode_text(fake_backend.encoded[-1]).reshape(2, 2, -1).mean(axis=0)
    np.testing.assert_allclose(found.embeddings, text / np.linalg.norm(text, axis=1, keepdims=True), atol=1e-6)
    for bad, message in (
        (["a cat"], "write {} once"),
        (["{} {}"], "write {} once"),
        ([], "one or more"),
        ("{}", "list"),
    ):
        with pytest.raises(VocabularyError, match=message):
            segmenter.prepare(["cat"], templates=bad)
    with pytest.raises(VocabularyError, match="is prepared already"):
        segmenter.prepare(found, templates=["a {}"])


def test_the_published_template_by_name_is_the_published_prompt(trained_tiny: Path) -> None:
    from support import small_model

    from pcaseg.class_names import PROMPT_TEMPLATE
    from pcaseg.export.torch_backend import TorchBackend

    names = ["red car", "tv monitor, television", "sky"]
    with Segmenter(trained_tiny, threads=1) as segmenter:
        prompts = [PROMPT_TEMPLATE.format(name) for name in ("red car", "tv monitor", "sky")]
        wanted = segmenter.prepare(names).embeddings
        for backend in (segmenter.backend, TorchBackend(small_model("tiny"))):
            np.testing.assert_allclose(backend.encode_prompts(prompts), wanted, atol=1e-5)  # type: ignore[attr-defined]
        with pytest.raises(VocabularyError, match="77"):
            segmenter.prepare(["cat"], templates=["many words " * 60 + "{}"])


@pytest.mark.parametrize(
    ("names", "options"),
    [
        (["cat; lion", "sky"], {}),
        (["car: wheel, window", "sky"], {}),
        (["cat; lion", "sky"], {"synonyms": "mean", "templates": ["a {}", "the {}"]}),
        (["cat", "sky"], {}),
    ],
)
def test_vocabulary_files(fake_backend: Any, tmp_path: Path, names: list[str], options: dict[str, Any]) -> None:
    made = Segmenter(fake_backend).prepare(names, **options)
    made.save(tmp_path / "v.safetensors")
    again = Vocabulary.load(tmp_path / "v.safetensors")
    for field in ("names", "rows", "objects", "templates", "synonyms", "encoder_sha256"):
        assert getattr(again, field) == getattr(made, field)
    np.testing.assert_array_equal(again.embeddings, made.embeddings)
    version = json.loads((tmp_path / "v.safetensors").read_bytes()[8:].partition(b'"}')[0] + b'"}}')["__metadata__"]
    assert version["version"] == ("1" if names == ["cat", "sky"] else "2")


@pytest.mark.parametrize(
    "tree",
    [
        {"rows": (0, 0)},
        {"rows": (1, 0)},
        {"rows": (0, 1, 2)},
        {"objects": (0,)},
        {"objects": (1, 0)},
        {"objects": (0, 5)},
    ],
    ids=str,
)
def test_trees_that_cannot_be(tree: dict[str, Any]) -> None:
    rows = np.eye(len(tree.get("rows", (0, 1))), 8, dtype=np.float32)
    with pytest.raises(VocabularyError, match="make it anew with pcaseg vocab"):
        Vocabulary(("cat", "dog"), rows, "e", **tree)


def test_parts_know_their_objects(trained_tiny: Path, tmp_path: Path) -> None:
    scene = next(one for one in (render_scene(i, split="evaluation") for i in range(60)) if "car wheel" in one.painted)
    with Segmenter(trained_tiny, threads=1) as segmenter:
        result = segmenter(scene.image, vocabulary=PARTS)
        flat = segmenter(
            scene.image,
            vocabulary=["car", "car wheel", "car window", "house", "house roof", "sky", "grass", "road"],
        )
        assert flat.object_of is None and flat.objects == flat.classes
        np.testing.assert_array_equal(flat.object_labels, flat.labels)
        (item,) = segmenter.stream([scene.image], PARTS)
    assert result.classes == flat.classes and result.objects == ("car", "house", "sky", "grass", "road")
    differ = result.labels != flat.labels  # where an object's own name, or a part that is hardly there, won
    assert (result.object_labels == np.array([0, 0, 0, 1, 1, 2, 3, 4])[flat.labels]).all() and differ.any()
    wheel = scene.labels(["car wheel"]) == 0
    assert (result.labels == 1)[wheel].mean() > (flat.labels == 1)[wheel].mean() > 0
    np.testing.assert_array_equal(result.object_labels, np.array([0, 0, 0, 1, 1, 2, 3, 4])[flat.labels])
    assert item.result is not None
    np.testing.assert_array_equal(item.result.object_labels, result.object_labels)
    row, column = np.argwhere(result.labels == 1)[0]
    assert result.names_at(row, column) == ("car", "car wheel")
    row, column = np.argwhere(result.labels == 5)[0]
    assert result.names_at(row, column) == ("sky", "sky")

    paths = result.save(tmp_path, "scene")
    np.testing.assert_array_equal(np.asarray(Image.open(paths["objects"])), result.object_labels)
    summary = json.loads(paths["summary"].read_text(encoding="utf-8"))
    assert summary["objects"] == list(result.objects) and summary["object_of"] == [0, 0, 0, 3, 3, 5, 6, 7]
    flat.save(tmp_path, "scene")
    assert not paths["objects"].exists(), "a level of a former run"


def test_files_are_done_anew_when_synonyms_or_parts_change(fake_backend: Any, tmp_path: Path) -> None:
    Image.fromarray(picture(0)).save(tmp_path / "a.png")
    segmenter = Segmenter(fake_backend)

    def done(spec: Any, **options: Any) -> int:
        segmenter.set_vocabulary(spec, **options)
        return len(segment_files(segmenter, [tmp_path / "a.png"], tmp_path / "out").done)

    for spec, options in (
        (["car", "car wheel"], {}),
        (["car: wheel"], {}),
        (["cat; lion"], {}),
        (["cat; lion"], {"synonyms": "mean"}),
        (["cat; lion"], {"templates": ["a {}"]}),
    ):
        assert [done(spec, **options), done(spec, **options)] == [1, 0]
    (tmp_path / "out" / "a_objects.png").unlink(missing_ok=True)


def test_plain_trees_and_strings(fake_backend: Any) -> None:
    segmenter = Segmenter(fake_backend)
    assert segmenter.prepare(ClassTree.plain(["car: wheel", "tv; set"])).names == ("car: wheel", "tv; set")
    assert segmenter.prepare("cat; dog").names == ("cat", "dog")
    assert segmenter.prepare(PARTS).objects == (0, 0, 0, 3, 3, 5, 6, 7)
