"""The table of backends, and those that run ONNX files on graphs of a few nodes."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pcaseg.class_names import prompt_for
from pcaseg.errors import BundleError, MissingDependencyError, PcasegError
from pcaseg.runtime.backends import GROUP, Backend, backend_names, open_backend
from pcaseg.runtime.bundle import Bundle
from pcaseg.runtime.tokenizer import Tokenizer

onnxruntime = pytest.importorskip("onnxruntime")
NO_OPENVINO = importlib.util.find_spec("openvino") is None
LIBRARIES = pytest.mark.parametrize(
    "library",
    [
        "onnxruntime",
        pytest.param("openvino", marks=pytest.mark.skipif(NO_OPENVINO, reason="OpenVINO is not installed")),
    ],
)

IMAGES = np.random.default_rng(0).uniform(0, 255, (3, 3, 32, 32)).astype(np.float32)


def test_unknown_backend_lists_the_choices(bundle_path: Path) -> None:
    with pytest.raises(PcasegError, match="choose one of onnxruntime, openvino, tensorrt, tensorrt-rtx, torch"):
        open_backend("tflite", Bundle(bundle_path))


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("onnxruntime", "pcaseg.runtime.onnxruntime_backend"),
        ("openvino", "pcaseg.runtime.openvino_backend"),
        ("tensorrt", "pcaseg.runtime.tensorrt_backend"),
        ("torch", "pcaseg.export.torch_backend"),
    ],
)
def test_missing_package_names_the_extra(
    bundle_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, module: str
) -> None:
    monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setitem(sys.modules, name, None)  # import of the package now fails
    if name == "torch":
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingDependencyError, match=rf'pip install "\.\[{name}\]"'):
        open_backend(name, Bundle(bundle_path))


def test_backends_are_those_that_the_project_registers() -> None:
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    section = text.partition(f'[project.entry-points."{GROUP}"]')[2].partition("\n[")[0]
    assert tuple(re.findall(r"^([\w-]+) = ", section, re.MULTILINE)) == backend_names()


def register(folder: Path, monkeypatch: pytest.MonkeyPatch, line: str) -> None:
    """Installs a package that registers one backend of its own."""
    (folder / "other-1.0.dist-info").mkdir()
    (folder / "other-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1.0\n")
    (folder / "other-1.0.dist-info" / "entry_points.txt").write_text(f"[{GROUP}]\n{line}\n")
    monkeypatch.syspath_prepend(folder)


def test_another_package_adds_a_backend(
    bundle_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_fake_backend: Callable[[], Any]
) -> None:
    register(tmp_path, monkeypatch, "own = other_backend:open_it")
    assert backend_names() == ("onnxruntime", "openvino", "own", "tensorrt", "tensorrt-rtx", "torch")
    with pytest.raises(MissingDependencyError, match="No module named 'other_backend'.*install all that other needs"):
        open_backend("own", Bundle(bundle_path))
    asked = []
    module = types.ModuleType("other_backend")
    module.open_it = lambda bundle, *, device, threads, level: (  # type: ignore[attr-defined]
        asked.append((device, threads, level)) or make_fake_backend()
    )
    monkeypatch.setitem(sys.modules, "other_backend", module)
    backend = open_backend("own", Bundle(bundle_path), threads=2, options={"level": 3})
    assert backend.name == make_fake_backend().name and asked == [(None, 2, 3)]
    with pytest.raises(PcasegError, match="colour='red': is not for the backend 'own'"):
        open_backend("own", Bundle(bundle_path), options={"colour": "red"})


def test_nothing_registered_says_how_to_install(bundle_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pcaseg.runtime.backends.GROUP", "pcaseg.no-such-group")
    with pytest.raises(MissingDependencyError, match="no backend is registered.*pip install -e"):
        open_backend("onnxruntime", Bundle(bundle_path))


@LIBRARIES
def test_logits_for_any_number_of_windows_and_classes(
    library: str, bundle_path: Path, make_fake_backend: Callable[[], Any]
) -> None:
    backend, fake = open_backend(library, Bundle(bundle_path), threads=1), make_fake_backend()
    assert isinstance(backend, Backend)
    assert backend.name == f"{library}-cpu"
    for windows, classes in ((1, 1), (3, 2), (2, 300)):
        text = fake.encode_text([f"class {i}" for i in range(classes)])
        text.flags.writeable = False  # as a vocabulary's are
        logits = backend.logits(IMAGES[:windows], text)
        assert logits.shape == (windows, classes, 8, 8) and logits.dtype == np.float32
        np.testing.assert_allclose(logits, fake.logits(IMAGES[:windows], text), rtol=1e-4, atol=1e-4)


@LIBRARIES
def test_text_is_prompted_tokenized_and_normalised(
    library: str, bundle_path: Path, tokenizer_bytes: bytes, token_weights: np.ndarray
) -> None:
    names = ["cat", "tv monitor, television"] + [f"thing {i}" for i in range(130)]  # more than two batches
    text = open_backend(library, Bundle(bundle_path)).encode_text(names)
    tokens = Tokenizer(tokenizer_bytes)([prompt_for(name) for name in names])
    expected = tokens.astype(np.float64) @ token_weights
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    assert text.dtype == np.float32
    np.testing.assert_allclose(text, expected, atol=1e-5)


@LIBRARIES
def test_the_text_encoder_is_read_only_when_needed(library: str, bundle_path: Path) -> None:
    (bundle_path / "text_encoder.onnx").unlink()
    backend = open_backend(library, Bundle(bundle_path))
    text = np.eye(2, 6, dtype=np.float32)
    assert backend.logits(IMAGES[:1], text).shape == (1, 2, 8, 8)
    with pytest.raises(BundleError, match=r"text_encoder\.onnx is missing"):
        backend.encode_text(["cat"])


def test_threads_reach_the_session(bundle_path: Path) -> None:
    from pcaseg.runtime.onnxruntime_backend import OnnxRuntimeBackend

    backend = OnnxRuntimeBackend.open(Bundle(bundle_path), threads=2)
    assert backend._segmenter.get_session_options().intra_op_num_threads == 2
    for threads in (0, 1025, 10**12):
        with pytest.raises(PcasegError, match=f"threads={threads}: give 1 to 1024"):
            OnnxRuntimeBackend.open(Bundle(bundle_path), threads=threads)


def resident_mib() -> float:
    found = re.search(r"VmRSS:\s+(\d+)", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) / 1024


@pytest.mark.slow  # resident memory of the whole process: what ran before counts
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(("arena", "kept"), [("grow", True), ("shrink", False), ("off", False)])
def test_memory_of_a_large_image_is_kept_or_given_back(
    write_label_bundle: Callable[..., Path], arena: str, kept: bool
) -> None:
    backend = open_backend("onnxruntime", Bundle(write_label_bundle()), threads=1, options={"arena": arena})
    text = np.zeros((2, 6), np.float32)
    small, large = np.zeros((1, 8, 8, 3), np.uint8), np.ones((1, 2000, 3000, 3), np.uint8)
    backend.labels(small, text)
    before = resident_mib()
    backend.labels(large, text)
    backend.labels(small, text)
    grown = resident_mib() - before
    assert grown > 60 if kept else grown < 30  # one float32 copy of the image takes 69 MiB


@pytest.mark.parametrize(
    ("options", "message"),
    [({"arena": "on"}, "arena='on': choose one of grow, shrink, off"), ({"arena": None}, "arena=None: choose one of")],
)
def test_unknown_arenas(bundle_path: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(PcasegError, match=message):
        open_backend("onnxruntime", Bundle(bundle_path), options=options)


@pytest.mark.parametrize("arena", ["shrink", "off"])
def test_arenas_are_for_the_cpu(bundle_path: Path, monkeypatch: pytest.MonkeyPatch, arena: str) -> None:
    providers = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: providers)
    with pytest.raises(PcasegError, match=f"arena='{arena}': is for device='cpu'"):
        open_backend("onnxruntime", Bundle(bundle_path), device="cuda", options={"arena": arena})


@pytest.mark.parametrize(("own", "seen"), [(None, "1"), ("0", "0"), ("1", "1"), ("", "")])
def test_telemetry_is_off_unless_asked_for(own: str | None, seen: str) -> None:
    """Set before anything of ONNX Runtime can read it, and never over the user's own setting."""
    code = (
        "import os, sys\n"
        "class Watch:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'onnxruntime': print(repr(os.environ.get('ORT_DISABLE_TELEMETRY'))); raise SystemExit\n"
        "sys.meta_path.insert(0, Watch())\n"
        "import pcaseg.runtime.onnxruntime_backend\n"
    )
    environ = {key: value for key, value in os.environ.items() if key != "ORT_DISABLE_TELEMETRY"}
    environ |= {} if own is None else {"ORT_DISABLE_TELEMETRY": own}
    assert subprocess.check_output([sys.executable, "-c", code], text=True, env=environ).strip() == repr(seen)


