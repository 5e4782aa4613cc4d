"""Vocabularies: checks, files and names."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pcaseg.class_lists import class_list
from pcaseg.errors import OutputError, VocabularyError
from pcaseg.runtime.vocabulary import Vocabulary, resolve_names

safetensors_numpy = pytest.importorskip("safetensors.numpy")

NAMES = ("cat", "tv monitor, television", "草 '\"")


def embeddings(count: int = 3) -> np.ndarray:
    values = np.random.default_rng(0).standard_normal((count, 8)).astype(np.float32)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def metadata(**changes: str) -> dict[str, str]:
    fields = {"format": "pcaseg.vocabulary", "version": "1", "names": json.dumps(NAMES), "encoder_sha256": "e" * 64}
    return fields | changes


TREE = metadata(version="2", rows="[0, 1, 2]", objects="[0, 0, 2]", templates='["a {}"]', synonyms="best")


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "v.safetensors"
    saved = Vocabulary(NAMES, embeddings(), "e" * 64)
    saved.save(path)
    loaded = Vocabulary.load(path)
    assert (loaded.names, loaded.encoder_sha256) == (NAMES, "e" * 64)
    np.testing.assert_array_equal(loaded.embeddings, saved.embeddings)
    assert loaded.embeddings.dtype == np.float32
    assert [p.name for p in path.parent.iterdir()] == ["v.safetensors"]


def test_embeddings_are_an_own_read_only_copy() -> None:
    given = embeddings()
    vocabulary = Vocabulary(NAMES, given, "e")
    given[:] = 0
    assert np.linalg.norm(vocabulary.embeddings[0]) == pytest.approx(1, abs=1e-6)
    with pytest.raises(ValueError, match="read-only"):
        vocabulary.embeddings[0, 0] = 1


BAD_EMBEDDINGS = {
    "count": (embeddings(2), "3 names but 2 embeddings"),
    "float64": (embeddings().astype(np.float64), "float64"),
    "one axis": (embeddings()[0], r"\(8,\)"),
    "nan": (np.full((3, 8), np.nan, np.float32), "unit norm"),
    "inf": (np.full((3, 8), np.inf, np.float32), "unit norm"),
    "scaled": (embeddings() * np.float32(1.01), "unit norm"),
    "zero": (embeddings() * np.float32(0), "unit norm"),
    "no columns": (np.zeros((3, 0), np.float32), r"\(3, 0\)"),
}


@pytest.mark.parametrize("case", BAD_EMBEDDINGS)
def test_bad_embeddings_are_refused_in_memory_and_in_files(tmp_path: Path, case: str) -> None:
    values, message = BAD_EMBEDDINGS[case]
    with pytest.raises(VocabularyError, match=message):
        Vocabulary(NAMES, values, "e")
    path = tmp_path / "v.safetensors"
    path.write_bytes(safetensors_numpy.save({"embeddings": values}, metadata=metadata()))
    with pytest.raises(VocabularyError, match=rf"v\.safetensors: .*{message}.*pcaseg vocab"):
        Vocabulary.load(path)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "not a vocabulary"),
        (metadata(format="other"), "not a vocabulary"),
        (metadata(version="3"), "format '3' is not '1' or '2'.*upgrade"),
        (metadata(version="2"), "rows is missing"),
        (TREE | {"synonyms": "worst"}, "of no known kind"),
        (TREE | {"templates": "[3]"}, "of no known kind"),
        (TREE | {"rows": "7"}, "not iterable"),
        (TREE | {"rows": "[0, 2, 2]"}, "rows do not belong"),
        (TREE | {"objects": "[0, 0, 1]"}, "objects"),
        (metadata(names="["), "Expecting value"),
        (metadata(names='"abc"'), "not a list"),
        (metadata(names="3"), "not a list"),
        (metadata(names='["a", "a", "b"]'), "keep one"),
        (metadata(names='["a", 1, "b"]'), "not a string"),
        ({k: v for k, v in metadata().items() if k != "names"}, "names is missing"),
        ({k: v for k, v in metadata().items() if k != "encoder_sha256"}, "encoder_sha256 is missing"),
    ],
)
def test_bad_metadata_is_refused(tmp_path: Path, fields: dict[str, str], message: str) -> None:
    path = tmp_path / "v.safetensors"
    path.write_bytes(safetensors_numpy.save({"embeddings": embeddings()}, metadata=fields or None))
    with pytest.raises(VocabularyError, match=rf"v\.safetensors: .*{message}"):
        Vocabulary.load(path)


def test_foreign_truncated_and_missing_files(tmp_path: Path) -> None:
    path = tmp_path / "v.safetensors"
    path.write_bytes(safetensors_numpy.save({"weight": embeddings()}))
    with pytest.raises(VocabularyError, match="not a vocabulary"):
        Vocabulary.load(path)
    Vocabulary(NAMES, embeddings(), "e").save(path)
    whole = path.read_bytes()
    for length in (0, 4, 20, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(VocabularyError, match="damaged or not a safetensors file"):
            Vocabulary.load(path)
    for missing in (tmp_path, tmp_path / "none.safetensors"):
        with pytest.raises(VocabularyError, match="no such vocabulary file"):
            Vocabulary.load(missing)


def test_a_failed_save_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "v.safetensors"
    Vocabulary(NAMES, embeddings(), "e").save(path)
    before = path.read_bytes()
    (tmp_path / "file").touch()
    with pytest.raises(OutputError):
        Vocabulary(NAMES, embeddings(), "f").save(tmp_path / "file" / "v.safetensors")
    assert path.read_bytes() == before


def test_resolve_names(tmp_path: Path) -> None:
    assert resolve_names(["cat", "dog"]) == ("cat", "dog")
    assert resolve_names("ade20k_150") == class_list("ade20k_150")
    path = tmp_path / "mine.txt"
    path.write_text("\ufeffcat\n\n tv monitor, television \n", encoding="utf-8")
    assert resolve_names(path) == resolve_names(str(path)) == ("cat", "tv monitor, television")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("cat", r"neither a .txt, .csv, .tsv or .json file nor a class list \(ade20k_150.*\['cat'\]"),
        ([], "no class names"),
        (["cat", "Cat "], "keep one"),
        ("missing.txt", "cannot be read"),
        ({"cat", "dog"}, "fixes their order"),
        (7, "got int"),
    ],
)
def test_resolve_names_refuses(spec: object, message: str) -> None:
    with pytest.raises(VocabularyError, match=message):
        resolve_names(spec)  # type: ignore[arg-type]
