"""Bundles that the C++ library refuses: tampered, truncated and foreign ones, in the Python runtime's words."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from native import BAD_BUNDLE, BAD_IMAGE, BAD_VOCABULARY, FAILED, RefusedError
from onnx import TensorProto, helper

from pcaseg.errors import BundleError, PcasegError, VocabularyError
from pcaseg.runtime.segmenter import Segmenter

FLOAT, BYTE, INDEX = TensorProto.FLOAT, TensorProto.UINT8, TensorProto.INT32


def edit(folder: Path, **changes) -> None:
    """Changes fields of a manifest; a dotted name `a__b` is the field `b` of `a`."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    for name, value in changes.items():
        *parents, last = name.split("__")
        at = manifest
        for parent in parents:
            at = at[parent]
        at[last] = value
    path.write_text(json.dumps(manifest))


def vouch(folder: Path, data: bytes) -> None:
    """Puts other bytes in the place of the segmenter, with a manifest that vouches for them."""
    (folder / "segmenter.onnx").write_bytes(data)
    manifest = json.loads((folder / "manifest.json").read_text())
    files = manifest["files"] | {"segmenter.onnx": {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}}
    edit(folder, files=files)


def graph(inputs: dict, outputs: dict, nodes: list) -> bytes:
    """An ONNX file; inputs and outputs are (type, axes) by name."""

    def values(table):
        return [helper.make_tensor_value_info(name, kind, axes) for name, (kind, axes) in table.items()]

    made = helper.make_graph(nodes, "g", values(inputs), values(outputs))
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


def logit_graph(side: object = 96, width: object = 64, output: str = "logits", *nodes) -> bytes:
    """A graph of logits that are the number 1, or what `nodes` make of it in `one`."""
    shape = [
        helper.make_node("Shape", ["image"], ["n"], start=0, end=1),
        helper.make_node("Shape", ["text"], ["t"], start=0, end=1),
        helper.make_node("Constant", [], ["hw"], value_ints=[4, 4]),
        helper.make_node("Concat", ["n", "t", "hw"], ["shape"], axis=0),
        helper.make_node("ConstantOfShape", ["shape"], ["one"], value=helper.make_tensor("v", FLOAT, [1], [1.0])),
        *(nodes or [helper.make_node("Identity", ["one"], [output])]),
    ]
    inputs = {"image": (FLOAT, ["N", 3, side, side]), "text": (FLOAT, ["T", width])}
    return graph(inputs, {output: (FLOAT, None)}, shape)