@pytest.mark.parametrize("device", ["tpu", "cuda:", "cuda:x", "cpu:0", "CUDA", "tensorrt-rtx:", "rtx"])
def test_unknown_devices(bundle_path: Path, device: str) -> None:
    with pytest.raises(PcasegError, match="choose one of cpu, cuda, tensorrt, tensorrt-rtx; cuda:N"):
        open_backend("onnxruntime", Bundle(bundle_path), device=device)


@pytest.mark.skipif(
    "CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="this ONNX Runtime has the provider"
)
def test_a_gpu_that_is_not_there_is_an_error(bundle_path: Path) -> None:
    with pytest.raises(PcasegError, match=r"no CUDAExecutionProvider.*onnxruntime-gpu.*device='cpu'"):
        open_backend("onnxruntime", Bundle(bundle_path), device="cuda")


def test_a_gpu_that_does_not_start_is_an_error(bundle_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime warns and runs on the CPU when a provider that it was built with cannot start."""
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("the provider may really start here")
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    with (
        pytest.warns(UserWarning, match="CUDAExecutionProvider"),
        pytest.raises(PcasegError, match="could not start CUDAExecutionProvider"),
    ):
        open_backend("onnxruntime", Bundle(bundle_path), device="cuda:0")


@LIBRARIES
def test_graphs_that_the_library_refuses(
    library: str, tmp_path: Path, write_bundle: Callable[..., Path], bundle_files: dict[str, bytes]
) -> None:
    whole = bundle_files["segmenter.onnx"]
    for index, data in enumerate((b"no graph", whole[: len(whole) // 2], b"")):
        path = write_bundle(tmp_path / f"{index}.pcaseg", bundle_files | {"segmenter.onnx": data})
        with pytest.raises(BundleError, match=r"segmenter\.onnx: ") as caught:
            open_backend(library, Bundle(path))
        assert "\n" not in str(caught.value)


@LIBRARIES
def test_graphs_of_another_kind(
    library: str, tmp_path: Path, write_bundle: Callable[..., Path], bundle_files: dict[str, bytes]
) -> None:
    swapped = bundle_files | {"segmenter.onnx": bundle_files["text_encoder.onnx"]}
    with pytest.raises(BundleError, match=r"the graph maps \('tokens',\) to \('text',\), not"):
        open_backend(library, Bundle(write_bundle(tmp_path / "b.pcaseg", swapped)))


@LIBRARIES
def test_labels_of_any_number_of_images(library: str, write_label_bundle: Callable[..., Path]) -> None:
    backend = open_backend(library, Bundle(write_label_bundle()), threads=1)
    text = np.eye(3, 6, dtype=np.float32)
    for shape in ((1, 1, 1, 3), (2, 5, 9, 3)):
        images = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
        labels, confidence = backend.labels(images, text)
        np.testing.assert_array_equal(labels, images.argmax(axis=3))
        np.testing.assert_allclose(confidence, images.max(axis=3) / 255, atol=1e-6)
        assert (labels.dtype, confidence.dtype) == (np.int32, np.float32)


@LIBRARIES
def test_each_kind_of_graph_answers_its_own_call(
    library: str, bundle_path: Path, write_label_bundle: Callable[..., Path]
) -> None:
    text = np.eye(1, 6, dtype=np.float32)
    with pytest.raises(PcasegError, match=r"tiny\.pcaseg: its graph ends in logits, not labels and confidence"):
        open_backend(library, Bundle(bundle_path)).labels(np.zeros((1, 4, 4, 3), np.uint8), text)
    with pytest.raises(PcasegError, match=r"camera\.pcaseg: its graph ends in labels and confidence, not logits"):
        open_backend(library, Bundle(write_label_bundle())).logits(IMAGES, text)


@LIBRARIES
def test_label_graphs_that_the_manifest_does_not_describe(
    library: str,
    tmp_path: Path,
    write_bundle: Callable[..., Path],
    bundle_path: Path,
    write_label_bundle: Callable[..., Path],
) -> None:
    files = {name: (bundle_path / name).read_bytes() for name in ("segmenter.onnx", "text_encoder.onnx")}
    path = write_bundle(tmp_path / "swapped.pcaseg", files, graph="labels", strategy="single")
    with pytest.raises(BundleError, match=r"to \('logits',\), not .* to \('labels', 'confidence'\)"):
        open_backend(library, Bundle(path))
    with pytest.raises(
        BundleError, match=r"image has the shape \['N', 'H', 'W', 3\], but the manifest says \[40, 60, 3\]"
    ):
        open_backend(library, Bundle(write_label_bundle(image_size=(40, 60))))


def test_nothing_is_loaded_from_a_tampered_bundle(bundle_path: Path) -> None:
    path = bundle_path / "segmenter.onnx"
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(BundleError, match="tampered or half-copied"):
        open_backend("onnxruntime", Bundle(bundle_path))
