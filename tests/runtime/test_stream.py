"""Streams: order, dropping, broken frames, live vocabularies, and threads that end whatever happens."""

from __future__ import annotations

import gc
import io
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from stream_support import NAMES, check, picture, stream_threads

from pcaseg.data.scenes import render_scene
from pcaseg.errors import ImageError, PcasegError, VocabularyError
from pcaseg.runtime import Frame, Segmenter

pytestmark = pytest.mark.usefixtures("no_thread_is_left")


def slow_network(backend: Any, seconds: float) -> None:
    logits = backend.logits
    backend.logits = lambda images, text: (time.sleep(seconds), logits(images, text))[1]


@pytest.mark.parametrize("queue", [1, 2, 7])
def test_every_frame_in_order(segmenter: Segmenter, queue: int) -> None:
    images = [picture(i, (20 + i, 40 - i)) for i in range(12)]
    items = list(segmenter.stream(iter(images), queue=queue))
    assert [item.index for item in items] == list(range(12))
    assert all(item.dropped == 0 and item.latency_ms > 0 and item.timestamp is None for item in items)
    for item, image in zip(items, images, strict=True):
        check(segmenter, item, image)
    assert list(items[0].result.timings_ms) == ["read", "prepare", "network", "labels", "total"]  # type: ignore[union-attr]


def test_the_trained_tiny_model(trained_tiny: Path) -> None:
    with Segmenter(trained_tiny, threads=1) as segmenter:
        images = [render_scene(i, split="evaluation", side=side).image for i, side in enumerate((96, 64, 160))]
        for item, image in zip(segmenter.stream(images, ["car", "sky"]), images, strict=True):
            check(segmenter, item, image, ["car", "sky"])


def test_a_graph_of_labels(make_fake_backend: Any, make_manifest: Callable[..., Any]) -> None:
    segmenter = Segmenter(make_fake_backend(make_manifest(graph="labels", strategy="single", image_size=(24, 36))))
    items = list(segmenter.stream([picture(0), picture(1, (9, 9)), picture(2)], NAMES))
    check(segmenter, items[0], picture(0))
    check(segmenter, items[2], picture(2))
    assert isinstance(items[1].error, ImageError)
    assert str(items[1].error).startswith("frame 1: 9 x 9 pixels")


def test_kinds_of_frames(segmenter: Segmenter, tmp_path: Path) -> None:
    Image.fromarray(picture(0)).save(tmp_path / "a.png")
    tag = object()
    given = [
        picture(0),
        (17.5, picture(0)),
        Image.fromarray(picture(0)),
        tmp_path / "a.png",
        (3, tmp_path / "a.png"),
        Frame(picture(0), "noon", tag),
        Frame(lambda: picture(0), 7),
        ("pair", lambda: Image.fromarray(picture(0))),
    ]
    items = list(segmenter.stream(given))
    assert [item.timestamp for item in items] == [None, 17.5, None, None, 3, "noon", 7, "pair"]
    assert [item.tag for item in items] == [None] * 5 + [tag, None, None]
    for item in items:
        check(segmenter, item, picture(0))


def test_stages_overlap(segmenter: Segmenter, fake_backend: Any) -> None:
    inside, together = threading.Event(), threading.Event()
    logits = fake_backend.logits

    def network(images: np.ndarray, text: np.ndarray) -> np.ndarray:
        inside.set()
        together.wait(10)
        return logits(images, text)

    def decode() -> np.ndarray:
        if inside.wait(10):
            together.set()  # while the network works on the frame before
        return picture(1)

    fake_backend.logits = network
    items = list(segmenter.stream([picture(0), Frame(decode)], queue=2))
    assert together.is_set() and [item.index for item in items] == [0, 1]


@pytest.mark.parametrize("queue", [1, 3])
def test_the_source_waits_for_the_consumer(segmenter: Segmenter, queue: int) -> None:
    read = []

    def source() -> Iterator[np.ndarray]:
        for index in range(30):
            read.append(index)
            yield picture(index)

    with segmenter.stream(source(), queue=queue) as stream:
        for item in stream:
            if item.index < 5:
                time.sleep(0.03)
                assert len(read) <= item.index + 1 + queue + 2  # under way, one waiting, one being read
    assert len(read) == 30