def label_graph(height: object, width: object) -> bytes:
    """A graph of labels that are all 0."""
    nodes = [
        helper.make_node("Cast", ["image"], ["pixels"], to=FLOAT),
        helper.make_node("ReduceMean", ["pixels"], ["mean"], axes=[3], keepdims=0),
        helper.make_node("Sigmoid", ["mean"], ["confidence"]),
        helper.make_node("Sub", ["mean", "mean"], ["zero"]),
        helper.make_node("Cast", ["zero"], ["labels"], to=INDEX),
    ]
    frame = ["N", height, width]
    inputs = {"image": (BYTE, [*frame, 3]), "text": (FLOAT, ["T", 64])}
    return graph(inputs, {"labels": (INDEX, frame), "confidence": (FLOAT, frame)}, nodes)


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def without(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


DAMAGES = {
    "no bundle": lambda b: without(b),
    "no manifest": lambda b: without(b / "manifest.json"),
    "no segmenter": lambda b: without(b / "segmenter.onnx"),
    "a folder for a file": lambda b: (without(b / "segmenter.onnx"), (b / "segmenter.onnx").mkdir()),
    "a folder for the manifest": lambda b: (without(b / "manifest.json"), (b / "manifest.json").mkdir()),
    "a link to itself": lambda b: (without(b / "segmenter.onnx"), (b / "segmenter.onnx").symlink_to("segmenter.onnx")),
    "an empty folder": lambda b: (without(b), b.mkdir()),
    "a text": lambda b: (without(b), b.write_text("not a zip file")),
    "nothing": lambda b: (without(b), b.touch()),
    "one bit": lambda b: flip(b / "segmenter.onnx", 5000),
    "cut": lambda b: os.truncate(b / "segmenter.onnx", 70_000),
    "one byte more": lambda b: (b / "segmenter.onnx").open("ab").write(b"x"),
    "an empty manifest": lambda b: os.truncate(b / "manifest.json", 0),
    "a cut manifest": lambda b: os.truncate(b / "manifest.json", 700),
    "a list": lambda b: (b / "manifest.json").write_text("[1]"),
    "UTF-8 with a mark and a fault": lambda b: (b / "manifest.json").write_bytes(b"\xef\xbb\xbf{"),
    "no UTF-8": lambda b: (b / "manifest.json").write_bytes(b'{"a": "\xff"}'),
    "half a letter": lambda b: (b / "manifest.json").write_bytes(b'{"a": "\xe2\x82'),
    "newer": lambda b: edit(b, schema_version=3),
    "older": lambda b: edit(b, schema_version=1),
    "a version in words": lambda b: edit(b, schema_version="it's 2"),
    "a file less": lambda b: edit(b, files={}, graphs={}),
    "another file": lambda b: edit(b, files={"a.onnx": {"sha256": "0" * 64, "bytes": 1}}, graphs={}),
    "out of the bundle": lambda b: edit(b, files={"../a": {"sha256": "0" * 64, "bytes": 1}}, graphs={}),
    "a short hash": lambda b: edit(b, text__encoder_sha256="12"),
    "a stride of 0": lambda b: edit(b, sliding__stride_px=0),
    "windows beyond number": lambda b: edit(b, sliding__stride_px=1, sliding__window_px=1, sliding__image_px=8000),
    "two prompts": lambda b: edit(b, text__prompts=2),
    "a short context": lambda b: edit(b, text__context_length=16),
    "windows with gaps": lambda b: edit(b, sliding__stride_px=100, sliding__window_px=60),
    "labels without a strategy": lambda b: edit(b, graph="labels"),
    "no graph": lambda b: vouch(b, b"no graph"),
    "an empty graph": lambda b: vouch(b, b""),
    "labels, says the manifest": lambda b: edit(b, graph="labels", strategy="single"),
    "a shortlist, says the manifest": lambda b: edit(b, shortlist=5),
    "a wrong side": lambda b: edit(b, image__size_px=80),
    "a wrong width": lambda b: edit(b, text__embed_dim=65),
    "another output": lambda b: vouch(b, logit_graph(output="scores")),
    "free axes": lambda b: vouch(b, logit_graph(side=None, width="D")),
    "an operator of nobody": lambda b: vouch(
        b, logit_graph(96, 64, "logits", helper.make_node("Nothing", ["one"], ["logits"]))
    ),
}


def both(library, path, then=lambda segmenter: None) -> tuple[str, str, int]:
    """Sentences of the two runtimes, and the C++ library's status."""
    with pytest.raises(PcasegError) as python:
        then(Segmenter(path, threads=1))
    with pytest.raises(RefusedError) as native:
        then(library.open(path))
    kinds = {BundleError: BAD_BUNDLE, VocabularyError: BAD_VOCABULARY, PcasegError: FAILED}
    assert native.value.status == kinds.get(type(python.value), BAD_IMAGE)
    return str(python.value), native.value.sentence, native.value.status


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_bundles(library, bundle, tmp_path, damage):
    path = shutil.copytree(bundle("logits"), tmp_path / "scène's.pcaseg")
    DAMAGES[damage](path)
    python, native, status = both(library, path)
    assert native == python
    assert status == BAD_BUNDLE and python.count("\n") == 0


@pytest.mark.parametrize("name", ["./x//scene.pcaseg/", ".", "scene.pcaseg/..", "n" * 300, "//nowhere", ""])
def test_paths_are_shown_as_python_shows_them(library, tmp_path, monkeypatch, name):
    (tmp_path / "x/scene.pcaseg").mkdir(parents=True)
    (tmp_path / "scene.pcaseg").mkdir()
    monkeypatch.chdir(tmp_path)
    python, native, _ = both(library, name)
    assert native == python


def test_a_fixed_size(library, bundle, vocabulary, frame, tmp_path):
    path = shutil.copytree(bundle("logits"), tmp_path / "scene.pcaseg")
    vouch(path, label_graph(60, 80))
    edit(path, graph="labels", strategy="single", image_size=[60, 80])

    def run(segmenter, size=(60, 81)):
        load = getattr(segmenter, "load_vocabulary", None) or segmenter.set_vocabulary
        load(vocabulary)
        return segmenter(frame(*size))

    python, native, _ = both(library, path, run)
    assert native == python and "takes 60 x 80 alone" in native
    labels, confidence, _ = run(library.open(path), (60, 80))
    assert not labels.any() and (confidence > 0.5).all()
    edit(path, image_size=[60, 81])
    python, native, _ = both(library, path)
    assert native == python and "[60, 81, 3] behind the first axis" in native


def test_numbers_that_are_none_and_wrong_sizes(library, bundle, vocabulary, frame, tmp_path):
    path = shutil.copytree(bundle("logits"), tmp_path / "scene.pcaseg")

    def run(segmenter):
        load = getattr(segmenter, "load_vocabulary", None) or segmenter.set_vocabulary
        load(vocabulary)
        segmenter(frame(9, 9))

    for node, said in (
        (helper.make_node("Log", ["minus"], ["logits"]), "not finite"),
        (helper.make_node("Concat", ["one", "one"], ["logits"], axis=1), "for 1 windows and 7 classes"),
    ):
        vouch(path, logit_graph(96, 64, "logits", helper.make_node("Neg", ["one"], ["minus"]), node))
        python, native, _ = both(library, path, run)
        assert native == python and said in native


FORMAT_2 = {"version": "2", "rows": "[0, 1, 2, 3, 4, 5, 6]", "objects": "[]", "templates": '["a {}"]'}
FORMAT_2 |= {"synonyms": "best"}
TREE_FAULTS = (
    *({name: text} for name in ("rows", "objects", "templates") for text in ("3", "1.5", "true", "null", "[1")),
    *(
        {"rows": text}
        for text in ("[0, 1]", "[0, 0, 2, 3, 4, 5, 6]", "[0, 1, 2, 3, 4, 5, 7]", "[true, 1, 2, 3, 4, 5, 6]")
    ),
    *(
        {"rows": text}
        for text in ("[0, 1, 2, 3, 4, 5, 6, 6]", "[0, 1, 2, 3, 4, 5, 6.0]", f"[0, -{10**30}]", '{"a": 1}')
    ),
    *(
        {"objects": text}
        for text in ("[0]", "[0, 1, 2, 3, 4, 5, 7]", "[1, 1, 2, 1, 4, 5, 3]", "[-1, 1, 2, 3, 4, 5, 6]")
    ),
    {"templates": "[1]"},
    {"rows": '"ab"'},
    {"synonyms": "worst"},
    *({"names": text} for text in ("[1]", '["a", null]', '["a", ["b"]]', '["a", ", b"]', '["a", 1e3]')),
)
"""What a file of the second format may say that is not so; its seven names stay."""


def tree_says(python, native, path, rows, metadata) -> str:
    """The sentence of both runtimes about a vocabulary file, empty where both take it."""
    from safetensors.numpy import save_file

    said = []
    save_file({"embeddings": rows}, path, metadata=metadata)
    for load in (python.set_vocabulary, native.load_vocabulary):
        try:
            load(path)
            said.append("")
        except (VocabularyError, RefusedError) as error:
            said.append(str(error))
    assert said[0] == said[1]
    return said[0]


def test_vocabularies_of_others(library, bundle, vocabulary, tmp_path):
    """Another encoder, a missing file, a folder, another kind of file, and names that do not fit."""
    from safetensors.numpy import load_file, safe_open, save_file

    rows = load_file(vocabulary)["embeddings"]
    with safe_open(vocabulary, "numpy") as file:
        metadata = file.metadata()
    made = {
        "encoder": (rows, metadata | {"encoder_sha256": "ab" * 32}),
        "narrow": (np.eye(7, dtype=np.float32), metadata),
        "format": (rows, metadata | {"format": "other"}),
        "version": (rows, metadata | {"version": "3"}),
        "fewer": (rows[:3], metadata),
        "no names": (rows, {name: text for name, text in metadata.items() if name != "names"}),
        "no list": (rows, metadata | {"names": '"cat"'}),
        "no JSON": (rows, metadata | {"names": '["cat"'}),
        "blank": (rows[:2], metadata | {"names": '["cat", " "]'}),
        "long": (rows[:2], metadata | {"names": json.dumps(["cat", "x" * 501])}),
        "none": (rows[:1], metadata | {"names": "[]"}),
        "not of norm 1": (rows * 2, metadata),
        "no numbers": (rows * np.float32("nan"), metadata),
    }
    native, python = library.open(bundle("logits")), Segmenter(bundle("logits"), threads=1)
    paths = [tmp_path / "absent.safetensors", tmp_path / "folder.safetensors"]
    paths[1].mkdir()
    for name, (embeddings, facts) in made.items():
        paths.append(tmp_path / f"{name}.safetensors")
        save_file({"embeddings": embeddings}, paths[-1], metadata=facts)
    for path in paths:
        with pytest.raises(VocabularyError) as wanted:
            python.set_vocabulary(path)
        with pytest.raises(RefusedError) as refused:
            native.load_vocabulary(path)
        assert refused.value.sentence == str(wanted.value)
        assert refused.value.status == BAD_VOCABULARY
    assert all(tree_says(python, native, paths[0], rows, metadata | FORMAT_2 | change) for change in TREE_FAULTS)
    assert tree_says(python, native, paths[0], rows, metadata | FORMAT_2) == ""
