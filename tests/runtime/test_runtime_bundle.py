"""Bundles as folder and as zip, whole and tampered with; the manifest field by field."""

from __future__ import annotations

import hashlib
import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pcaseg.errors import BundleError
from pcaseg.runtime.bundle import Bundle, FileEntry, GraphInfo, Manifest, Weights

FILES = {"segmenter.onnx": b"weights" * 1000, "vocabularies/a.safetensors": b"names"}


@pytest.fixture
def folder(tmp_path: Path, write_bundle: Callable[..., Path]) -> Path:
    return write_bundle(tmp_path / "scene.pcaseg", FILES)


def zipped(folder: Path, *, top: str = "") -> Path:
    path = folder.parent / "scene.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, top + file.relative_to(folder).as_posix())
    return path


def test_manifest_round_trip(make_manifest: Callable[..., Manifest]) -> None:
    manifest = make_manifest()
    text = manifest.to_json()
    assert Manifest.from_json(text, "m") == manifest
    assert Manifest.from_json(text.encode(), "m") == manifest
    data = json.loads(text)
    assert next(iter(data)) == "schema_version" and data["schema_version"] == 2
    assert data["image"] == {"size_px": 32}
    assert data["inputs"]["image"]["shape"] == ["N", 3, 32, 32]


@pytest.mark.parametrize("kind", ["checkpoint", "clip-only", "seeded"])
def test_every_kind_of_weights_is_read(make_manifest: Callable[..., Manifest], kind: Any) -> None:
    manifest = make_manifest(weights=Weights(kind=kind, path="m.pth", sha256="c" * 64, seed=None))
    assert Manifest.from_json(manifest.to_json(), "m").weights == manifest.weights


def test_manifest_of_a_label_graph(make_manifest: Callable[..., Manifest]) -> None:
    files = {"segmenter.onnx": FileEntry("b" * 64, 9)}
    graphs = {"segmenter.onnx": GraphInfo(3, {"Add": 1, "Resize": 2})}
    for strategy, size in (("single", None), ("sliding", (720, 1280))):
        manifest = make_manifest(graph="labels", strategy=strategy, image_size=size, files=files, graphs=graphs)
        assert Manifest.from_json(manifest.to_json(), "m") == manifest
    for size in ((0, 640), (480, 8193)):
        manifest = make_manifest(graph="labels", strategy="single", image_size=size)
        with pytest.raises(BundleError, match="image_size is .*not 1 to 8192 px"):
            Manifest.from_json(manifest.to_json(), "m")


def test_unknown_fields_are_ignored(make_manifest: Callable[..., Manifest]) -> None:
    data = json.loads(make_manifest().to_json()) | {"later": 1}
    assert Manifest.from_json(json.dumps(data), "m") == make_manifest()


def paths_of(data: dict[str, Any], before: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found = []
    for key, value in data.items():
        found.append((*before, key))
        if isinstance(value, dict):
            found += paths_of(value, (*before, key))
    return found


def test_every_field_missing_or_ill_typed_is_named(make_manifest: Callable[..., Manifest]) -> None:
    whole = make_manifest().to_json()
    # keys of dictionaries, and a field that older bundles lack: may be absent
    free = {("inputs", "image"), ("outputs", "logits"), ("versions", "onnx"), ("shortlist",)}
    for path in paths_of(json.loads(whole)):
        for change in ("remove", ["wrong"], True):
            data = json.loads(whole)
            parent = data
            for key in path[:-1]:
                parent = parent[key]
            if change == "remove":
                if path in free:
                    continue
                del parent[path[-1]]
            elif path[-1] == "shape" and change == ["wrong"]:
                continue  # a legitimate shape
            else:
                parent[path[-1]] = change
            with pytest.raises(BundleError, match="export the bundle anew") as caught:
                Manifest.from_json(json.dumps(data), "x/manifest.json")
            assert str(caught.value).startswith("x/manifest.json: ")
            assert ".".join(path) in str(caught.value)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("schema_version", 3, "newer than 2.*upgrade pcaseg"),
        ("schema_version", 1, "schema_version is 1, not 2; export the bundle anew"),
        ("schema_version", 0, "schema_version is 0"),
        ("schema_version", "2", "schema_version is '2'"),
        ("aggregation", "other", "aggregation is .*parallel, serial"),
        ("weights.kind", None, "weights.kind is null"),
        ("weights.sha256", "ab", "not a SHA-256"),
        ("image.size_px", 0, "image.size_px is 0"),
        ("image.size_px", 32.0, "image.size_px is 32.0, not int"),
        ("sliding.stride_px", 17, "do not cover"),
        ("sliding.window_px", 41, "do not cover"),
        ("text.template", "a photo", "lacks one"),
        ("text.prompts", 0, "not 1 or more"),
        ("text.prompts", 2, "text.prompts is 2, where this version embeds with 1"),
        ("text.prompts", 80, "text.prompts is 80"),
        ("text.context_length", 76, "text.context_length is 76, where this version embeds with 77"),
        ("text.context_length", 128, "text.context_length is 128"),
        ("graph", "masks", "graph is .*not one of logits, labels"),
        ("graph", "labels", "strategy is null for a graph of labels"),
        ("strategy", "single", 'strategy is "single" for a graph of logits'),
        ("strategy", "both", 'strategy is "both", not one of single, sliding'),
        ("image_size", [480, 640], "image_size is set for a graph of logits"),
        ("image_size", [480], "image_size has 1 entries, not 2"),
        ("image_size", 480, "image_size is 480"),
        ("graphs", {"other.onnx": {"nodes": 0, "operators": {}}}, "graphs.other.onnx is of no file"),
        ("graphs", {"segmenter.onnx": {"nodes": 2, "operators": {"Add": 1}}}, "counts 2 nodes wrongly"),
        ("graphs", {"segmenter.onnx": {"nodes": 0, "operators": {"Add": 0}}}, "counts 0 nodes wrongly"),
        ("inputs.image.shape", [None], r"inputs.image.shape\[0\] is null, not int or str"),
    ],
)
def test_values_out_of_range(make_manifest: Callable[..., Manifest], path: str, value: object, message: str) -> None:
    data = json.loads(make_manifest(files={"segmenter.onnx": FileEntry("b" * 64, 9)}).to_json())
    *parents, last = path.split(".")
    inner = data
    for key in parents:
        inner = inner[key]
    inner[last] = value
    with pytest.raises(BundleError, match=message):
        Manifest.from_json(json.dumps(data), "m")


