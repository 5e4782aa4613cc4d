"""A bundle that needs no weights: ONNX graphs of a few nodes, the real tokenizer, and a backend in NumPy."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from stream_support import NAMES, threads_end

from pcaseg.class_names import PROMPT_TEMPLATE
from pcaseg.configs import Sliding
from pcaseg.runtime.bundle import FileEntry, ImageSpec, Manifest, TensorSpec, TextSpec, Weights
from pcaseg.runtime.segmenter import Segmenter

SIDE, EMBED = 32, 6
SLIDING = Sliding(image_px=40, window_px=24, stride_px=16)


def make_manifest(**changes: object) -> Manifest:
    manifest = Manifest(
        preset="eva-b-384",
        aggregation="parallel",
        dense_mode="csa",
        weights=Weights(kind="seeded", path=None, sha256="a" * 64, seed=0),
        precision="float32",
        opset=18,
        layer_norm="operator",
        graph="logits",
        strategy=None,
        image_size=None,
        image=ImageSpec(size_px=SIDE),
        sliding=SLIDING,
        text=TextSpec(EMBED, 1, 77, PROMPT_TEMPLATE, 256, "e" * 64),
        inputs={"image": TensorSpec(("N", 3, SIDE, SIDE), "float32", "RGB, 0..255")},
        outputs={"logits": TensorSpec(("N", "T", 8, 8), "float32", "before the sigmoid")},
        graphs={},
        versions={"onnx": "1.0"},
        files={},
    )
    return replace(manifest, **changes)  # type: ignore[arg-type]


def write_bundle(folder: Path, files: dict[str, bytes], **changes: object) -> Path:
    """A bundle folder whose manifest vouches for `files`."""
    entries = {name: FileEntry(hashlib.sha256(data).hexdigest(), len(data)) for name, data in files.items()}
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    manifest = make_manifest(**({"files": entries} | changes))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "manifest.json").write_text(manifest.to_json(), encoding="utf-8")
    return folder


def random_matrix(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


COLOUR_WEIGHTS = random_matrix(1, EMBED, 3)
TOKEN_WEIGHTS = random_matrix(2, 77, EMBED)


class FakeBackend:
    """Logits of a class: its embedding, projected to three colours, times the 4 x 4 block means of the image."""

    name = "fake-numpy"

    def __init__(self, manifest: Manifest | None = None) -> None:
        self.manifest = manifest or make_manifest()
        self.encoded: list[tuple[str, ...]] = []
        self.batches: list[int] = []

    def encode_text(self, names: Sequence[str]) -> np.ndarray:
        self.encoded.append(tuple(names))
        rows = [random_matrix(int.from_bytes(hashlib.sha256(n.encode()).digest()[:4], "big"), EMBED) for n in names]
        text = np.stack(rows)
        return text / np.linalg.norm(text, axis=1, keepdims=True)

    def encode_prompts(self, prompts: Sequence[str]) -> np.ndarray:
        return self.encode_text(prompts)

    def logits(self, images: np.ndarray, text: np.ndarray) -> np.ndarray:
        self.batches.append(len(images))
        n, _, height, width = images.shape
        blocks = images.reshape(n, 3, height // 4, 4, width // 4, 4).mean(axis=(3, 5)) / 64 - 2
        return np.einsum("td,dc,nchw->nthw", text, COLOUR_WEIGHTS, blocks).astype(np.float32)

    def labels(self, images: np.ndarray, text: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Brightness: as label of T, and as confidence."""
        self.batches.append(len(images))
        brightness = images.mean(axis=3, dtype=np.float32) / 256
        return (brightness * len(text)).astype(np.int32), brightness


def segmenter_graph() -> bytes:
    """`FakeBackend.logits` as ONNX, with dynamic N and T."""
    from onnx import TensorProto, helper, numpy_helper

    constants = {
        "colours": COLOUR_WEIGHTS,
        "pixels": np.array([0, 3, -1], np.int64),
        "map": np.array([0, -1, SIDE // 4, SIDE // 4], np.int64),
        "scale": np.array(64, np.float32),
        "shift": np.array(2, np.float32),
    }
    nodes = [
        helper.make_node("AveragePool", ["image"], ["pooled"], kernel_shape=[4, 4], strides=[4, 4]),
        helper.make_node("Div", ["pooled", "scale"], ["scaled"]),
        helper.make_node("Sub", ["scaled", "shift"], ["features"]),
        helper.make_node("MatMul", ["text", "colours"], ["projected"]),
        helper.make_node("Reshape", ["features", "pixels"], ["columns"]),
        helper.make_node("MatMul", ["projected", "columns"], ["products"]),
        helper.make_node("Reshape", ["products", "map"], ["logits"]),
    ]
    inputs = [
        helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, SIDE, SIDE]),
        helper.make_tensor_value_info("text", TensorProto.FLOAT, ["T", EMBED]),
    ]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", "T", SIDE // 4, SIDE // 4])]
    return serialise(nodes, inputs, outputs, {k: numpy_helper.from_array(v, k) for k, v in constants.items()})