@pytest.mark.timing
def test_latest_drops_late_frames_and_counts_them(segmenter: Segmenter, fake_backend: Any) -> None:
    slow_network(fake_backend, 0.02)

    def camera() -> Iterator[tuple[float, np.ndarray]]:
        for index in range(60):
            time.sleep(0.002)
            yield index / 500, picture(index)

    with segmenter.stream(camera(), mode="latest", queue=1) as stream:
        items = list(stream)
    indices = [item.index for item in items]
    assert indices == sorted(set(indices)) and indices[-1] == 59, "the newest frame is never dropped"
    assert len(items) < 40
    assert [item.dropped for item in items] == [b - a - 1 for a, b in zip([-1, *indices], indices, strict=False)]
    assert stream.dropped == 60 - len(items) == sum(item.dropped for item in items)
    del fake_backend.logits
    for item in items:
        assert item.timestamp == item.index / 500
        check(segmenter, item, picture(item.index))


@pytest.mark.timing
def test_latest_is_fresh_for_a_slow_consumer(segmenter: Segmenter) -> None:
    newest = [0]
    stop = threading.Event()

    def camera() -> Iterator[np.ndarray]:
        while not stop.wait(0.002):
            yield picture(newest[0])
            newest[0] += 1

    ages = []
    with segmenter.stream(camera(), mode="latest", queue=1) as stream:
        for item, _ in zip(stream, range(6), strict=False):
            ages.append(newest[0] - item.index)
            time.sleep(0.05)
        stop.set()
    assert stream.dropped > 20
    assert max(ages) < 2 * 0.05 / 0.002, "older than two turns of the consumer"


def broken_frames(tmp_path: Path) -> dict[int, Any]:
    (tmp_path / "cut.png").write_bytes(b"\x89PNG\r\n\x1a\n damaged")

    def fails() -> np.ndarray:
        raise OSError("the camera's cable")

    return {1: tmp_path / "cut.png", 2: tmp_path / "none.png", 4: picture(4) / 255, 5: fails, 7: None, 8: (1, 2, 3)}


@pytest.mark.parametrize("mode", ["every", "latest"])
def test_broken_frames_are_reported_and_skipped(segmenter: Segmenter, tmp_path: Path, mode: Any) -> None:
    broken = broken_frames(tmp_path)

    def source() -> Iterator[Any]:
        for index in range(10):
            yield index, broken.get(index, picture(index))
            if mode == "latest":
                time.sleep(0.05)

    items = list(segmenter.stream(source(), mode=mode, queue=3))
    assert [item.index for item in items] == list(range(10)) or mode == "latest"
    for item in items:
        assert item.timestamp == item.index
        if item.index in broken:
            assert item.error is not None and item.result is None
        else:
            check(segmenter, item, picture(item.index))
    errors = {item.index: item.error for item in items if item.error}
    if mode == "every":
        assert "cut.png" in str(errors[1]) and "none.png" in str(errors[2])
        assert str(errors[4]).startswith("frame 4: ") and isinstance(errors[5], OSError)


def test_an_error_holds_no_pixels(segmenter: Segmenter) -> None:
    """Its lines are there, but not the frame: neither what was given nor what was decoded."""
    pixels: list[Any] = []

    def decoded() -> np.ndarray:
        array = np.zeros((8, 8), np.float64)
        pixels.append(weakref.ref(array))
        return array

    given = np.zeros((8, 8), np.complex64)
    pixels.append(weakref.ref(given))
    items = list(segmenter.stream([given, decoded, lambda: Image.open(io.BytesIO(b"no picture"))]))
    del given
    gc.collect()
    assert all(item.error is not None and item.error.__traceback__ is not None for item in items)
    assert len(pixels) == 2 and not [one for one in pixels if one() is not None]


def test_a_network_that_fails_once(segmenter: Segmenter, fake_backend: Any) -> None:
    logits, calls = fake_backend.logits, []

    def once(images: np.ndarray, text: np.ndarray) -> np.ndarray:
        calls.append(1)
        if len(calls) == 2:
            raise RuntimeError("out of memory")
        return logits(images, text)

    fake_backend.logits = once
    items = list(segmenter.stream([picture(i) for i in range(4)]))
    assert [type(item.error) for item in items] == [type(None), RuntimeError, type(None), type(None)]


