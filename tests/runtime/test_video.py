"""Videos labelled: times, rotation, selection, lossless labels, and what ends early."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pcaseg.errors import OutputError, PcasegError, VocabularyError
from pcaseg.runtime.segmenter import Segmenter
from pcaseg.runtime.sources import is_live, is_video

av = pytest.importorskip("av")
pytest.importorskip("rosbags")
from support_sources import film, filmed_picture  # noqa: E402

from pcaseg.runtime.video import Video, VideoError, segment_video  # noqa: E402

NAMES = [f"thing {index}" for index in range(4)]


def read(path: Path, form: str) -> list[tuple[float, np.ndarray]]:
    with av.open(str(path)) as container:
        return [(frame.time, frame.to_ndarray(format=form)) for frame in container.decode(video=0)]


@pytest.fixture
def segmenter(make_fake_backend: Callable[[], Any]) -> Iterator[Segmenter]:
    with Segmenter(make_fake_backend()) as segmenter:
        segmenter.set_vocabulary(NAMES)
        yield segmenter


def test_labels_are_those_of_single_frames(tmp_path: Path, segmenter: Segmenter) -> None:
    source, out = film(tmp_path / "clip.mp4"), tmp_path / "seen.mp4"
    found = segment_video(segmenter, source, out)
    assert (found.done, found.dropped, found.failed, found.ended) == (10, 0, [], None)
    labels = read(tmp_path / "seen.labels.mkv", "gray")
    shown = read(out, "rgb24")
    assert [round(time, 3) for time, _ in labels] == [round(time, 3) for time, _ in shown]
    assert [round(time, 2) for time, _ in labels] == [index / 10 for index in range(10)]
    for (_, given), (_, wanted), (_, overlay) in zip(labels, read(source, "rgb24"), shown, strict=True):
        result = segmenter(wanted)
        np.testing.assert_array_equal(given, result.labels)
        expected = np.asarray(result.overlay())
        height, width = (min(pair) for pair in zip(expected.shape[:2], overlay.shape[:2], strict=True))
        assert np.abs(overlay[:height, :width].astype(int) - expected[:height, :width]).mean() < 12
    legend = json.loads((tmp_path / "seen.json").read_text())
    assert (legend["classes"], legend["frames"], legend["labels"]) == (NAMES, 10, "seen.labels.mkv")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip.mp4", "seen.json", "seen.labels.mkv", "seen.mp4"]


def test_many_classes_take_sixteen_bits(tmp_path: Path, segmenter: Segmenter) -> None:
    segmenter.set_vocabulary([f"thing {index}" for index in range(300)])
    source = film(tmp_path / "clip.mp4", [0, 0.1])
    segment_video(segmenter, source, tmp_path / "seen.mp4")
    for (_, given), (_, wanted) in zip(
        read(tmp_path / "seen.labels.mkv", "gray16le"), read(source, "rgb24"), strict=True
    ):
        np.testing.assert_array_equal(given, segmenter(wanted).labels)


def test_frame_rates_may_vary(tmp_path: Path, segmenter: Segmenter) -> None:
    times = [0.5, 0.51, 0.9, 2.0]
    segment_video(segmenter, film(tmp_path / "clip.mkv", times), tmp_path / "seen.mp4")
    found = [time for time, _ in read(tmp_path / "seen.mp4", "rgb24")]
    np.testing.assert_allclose(np.subtract(found, found[0]), np.subtract(times, times[0]), atol=2e-3)


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({"every": 3}, [0, 3, 6, 9]),
        ({"start": 0.55}, [6, 7, 8, 9]),
        ({"end": 0.25}, [0, 1, 2]),
        ({"start": 0.2, "end": 0.85, "every": 2}, [2, 4, 6, 8]),
    ],
)
def test_selection(tmp_path: Path, options: dict[str, Any], kept: list[int]) -> None:
    with Video(film(tmp_path / "clip.mp4"), **options) as video:
        frames = list(video)
        assert [round(frame.timestamp * 10) for frame in frames] == kept and video.ended is None
        assert video.frames is not None and abs(video.frames - len(kept)) <= 1
        for frame, index in zip(frames, kept, strict=True):
            assert np.abs(frame.image().astype(int) - filmed_picture(index)).mean() < 6


@pytest.mark.parametrize("quarters", [0, 1, 2, 3])
def test_rotation_of_the_camera(tmp_path: Path, quarters: int) -> None:
    """The matrix of the track's header, as phones write it, turns the picture clockwise."""
    data = bytearray(film(tmp_path / "clip.mp4", [0]).read_bytes())
    a, b = [(1, 0), (0, 1), (-1, 0), (0, -1)][quarters]
    matrix = [a << 16, b << 16, 0, -b << 16, a << 16, 0, 0, 0, 1 << 30]
    begin = data.index(b"tkhd") + 4 + 40
    data[begin : begin + 36] = struct.pack(">9i", *matrix)
    (tmp_path / "turned.mp4").write_bytes(data)
    with Video(tmp_path / "turned.mp4") as video:
        (frame,) = video
    found, expected = frame.image().astype(int), np.rot90(filmed_picture(0), -quarters)
    assert found.shape == expected.shape
    assert np.abs(found - expected).mean() < 6


