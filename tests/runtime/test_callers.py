"""Segmenters with many callers: threads, asyncio, vocabularies of one call, arrays of other libraries, closing."""

from __future__ import annotations

import asyncio
import gc
import pickle
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cuda_fake import FakeDriver

from pcaseg.data.scenes import render_scene
from pcaseg.errors import ImageError, PcasegError, VocabularyError
from pcaseg.runtime import Result, Segmenter
from pcaseg.runtime.cuda import DeviceArray, fetch_array
from pcaseg.runtime.preparing import KEPT_VOCABULARIES, VocabularyCache

LISTS = (["car", "sky", "grass"], ["sky", "car"], ["red car", "house", "sky", "road"], ["tree"], ["grass", "sky"])
SCENES = [render_scene(index, split="evaluation").image for index in range(3)]
IMAGE = np.random.default_rng(0).integers(0, 256, (45, 70, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def tiny(trained_tiny: Path) -> Iterator[Segmenter]:
    with Segmenter(trained_tiny, threads=1) as segmenter:
        yield segmenter


@pytest.fixture(scope="module")
def expected(tiny: Segmenter) -> dict[tuple[int, int], Result]:
    """One result for each scene and list, from one thread."""
    return {(i, j): tiny(SCENES[i], vocabulary=LISTS[j]) for i in range(len(SCENES)) for j in range(len(LISTS))}


def same(found: Result, wanted: Result) -> bool:
    return (
        found.classes == wanted.classes
        and np.array_equal(found.labels, wanted.labels)
        and np.array_equal(found.confidence, wanted.confidence)
        and np.array_equal(found.image, wanted.image)
    )


def test_threads_get_what_one_thread_gets(tiny: Segmenter, expected: dict[tuple[int, int], Result]) -> None:
    wanted = [*expected] * 2
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda key: tiny(SCENES[key[0]], vocabulary=LISTS[key[1]]), wanted))
    assert all(same(one, expected[key]) for one, key in zip(found, wanted, strict=True))
    assert len({one.classes for one in found}) == len(LISTS)


def test_calls_while_another_thread_sets_vocabularies(tiny: Segmenter, expected: dict[tuple[int, int], Result]) -> None:
    by_names = {tuple(names): j for j, names in enumerate(LISTS)}
    done = threading.Event()

    def swap() -> None:
        while not done.is_set():
            for names in LISTS:
                tiny.set_vocabulary(names)

    tiny.set_vocabulary(LISTS[0])
    swapper = threading.Thread(target=swap)
    swapper.start()
    try:
        with ThreadPoolExecutor(3) as pool:
            found = list(pool.map(lambda index: tiny(SCENES[index % 3]), range(24)))
    finally:
        done.set()
        swapper.join()
    for index, one in enumerate(found):
        assert same(one, expected[index % 3, by_names[one.classes]])


def test_an_asyncio_executor(tiny: Segmenter, expected: dict[tuple[int, int], Result]) -> None:
    async def serve() -> list[Result]:
        calls = (asyncio.to_thread(tiny, SCENES[i], vocabulary=LISTS[j]) for i, j in expected)
        return list(await asyncio.gather(*calls))

    assert all(same(one, wanted) for one, wanted in zip(asyncio.run(serve()), expected.values(), strict=True))


def test_the_eager_model_from_threads(expected: dict[tuple[int, int], Result]) -> None:
    from support import small_model

    from pcaseg.export.torch_backend import TorchBackend

    segmenter = Segmenter(TorchBackend(small_model("tiny")))
    keys = [(0, 0), (1, 2), (2, 1), (0, 3)]
    alone = [segmenter(SCENES[i], vocabulary=LISTS[j]) for i, j in keys]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda key: segmenter(SCENES[key[0]], vocabulary=LISTS[key[1]]), keys))
    for one, wanted in zip(found, alone, strict=True):
        assert one.classes == wanted.classes and np.array_equal(one.labels, wanted.labels)