def label_graph(size: tuple[int, int] | None = None) -> bytes:
    """A graph of labels: of each pixel the brightest channel, and its value."""
    from onnx import TensorProto, helper, numpy_helper

    nodes = [
        helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("ArgMax", ["pixels"], ["brightest"], axis=3, keepdims=0),
        helper.make_node("Cast", ["brightest"], ["labels"], to=TensorProto.INT32),
        helper.make_node("ReduceMax", ["text"], ["greatest"], keepdims=0),
        helper.make_node("Mul", ["greatest", "nothing"], ["unseen"]),
        helper.make_node("Add", ["pixels", "unseen"], ["seen"]),
        helper.make_node("Div", ["seen", "white"], ["scores"]),
        helper.make_node("ReduceMax", ["scores", "axis"], ["confidence"], keepdims=0),
    ]
    frame = ["N", *(size or ("H", "W"))]
    inputs = [
        helper.make_tensor_value_info("image", TensorProto.UINT8, [*frame, 3]),
        helper.make_tensor_value_info("text", TensorProto.FLOAT, ["T", EMBED]),
    ]
    outputs = [
        helper.make_tensor_value_info("labels", TensorProto.INT32, frame),
        helper.make_tensor_value_info("confidence", TensorProto.FLOAT, frame),
    ]
    constants = {
        "white": np.array(255, np.float32),
        "nothing": np.array(0, np.float32),
        "axis": np.array([3], np.int64),
    }
    return serialise(nodes, inputs, outputs, {k: numpy_helper.from_array(v, k) for k, v in constants.items()})


def text_graph() -> bytes:
    """Token ids times a matrix: not of unit norm, which the backend must see to."""
    from onnx import TensorProto, helper, numpy_helper

    nodes = [
        helper.make_node("Cast", ["tokens"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["floats", "weights"], ["text"]),
    ]
    inputs = [helper.make_tensor_value_info("tokens", TensorProto.INT64, ["T", 77])]
    outputs = [helper.make_tensor_value_info("text", TensorProto.FLOAT, ["T", EMBED])]
    return serialise(nodes, inputs, outputs, {"weights": numpy_helper.from_array(TOKEN_WEIGHTS, "weights")})


def serialise(nodes: list, inputs: list, outputs: list, constants: dict) -> bytes:
    from onnx import checker, helper

    graph = helper.make_graph(nodes, "tiny", inputs, outputs, initializer=list(constants.values()))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    checker.check_model(model)
    return model.SerializeToString()


@pytest.fixture(scope="session")
def tokenizer_bytes(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    from pcaseg.export.tokenizer import write_tokenizer

    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    write_tokenizer(path)
    return path.read_bytes()


@pytest.fixture(scope="session")
def bundle_files(tokenizer_bytes: bytes) -> dict[str, bytes]:
    return {
        "segmenter.onnx": segmenter_graph(),
        "text_encoder.onnx": text_graph(),
        "tokenizer.json": tokenizer_bytes,
    }


@pytest.fixture
def bundle_path(tmp_path: Path, bundle_files: dict[str, bytes]) -> Path:
    return write_bundle(tmp_path / "tiny.pcaseg", bundle_files)


@pytest.fixture
def write_label_bundle(tmp_path: Path, bundle_files: dict[str, bytes]) -> Callable[..., Path]:
    """Writes a bundle of labels, its graph fixed to `size` if given."""

    def write(size: tuple[int, int] | None = None, **changes: object) -> Path:
        options: dict[str, object] = {"graph": "labels", "strategy": "sliding", "image_size": size}
        files = bundle_files | {"segmenter.onnx": label_graph(size)}
        return write_bundle(tmp_path / "camera.pcaseg", files, **(options | changes))

    return write


@pytest.fixture(name="make_manifest")
def make_manifest_fixture() -> Callable[..., Manifest]:
    return make_manifest


@pytest.fixture(name="write_bundle")
def write_bundle_fixture() -> Callable[..., Path]:
    return write_bundle


@pytest.fixture
def fake_backend() -> FakeBackend:
    return FakeBackend()


@pytest.fixture
def make_fake_backend() -> type[FakeBackend]:
    return FakeBackend


@pytest.fixture
def no_thread_is_left() -> Iterator[None]:
    """A check, behind the test, that its streams have ended."""
    before = threading.active_count()
    yield
    assert threads_end(before), [thread.name for thread in threading.enumerate()]


@pytest.fixture
def segmenter(fake_backend: FakeBackend) -> Segmenter:
    """One on the backend in NumPy, with the names of the tests of streams."""
    found = Segmenter(fake_backend)
    found.set_vocabulary(NAMES)
    return found


@pytest.fixture
def token_weights() -> np.ndarray:
    return TOKEN_WEIGHTS