def test_a_file_that_ends_early_is_kept_so_far(tmp_path: Path, segmenter: Segmenter) -> None:
    whole = film(tmp_path / "clip.mkv", [index / 10 for index in range(60)]).read_bytes()
    (tmp_path / "cut.mkv").write_bytes(whole[: len(whole) * 6 // 10])
    found = segment_video(segmenter, tmp_path / "cut.mkv", tmp_path / "seen.mp4")
    assert 0 < found.done < 60 and found.ended is not None
    assert "cut.mkv: ends at" in found.ended
    assert len(read(tmp_path / "seen.labels.mkv", "gray")) == found.done


def test_what_is_no_video(tmp_path: Path, segmenter: Segmenter) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "empty.mp4").write_bytes(b"")
    with av.open(str(tmp_path / "sound.mkv"), "w") as container:
        stream = container.add_stream("flac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        frame.pts = 0
        container.mux(stream.encode(frame))
    for name, says in (
        ("text.mp4", r"text\.mp4: cannot be read as video"),
        ("empty.mp4", r"empty\.mp4: cannot be read as video"),
        ("none.mp4", r"none\.mp4: no such video"),
        ("sound.mkv", r"sound\.mkv: has no pictures"),
    ):
        with pytest.raises(VideoError, match=says):
            segment_video(segmenter, tmp_path / name, tmp_path / "seen.mp4")
    with pytest.raises(VideoError, match="rtsp://127.0.0.1:9/none: cannot be read as video"):
        segment_video(segmenter, "rtsp://127.0.0.1:9/none", tmp_path / "seen.mp4")
    assert not list(tmp_path.glob("seen*"))


def test_times_without_frames(tmp_path: Path, segmenter: Segmenter) -> None:
    source = film(tmp_path / "clip.mp4", [0, 0.1])
    with pytest.raises(VideoError, match=r"clip\.mp4: has no frame in that time"):
        segment_video(segmenter, source, tmp_path / "seen.mp4", start=0.15)
    for options, says in (
        ({"every": 0}, "every=0: give 1 or more"),
        ({"start": 2, "end": 1}, "start=2, end=1: give seconds"),
        ({"start": -1}, "start=-1"),
    ):
        with pytest.raises(PcasegError, match=says):
            segment_video(segmenter, source, tmp_path / "seen.mp4", **options)  # type: ignore[arg-type]
    assert not list(tmp_path.glob("seen*"))


def test_outputs_that_cannot_be(tmp_path: Path, segmenter: Segmenter, make_fake_backend: Callable[[], Any]) -> None:
    source = film(tmp_path / "clip.mp4", [0])
    with pytest.raises(OutputError, match=r"seen\.odd: cannot be written .*choose an ending"):
        segment_video(segmenter, source, tmp_path / "seen.odd")
    with pytest.raises(VocabularyError, match="no vocabulary"):
        segment_video(Segmenter(make_fake_backend()), source, tmp_path / "seen.mp4")
    (tmp_path / "seen.json").write_text("mine")
    with pytest.raises(OutputError, match=r"seen\.json: stands already"):
        segment_video(segmenter, source, tmp_path / "seen.mp4")
    assert (tmp_path / "seen.json").read_text() == "mine"


def test_an_interrupt_leaves_nothing(tmp_path: Path, segmenter: Segmenter, monkeypatch: pytest.MonkeyPatch) -> None:
    source = film(tmp_path / "clip.mp4")
    monkeypatch.setattr("pcaseg.runtime.video._overlay", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        segment_video(segmenter, source, tmp_path / "seen.mp4")
    assert [path.name for path in tmp_path.iterdir()] == ["clip.mp4"]


@pytest.mark.parametrize(
    ("source", "video", "live"),
    [
        *[("a.MP4", True, False), ("rtsp://10.0.0.2/x", True, True), ("/dev/video0", True, True)],
        *[("http://host/a", True, False), ("a.png", False, False), ("folder", False, False)],
    ],
)
def test_kinds_of_sources(source: str, video: bool, live: bool) -> None:
    assert (is_video(source), is_live(source)) == (video, live)