def test_a_vocabulary_of_one_call(fake_backend: Any, tmp_path: Path) -> None:
    segmenter = Segmenter(fake_backend)
    prepared = segmenter.prepare(["cat", "dog"])
    (tmp_path / "names.txt").write_text("cat\ndog\n", encoding="utf-8")
    prepared.save(tmp_path / "names.safetensors")
    for spec in (["cat", "dog"], ("cat", "dog"), tmp_path / "names.txt", tmp_path / "names.safetensors", prepared):
        assert segmenter(IMAGE, vocabulary=spec).classes == ("cat", "dog")
    assert segmenter(IMAGE, vocabulary="voc_20").classes[0] == "aeroplane"
    assert segmenter.vocabulary is None
    with pytest.raises(VocabularyError, match="call set_vocabulary"):
        segmenter(IMAGE)
    segmenter.set_vocabulary(["grass"])
    assert segmenter(IMAGE, vocabulary=prepared).classes == ("cat", "dog")
    assert segmenter(IMAGE).classes == ("grass",)
    assert fake_backend.encoded.count(("cat", "dog")) == 1
    with pytest.raises(VocabularyError):
        segmenter(IMAGE, vocabulary=[])


def test_lists_are_prepared_once_for_all_threads(fake_backend: Any) -> None:
    cache = VocabularyCache(fake_backend)
    names = [[f"name {index % 4}", "sky"] for index in range(40)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(cache.prepare, names))
    assert len(fake_backend.encoded) == 4 and len({id(one) for one in found}) == 4
    for index in range(2 * KEPT_VOCABULARIES):
        cache.prepare([f"other {index}"])
        cache.prepare(["name 0", "sky"])  # in use, and so it stays
    assert len(cache) == KEPT_VOCABULARIES
    assert fake_backend.encoded.count(("name 0", "sky")) == 1


