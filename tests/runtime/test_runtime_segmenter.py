"""The segmenter on a backend in NumPy, and on ONNX Runtime without torch in the process."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import pcaseg
from pcaseg.class_lists import class_list
from pcaseg.configs import Sliding
from pcaseg.errors import BundleError, ImageError, PcasegError, VocabularyError
from pcaseg.images import as_rgb
from pcaseg.runtime import Segmenter, Vocabulary
from pcaseg.runtime.windows import label_map, merge_windows, prepare_windows

IMAGE = np.random.default_rng(0).integers(0, 256, (45, 70, 3), dtype=np.uint8)


@pytest.mark.parametrize("strategy", ["single", "sliding"])
def test_result_is_the_chain_of_its_parts(make_fake_backend: Callable[[], Any], strategy: Any) -> None:
    backend = make_fake_backend()
    segmenter = Segmenter(backend, strategy=strategy)
    segmenter.set_vocabulary(["cat", "grass", "sky"])
    result = segmenter(IMAGE)
    sliding = backend.manifest.sliding
    windows = prepare_windows(IMAGE, strategy, image_px=32, sliding=sliding)
    logits = backend.logits(windows, segmenter.vocabulary.embeddings)  # type: ignore[union-attr]
    labels, confidence = label_map(merge_windows(logits, strategy, sliding), (45, 70))
    np.testing.assert_array_equal(result.labels, labels)
    np.testing.assert_allclose(result.confidence, confidence, atol=1e-6)
    assert len(np.unique(labels)) == 3
    assert result.classes == ("cat", "grass", "sky")
    assert (result.backend, result.weights, result.bundle_sha256) == ("fake-numpy", "seeded", None)
    assert list(result.timings_ms) == ["read", "prepare", "network", "labels", "total"]
    parts = [value for stage, value in result.timings_ms.items() if stage != "total"]
    assert min(parts) >= 0 and sum(parts) == pytest.approx(result.timings_ms["total"])


@pytest.mark.parametrize(("window_batch", "expected"), [(1, [1, 1, 1, 1, 1]), (2, [2, 2, 1]), (9, [5])])
def test_window_batch(make_fake_backend: Callable[[], Any], window_batch: int, expected: list[int]) -> None:
    backend = make_fake_backend()
    segmenter = Segmenter(backend, strategy="sliding", window_batch=window_batch)
    segmenter.set_vocabulary(["cat", "grass"])
    result = segmenter(IMAGE)
    assert backend.batches == expected
    one = Segmenter(make_fake_backend(), strategy="sliding")
    one.set_vocabulary(["cat", "grass"])
    np.testing.assert_array_equal(result.labels, one(IMAGE).labels)


def test_files_and_arrays_of_all_kinds(tmp_path: Path, fake_backend: Any) -> None:
    segmenter = Segmenter(fake_backend)
    segmenter.set_vocabulary(["cat", "grass"])
    Image.fromarray(IMAGE).save(tmp_path / "a.png")
    expected = segmenter(IMAGE).labels
    sixteen_bits = IMAGE.astype(np.uint16) * 257
    for image in (tmp_path / "a.png", str(tmp_path / "a.png"), sixteen_bits, np.dstack([IMAGE, IMAGE[:, :, 0]])):
        np.testing.assert_array_equal(segmenter(image).labels, expected)
    assert segmenter(IMAGE[:1, :1]).labels.shape == (1, 1)
    assert segmenter(IMAGE[:, :, 0]).image.shape == (45, 70, 3)
    for bad in (tmp_path / "none.png", IMAGE / 255, IMAGE[:0]):
        with pytest.raises(ImageError):
            segmenter(bad)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "I;16"])
def test_pillow_images_of_all_modes(fake_backend: Any, mode: str) -> None:
    segmenter = Segmenter(fake_backend)
    segmenter.set_vocabulary(["cat", "grass"])
    picture = Image.fromarray(IMAGE)
    picture = picture.convert("L").convert("I;16") if mode == "I;16" else picture.convert(mode)
    np.testing.assert_array_equal(segmenter(picture).image, as_rgb(picture))
    assert segmenter(picture).labels.shape == IMAGE.shape[:2]


def test_an_opened_picture_is_what_its_file_is(fake_backend: Any, tmp_path: Path) -> None:
    segmenter = Segmenter(fake_backend)
    segmenter.set_vocabulary(["cat", "grass"])
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(IMAGE).save(tmp_path / "a.jpg", exif=exif)
    with Image.open(tmp_path / "a.jpg") as opened:
        result = segmenter(opened)
    assert result.labels.shape == (70, 45)
    np.testing.assert_array_equal(result.image, segmenter(tmp_path / "a.jpg").image)


def test_twelve_bits_in_sixteen(fake_backend: Any, tmp_path: Path) -> None:
    segmenter = Segmenter(fake_backend, bits=12)
    segmenter.set_vocabulary(["cat", "grass"])
    stored = IMAGE[:, :, 0].astype(np.uint16) * 16
    Image.fromarray(stored).save(tmp_path / "a.png")
    for image in (tmp_path / "a.png", stored, Image.fromarray(stored)):
        assert np.abs(segmenter(image).image[:, :, 0].astype(int) - IMAGE[:, :, 0]).max() <= 1
    np.testing.assert_array_equal(segmenter(IMAGE).image, IMAGE)
    with pytest.raises(ImageError, match="outside the 12 bits"):
        segmenter(stored * 2 + 1)
    with pytest.raises(PcasegError, match="bits=99: give 8 to 16"):
        Segmenter(fake_backend, bits=99)


def test_a_segmenter_goes_to_a_process_that_starts_afresh(bundle_path: Path) -> None:
    segmenter = Segmenter(
        os.path.relpath(bundle_path), threads=1, strategy="sliding", backend_options={"arena": "off"}, window_batch=2
    )
    segmenter.set_vocabulary(["cat", "grass"])
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        result = pool.submit(segmenter, IMAGE).result()
    wanted = segmenter(IMAGE)
    np.testing.assert_array_equal(result.labels, wanted.labels)
    assert result.classes == wanted.classes and result.bundle_sha256 == wanted.bundle_sha256


def test_a_pickled_segmenter_keeps_its_options(bundle_path: Path) -> None:
    segmenter = Segmenter(bundle_path, threads=1, strategy="sliding", window_batch=3, bits=12)
    for one in (pickle.loads(pickle.dumps(segmenter)), copy.deepcopy(segmenter)):
        assert one.vocabulary is None and (one.strategy, one.bits, one._steps.window_batch) == ("sliding", 12, 3)
        assert one.backend is not segmenter.backend and one.backend._threads == 1
    segmenter.set_vocabulary(["cat", "grass"])
    again = pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(segmenter))))
    assert again.vocabulary.names == ("cat", "grass")


def test_a_pickled_segmenter_on_a_changed_or_missing_bundle(
    bundle_path: Path, bundle_files: dict[str, bytes], write_bundle: Callable[..., Path]
) -> None:
    data = pickle.dumps(Segmenter(bundle_path))
    write_bundle(bundle_path, bundle_files, versions={"onnx": "2.0"})
    with pytest.raises(BundleError, match=f"{bundle_path}: has changed since"):
        pickle.loads(data)
    bundle_path.rename(bundle_path.with_name("moved.pcaseg"))
    with pytest.raises(BundleError, match="tiny.pcaseg"):
        pickle.loads(data)


def test_a_segmenter_on_an_opened_backend_stays_in_its_process(fake_backend: Any) -> None:
    with pytest.raises(PcasegError, match=r"opened backend \(fake-numpy\).*open one in each worker"):
        pickle.dumps(Segmenter(fake_backend))


def test_the_result_does_not_share_the_callers_buffer(fake_backend: Any) -> None:
    segmenter = Segmenter(fake_backend)
    segmenter.set_vocabulary(["cat"])
    frame = IMAGE.copy()
    result = segmenter(frame)
    frame[:] = 0
    np.testing.assert_array_equal(result.image, IMAGE)


def test_vocabularies_are_encoded_once(fake_backend: Any) -> None:
    segmenter = Segmenter(fake_backend)
    assert segmenter.vocabulary is None
    for names in (["cat", "dog"], ["grass"], ("cat", "dog"), ["grass"], ["dog", "cat"]):
        segmenter.set_vocabulary(names)
        assert segmenter.vocabulary is not None and segmenter.vocabulary.names == tuple(names)
    assert fake_backend.encoded == [("cat", "dog"), ("grass",), ("dog", "cat")]
    for index in range(100):
        segmenter.set_vocabulary([f"name {index}"])
    assert len(segmenter._steps.vocabularies) == 64


def test_vocabulary_sources(tmp_path: Path, fake_backend: Any) -> None:
    segmenter = Segmenter(fake_backend)
    segmenter.set_vocabulary("voc_20")
    assert segmenter.vocabulary is not None and segmenter.vocabulary.names == class_list("voc_20")
    (tmp_path / "names.txt").write_text("cat\ngrass\n")
    segmenter.set_vocabulary(tmp_path / "names.txt")
    made = segmenter.vocabulary
    assert made.names == ("cat", "grass")
    made.save(tmp_path / "v.safetensors")
    expected = segmenter(IMAGE).labels
    for spec in (tmp_path / "v.safetensors", str(tmp_path / "v.safetensors"), made):
        other = Segmenter(fake_backend)
        other.set_vocabulary(spec)
        np.testing.assert_array_equal(other(IMAGE).labels, expected)
    assert fake_backend.encoded[1:] == [("cat", "grass")]


def test_vocabularies_that_do_not_fit(tmp_path: Path, fake_backend: Any) -> None:
    segmenter = Segmenter(fake_backend)
    with pytest.raises(VocabularyError, match="call set_vocabulary"):
        segmenter(IMAGE)
    segmenter.set_vocabulary(["cat"])
    Vocabulary(("dog",), np.eye(1, 6, dtype=np.float32), "f" * 64).save(tmp_path / "v.safetensors")
    with pytest.raises(VocabularyError, match=r"v\.safetensors: made by another text encoder \(f{12}.*e{12}"):
        segmenter.set_vocabulary(tmp_path / "v.safetensors")
    with pytest.raises(VocabularyError, match="embeddings of 7 numbers, the bundle takes 6"):
        segmenter.set_vocabulary(Vocabulary(("dog",), np.eye(1, 7, dtype=np.float32), "e" * 64))
    for spec in ("dog", [], ["a", "a"], "none.safetensors"):
        with pytest.raises(VocabularyError):
            segmenter.set_vocabulary(spec)
    assert segmenter.vocabulary is not None and segmenter.vocabulary.names == ("cat",)


def test_options_are_checked(fake_backend: Any, tmp_path: Path) -> None:
    for options, message in (
        ({"strategy": "both"}, "strategy='both': choose one of single, sliding"),
        ({"window_batch": 0}, "window_batch=0"),
        ({"device": "cuda"}, "an opened backend has its own"),
    ):
        with pytest.raises(PcasegError, match=message):
            Segmenter(fake_backend, **options)  # type: ignore[arg-type]
    with pytest.raises(BundleError, match="no such bundle"):
        Segmenter(tmp_path / "none.pcaseg")


def test_values_that_are_not_finite_are_an_error(fake_backend: Any) -> None:
    segmenter = Segmenter(fake_backend)
    segmenter.set_vocabulary(["cat"])
    fake_backend.logits = lambda images, text: np.full((1, 1, 8, 8), np.nan, np.float32)
    with pytest.raises(PcasegError, match="fake-numpy: the network returned values that are not finite"):
        segmenter(IMAGE)


def label_backend(make_fake_backend: Callable[..., Any], make_manifest: Callable[..., Any], **changes: Any) -> Any:
    return make_fake_backend(make_manifest(**({"graph": "labels", "strategy": "sliding"} | changes)))


def test_a_graph_of_labels(make_fake_backend: Callable[..., Any], make_manifest: Callable[..., Any]) -> None:
    backend = label_backend(make_fake_backend, make_manifest)
    segmenter = Segmenter(backend)
    assert segmenter.strategy == "sliding"
    segmenter.set_vocabulary(["cat", "grass", "sky"])
    result = segmenter(IMAGE)
    labels, confidence = backend.labels(IMAGE[None], segmenter.vocabulary.embeddings)  # type: ignore[union-attr]
    assert result.labels.dtype == np.uint16 and len(np.unique(result.labels)) == 3
    np.testing.assert_array_equal(result.labels, labels[0])
    np.testing.assert_array_equal(result.confidence, confidence[0])
    assert list(result.timings_ms) == ["read", "network", "total"]
    assert backend.batches == [1, 1]


def test_another_strategy_than_the_graphs(
    make_fake_backend: Callable[..., Any], make_manifest: Callable[..., Any]
) -> None:
    backend = label_backend(make_fake_backend, make_manifest)
    assert Segmenter(backend, strategy="sliding").strategy == "sliding"
    with pytest.raises(
        PcasegError, match="strategy='single': the bundle's graph holds 'sliding'; leave .*--strategy single"
    ):
        Segmenter(backend, strategy="single")
    with pytest.raises(PcasegError, match="strategy='both': choose one of"):
        Segmenter(backend, strategy="both")  # type: ignore[arg-type]
    assert Segmenter(make_fake_backend()).strategy == "single"


def test_images_of_another_size_than_a_fixed_one(
    tmp_path: Path, make_fake_backend: Callable[..., Any], make_manifest: Callable[..., Any]
) -> None:
    segmenter = Segmenter(label_backend(make_fake_backend, make_manifest, image_size=(40, 60)))
    segmenter.set_vocabulary(["cat"])
    assert segmenter(IMAGE[:40, :60]).labels.shape == (40, 60)
    message = r"45 x 70 pixels .*takes 40 x 60 alone; resize the frame, or export without --image-size"
    with pytest.raises(ImageError, match="^image: " + message):
        segmenter(IMAGE)
    Image.fromarray(IMAGE).save(tmp_path / "a.png")
    with pytest.raises(ImageError, match=r"a\.png: " + message):
        segmenter(tmp_path / "a.png")


def test_labels_whose_confidence_is_not_finite(
    make_fake_backend: Callable[..., Any], make_manifest: Callable[..., Any]
) -> None:
    backend = label_backend(make_fake_backend, make_manifest)
    backend.labels = lambda images, text: (np.zeros((1, 45, 70), np.int32), np.full((1, 45, 70), np.nan, np.float32))
    segmenter = Segmenter(backend)
    segmenter.set_vocabulary(["cat"])
    with pytest.raises(PcasegError, match="fake-numpy: the network returned values that are not finite"):
        segmenter(IMAGE)


def test_a_bundle_of_labels_without_torch(write_label_bundle: Callable[..., Path], tmp_path: Path) -> None:
    done = run_without_torch(write_label_bundle((45, 70)), tmp_path)
    assert done.startswith("onnxruntime-cpu (45, 70) 3")


def test_published_window_sizes(make_fake_backend: Callable[..., Any], make_manifest: Callable[..., Any]) -> None:
    backend = make_fake_backend(make_manifest(sliding=Sliding()))
    segmenter = Segmenter(backend, strategy="sliding")
    segmenter.set_vocabulary(["cat", "grass"])
    assert segmenter(IMAGE).labels.shape == (45, 70)
    assert backend.batches == [1] * 5


SCRIPT = """
import sys
for name in ("torch", "ftfy", "open_clip", "safetensors", "onnx", "regex", "skimage"):
    sys.modules[name] = None