def test_an_error_of_the_source_comes_behind_its_frames(segmenter: Segmenter) -> None:
    class CameraGoneError(Exception):
        pass

    def source() -> Iterator[np.ndarray]:
        yield from map(picture, range(3))
        raise CameraGoneError("unplugged")

    seen = []
    stream = segmenter.stream(source(), queue=2)
    with pytest.raises(CameraGoneError, match="unplugged"):
        for item in stream:
            seen.append(item.index)
    assert seen == [0, 1, 2]
    assert stream_threads() == 0
    assert list(stream) == []


def test_without_a_vocabulary(fake_backend: Any) -> None:
    with pytest.raises(VocabularyError, match="call set_vocabulary"):
        next(Segmenter(fake_backend).stream([picture(0)]))


@pytest.mark.parametrize("options", [{"mode": "all"}, {"queue": 0}, {"queue": 1.5}, {"vocabulary": []}])
def test_bad_options(segmenter: Segmenter, options: dict[str, Any]) -> None:
    with pytest.raises(PcasegError):
        segmenter.stream([picture(0)], **options)


def test_a_vocabulary_from_a_named_frame_on(segmenter: Segmenter) -> None:
    lists = {0: NAMES, 4: ["dog"], 5: ["road", "sea"], 9: NAMES}
    images = [picture(index) for index in range(12)]
    with segmenter.stream(images, lists[0], queue=3) as stream:
        for start in (5, 9, 4):  # the last word: what was planned behind it is forgotten
            assert stream.set_vocabulary(lists[start], from_frame=start) == start
        items = list(stream)
    assert [item.index for item in items] == list(range(12))
    for item in items:
        check(segmenter, item, images[item.index], lists[0] if item.index < 4 else lists[4])


def test_planned_vocabularies_follow_each_other(segmenter: Segmenter) -> None:
    lists = {0: NAMES, 3: ["dog"], 5: ["road", "sea"], 9: NAMES}
    images = [picture(index) for index in range(12)]
    with segmenter.stream(images, queue=3) as stream:
        for start, names in lists.items():
            assert stream.set_vocabulary(names, from_frame=start) == start
        for item in stream:
            check(segmenter, item, images[item.index], lists[max(start for start in lists if start <= item.index)])
        with pytest.raises(PcasegError, match="from_frame=3: the next frame to be read is 12"):
            stream.set_vocabulary(["late"], from_frame=3)


@pytest.mark.parametrize("own", [True, False], ids=["stream", "segmenter"])
def test_a_vocabulary_that_changes_while_frames_flow(segmenter: Segmenter, own: bool) -> None:
    lists = [[f"name {number}", "sky", "grass"][: 1 + number % 3] for number in range(30)]
    images = [picture(index) for index in range(60)]
    starts = [(0, lists[0])]
    with segmenter.stream(images, lists[0] if own else None, queue=4) as stream:
        if not own:
            segmenter.set_vocabulary(lists[0])
        items = []
        for item in stream:
            items.append(item)
            if item.index % 2 == 0:
                names = lists[item.index // 2]
                if own:
                    starts.append((stream.set_vocabulary(names), names))
                else:
                    segmenter.set_vocabulary(names)
    assert [item.index for item in items] == list(range(60)), "none is dropped"
    order = []
    for item in items:
        assert item.result is not None
        names = list(item.result.classes)
        check(segmenter, item, images[item.index], names)
        if own:
            assert names == [chosen for start, chosen in starts if start <= item.index][-1]
        order.append(lists.index(names))
    assert order == sorted(order) and len(set(order)) > 5


def test_a_vocabulary_that_cannot_be_used_leaves_the_former(segmenter: Segmenter) -> None:
    with segmenter.stream([picture(index) for index in range(4)]) as stream:
        next(stream)
        with pytest.raises(VocabularyError):
            stream.set_vocabulary(["", "sky"])
        assert [item.result.classes for item in stream if item.result] == [tuple(NAMES)] * 3