def test_a_failed_list_is_not_kept(fake_backend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    segmenter = Segmenter(fake_backend)
    encode = fake_backend.encode_text

    def refuse(names: object) -> None:
        raise VocabularyError("too long")

    monkeypatch.setattr(fake_backend, "encode_text", refuse)
    with pytest.raises(VocabularyError, match="too long"):
        segmenter.prepare(["cat"])
    monkeypatch.setattr(fake_backend, "encode_text", encode)
    assert segmenter.prepare(["cat"]).names == ("cat",)


@pytest.mark.parametrize("window_batch", [1, 4])
@pytest.mark.parametrize("graph", ["logits", "labels"])
def test_batches(make_fake_backend: Any, make_manifest: Callable[..., Any], graph: str, window_batch: int) -> None:
    changes = {} if graph == "logits" else {"graph": "labels", "strategy": "sliding"}
    images = [IMAGE, IMAGE[:30], IMAGE[:30, ::-1], IMAGE[:, :, 0], IMAGE[:30, :, :]]
    backend = make_fake_backend(make_manifest(**changes))
    segmenter = Segmenter(backend, strategy="sliding", window_batch=window_batch)
    found = segmenter.segment_batch(iter(images), vocabulary=["cat", "sky", "grass"])
    assert max(backend.batches) == (1 if window_batch == 1 else 2 if graph == "labels" else 4)
    for one, image in zip(found, images, strict=True):
        wanted = segmenter(image, vocabulary=["cat", "sky", "grass"])
        np.testing.assert_array_equal(one.labels, wanted.labels)
        np.testing.assert_allclose(one.confidence, wanted.confidence, atol=1e-6)
        assert set(one.timings_ms) == set(wanted.timings_ms)
    assert segmenter.segment_batch([], vocabulary=["cat"]) == []
    with pytest.raises(ImageError, match="^image 1: "):
        segmenter.segment_batch([IMAGE, IMAGE / 255], vocabulary=["cat"])


class Shown:
    """An array of a library of its own, through DLPack alone."""

    def __init__(self, array: np.ndarray, device: int = 1) -> None:
        self.array, self.device = array, device

    def __dlpack__(self, **options: object) -> object:
        return self.array.__dlpack__()

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device, 0


class OnGpu:
    """An array that claims to be on the GPU."""

    @property
    def __cuda_array_interface__(self) -> dict[str, object]:
        return {"version": 3, "shape": (45, 70, 3), "typestr": "|u1", "data": (1, False)}


def test_arrays_of_other_libraries(fake_backend: Any) -> None:
    segmenter = Segmenter(fake_backend)
    segmenter.set_vocabulary(["cat", "grass"])
    wanted = segmenter(IMAGE)
    flipped = np.ascontiguousarray(IMAGE[:, ::-1])
    for array in (Shown(IMAGE.copy()), torch.from_numpy(IMAGE), torch.from_numpy(flipped).flip(1)):
        assert same(segmenter(array), wanted)
    camera = torch.from_numpy(IMAGE.copy())
    result = segmenter(camera)
    camera.zero_()
    np.testing.assert_array_equal(result.image, IMAGE)
    planes = torch.from_numpy(IMAGE).permute(2, 0, 1)
    for bad, message in (
        (planes, r"the shape is \(3, 45, 70\)"),
        (torch.from_numpy(IMAGE).float(), "float32, not uint8"),
        (torch.zeros(4, 4, 3, requires_grad=True), "cannot be read through DLPack"),
        (torch.zeros(4, 4, 3, dtype=torch.bfloat16), "DLPack"),
        (object(), "got object; convert it with numpy.asarray"),
        ([[1, 2]], "got list"),
    ):
        with pytest.raises(ImageError, match=message):
            segmenter(bad)


@pytest.mark.parametrize("array", [OnGpu(), Shown(IMAGE, device=2), Shown(IMAGE, device=13)])
def test_an_array_on_the_gpu_and_a_backend_on_the_cpu(fake_backend: Any, tiny: Segmenter, array: Any) -> None:
    for segmenter in (Segmenter(fake_backend), tiny):
        with pytest.raises(ImageError, match=rf"^image: is on the GPU, and {segmenter.backend.name} .*\.cpu\(\)"):
            segmenter(array, vocabulary=["cat"])


def test_an_array_on_the_gpu_is_fetched_behind_its_makers_work() -> None:
    driver = FakeDriver()
    address = driver.allocate(IMAGE.nbytes)
    maker = driver.create_stream()
    driver.work(maker, lambda: driver.bytes(address, IMAGE.nbytes).__setitem__(slice(None), IMAGE.ravel()))
    driver.synchronize(maker)
    array = DeviceArray(address, IMAGE.shape, IMAGE.dtype, driver)
    np.testing.assert_array_equal(fetch_array(driver, array, "image"), IMAGE)
    assert not driver.pinned and not driver.events and len(driver.blocks) == 1
    assert driver.calls.index("record") < driver.calls.index("wait") < driver.calls.index("copy_out")


def test_a_backend_of_the_gpu_takes_arrays_on_it(fake_backend: Any) -> None:
    fake_backend.on_gpu, fake_backend.fetch = True, lambda array: IMAGE
    segmenter = Segmenter(fake_backend)
    assert same(segmenter(OnGpu(), vocabulary=["cat", "sky"]), segmenter(IMAGE, vocabulary=["cat", "sky"]))
    fake_backend.on_gpu = False
    with pytest.raises(ImageError, match="is on the GPU"):
        segmenter(OnGpu(), vocabulary=["cat"])


def test_after_close(bundle_path: Path) -> None:
    with Segmenter(bundle_path, threads=1) as segmenter:
        segmenter.set_vocabulary(["cat"])
        segmenter(IMAGE)
        backend = weakref.ref(segmenter.backend)
    gc.collect()
    assert backend() is None, "the bundle's memory is still held"
    segmenter.close()
    for use in (
        lambda: segmenter(IMAGE),
        lambda: segmenter.segment_batch([IMAGE]),
        lambda: segmenter.set_vocabulary(["dog"]),
        lambda: segmenter.prepare(["dog"]),
        lambda: segmenter.backend,
        lambda: pickle.dumps(segmenter),
    ):
        with pytest.raises(PcasegError, match="^segmenter: is closed; open the bundle anew$"):
            use()


def test_closing_waits_for_calls_and_leaves_the_callers_backend_open(fake_backend: Any) -> None:
    entered, go = threading.Event(), threading.Event()
    closed: list[str] = []
    logits = fake_backend.logits

    def slow(images: np.ndarray, text: np.ndarray) -> np.ndarray:
        entered.set()
        assert go.wait(10)
        closed.append("call")
        return logits(images, text)

    fake_backend.logits, fake_backend.close = slow, lambda: closed.append("backend")
    segmenter = Segmenter(fake_backend)
    with ThreadPoolExecutor(2) as pool:
        call = pool.submit(segmenter, IMAGE, ["cat"])
        assert entered.wait(10)
        closing = pool.submit(lambda: (segmenter.close(), closed.append("closed")))
        with pytest.raises(TimeoutError):
            closing.result(0.05)
        go.set()
        assert call.result(10).classes == ("cat",)
        closing.result(10)
    assert closed == ["call", "closed"]


def test_a_backend_that_the_segmenter_opened_is_closed(bundle_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pcaseg.runtime.onnxruntime_backend import OnnxRuntimeBackend

    closed: list[object] = []
    monkeypatch.setattr(OnnxRuntimeBackend, "close", lambda self: closed.append(self), raising=False)
    segmenter = Segmenter(bundle_path)
    segmenter.close()
    segmenter.close()
    assert len(closed) == 1