@pytest.mark.parametrize("text", ["", "[]", "nonsense", b"\xff\xfe\x00", "[" * 100_000, "null"])
def test_a_manifest_that_is_no_json_object(text: str | bytes) -> None:
    with pytest.raises(BundleError, match=r"^m: not"):
        Manifest.from_json(text, "m")


@pytest.mark.parametrize(
    "name", ["../evil", "/etc/passwd", "a/../../b", "a\\b", "C:x", "", "a//b", "./a", "a/.", "a\nb", "a\x00b"]
)
def test_unsafe_names_are_refused(tmp_path: Path, write_bundle: Callable[..., Path], name: str) -> None:
    folder = write_bundle(tmp_path / "b.pcaseg", {"ok": b"1"})
    data = json.loads((folder / "manifest.json").read_text())
    data["files"][name] = data["files"]["ok"]
    (folder / "manifest.json").write_text(json.dumps(data))
    with pytest.raises(BundleError, match="unsafe name"):
        Bundle(folder)


@pytest.mark.parametrize("top", [None, "", "scene.pcaseg/"])
def test_folder_and_zip_read_the_same(folder: Path, top: str | None) -> None:
    bundle = Bundle(folder if top is None else zipped(folder, top=top))
    assert bundle.manifest == Bundle(folder).manifest
    assert {name: bundle.read(name) for name in bundle.manifest.files} == FILES
    assert bundle.sha256 == hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest()
    bundle.verify()


@pytest.mark.parametrize("as_zip", [False, True])
@pytest.mark.parametrize("change", ["flipped", "shorter", "longer"])
def test_altered_files_are_refused(folder: Path, change: str, as_zip: bool) -> None:
    good = FILES["segmenter.onnx"]
    bad = {"flipped": b"W" + good[1:], "shorter": good[:-1], "longer": good + b"x"}[change]
    (folder / "segmenter.onnx").write_bytes(bad)
    bundle = Bundle(zipped(folder) if as_zip else folder)
    with pytest.raises(BundleError, match=r"segmenter\.onnx differs from the manifest \(tampered or half-copied\)"):
        bundle.read("segmenter.onnx")
    with pytest.raises(BundleError, match="differs"):
        bundle.verify()
    assert bundle.read("vocabularies/a.safetensors") == b"names"


@pytest.mark.parametrize("as_zip", [False, True])
def test_missing_files_are_named(folder: Path, as_zip: bool) -> None:
    (folder / "segmenter.onnx").unlink()
    bundle = Bundle(zipped(folder) if as_zip else folder)
    with pytest.raises(BundleError, match=r"segmenter\.onnx is missing"):
        bundle.read("segmenter.onnx")
    with pytest.raises(BundleError, match=r"other\.onnx is not one of the bundle's files \(segmenter\.onnx"):
        bundle.read("other.onnx")


def test_what_is_no_bundle(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.pcaseg").write_text("hello")
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("readme.txt", "hello")
    broken = zipped(folder)
    broken.write_bytes(broken.read_bytes()[:-100])
    cases = {
        "missing": "no such bundle",
        "empty": "manifest.json is missing: not a bundle",
        "text.pcaseg": "neither a bundle folder nor a zip file",
        "other.zip": "manifest.json is missing: not a bundle",
        "scene.zip": "neither a bundle folder nor a zip file",
    }
    for name, message in cases.items():
        with pytest.raises(BundleError, match=message) as caught:
            Bundle(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)


def test_a_damaged_zip_member_is_refused(folder: Path) -> None:
    path = zipped(folder)
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo("segmenter.onnx")
    start = info.header_offset + 30 + len("segmenter.onnx")
    data[start : start + info.compress_size] = b"\xff" * info.compress_size
    path.write_bytes(data)
    with pytest.raises(BundleError, match=r"segmenter\.onnx cannot be read"):
        Bundle(path).read("segmenter.onnx")


def test_a_zip_bomb_is_not_unpacked(folder: Path) -> None:
    import tracemalloc

    with open(folder / "segmenter.onnx", "wb") as file:
        file.truncate(256 << 20)
    bundle = Bundle(zipped(folder))
    tracemalloc.start()
    try:
        with pytest.raises(BundleError, match="differs"):
            bundle.read("segmenter.onnx")
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def test_the_hash_follows_every_change(folder: Path, make_manifest: Callable[..., Manifest]) -> None:
    other = shutil.copytree(folder, folder.parent / "other.pcaseg")
    (other / "manifest.json").write_text(make_manifest(opset=19).to_json())
    assert Bundle(other).sha256 != Bundle(folder).sha256