import numpy as np
from pcaseg.images import as_rgb
from pcaseg.runtime import Segmenter
assert not {"onnxruntime", "tokenizers"} & set(sys.modules), "imported before it is needed"
segmenter = Segmenter(sys.argv[1], threads=1, strategy="sliding")
segmenter.set_vocabulary(["cat", "tv monitor, television", "grass"])
image = np.random.default_rng(0).integers(0, 256, (45, 70, 3), dtype=np.uint8)
result = segmenter(image)
result.save(sys.argv[2], "photo")
print(result.backend, result.labels.shape, len(np.unique(result.labels)))
foreign = {m.split(".")[0] for m in sys.modules if sys.modules[m] is not None} - set(sys.stdlib_module_names)
print("foreign", *sorted(foreign))
"""


def run_without_torch(bundle: Path, tmp_path: Path) -> str:
    """What `SCRIPT` prints of a bundle, in a process that can import neither torch nor its company."""
    root = Path(pcaseg.__file__).parents[1]
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-c", SCRIPT, str(bundle), str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=120, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_without_torch_ftfy_open_clip_and_safetensors(bundle_path: Path, tmp_path: Path) -> None:
    printed = run_without_torch(bundle_path, tmp_path)
    assert printed.startswith("onnxruntime-cpu (45, 70) ")
    foreign = set(printed.split("foreign", 1)[1].split())
    assert {"numpy", "PIL", "tokenizers", "onnxruntime"} <= foreign
    assert not foreign & {"torch", "ftfy", "open_clip", "safetensors", "onnx", "regex", "scipy", "matplotlib"}
    assert not {m for m in foreign if m.startswith("pcaseg.model")}

    segmenter = Segmenter(bundle_path, threads=1, strategy="sliding")
    segmenter.set_vocabulary(["cat", "tv monitor, television", "grass"])
    here = segmenter(IMAGE)
    assert here.bundle_sha256 is not None
    there = np.asarray(Image.open(tmp_path / "out" / "photo_labels.png"))
    np.testing.assert_array_equal(there, here.labels)
