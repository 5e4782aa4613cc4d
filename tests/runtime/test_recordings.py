"""Recordings labelled whole, cut off, resumed; read back by two independent libraries."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pcaseg.errors import OutputError, PcasegError, VocabularyError
from pcaseg.runtime.segmenter import Segmenter

pytest.importorskip("rosbags")
pytest.importorskip("av")
from mcap_ros2.reader import read_ros2_messages
from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import StoragePlugin
from support_sources import SECOND, SIZE, STORE, record, recorded_picture

from pcaseg.runtime.recorded_labels import segment_recording
from pcaseg.runtime.recordings import Recording, RecordingError
from pcaseg.runtime.sources import is_recording

NAMES = [f"thing {index}" for index in range(4)]


@pytest.fixture
def segmenter(make_fake_backend: Callable[[], Any]) -> Iterator[Segmenter]:
    with Segmenter(make_fake_backend()) as segmenter:
        segmenter.set_vocabulary(NAMES)
        yield segmenter


def read(path: Path) -> list[tuple[str, int, Any]]:
    with AnyReader([path], default_typestore=STORE) as reader:
        return [(one.topic, time, reader.deserialize(data, one.msgtype)) for one, time, data in reader.messages()]


def raw(path: Path) -> list[tuple[str, int, bytes]]:
    with AnyReader([path]) as reader:
        return [(one.topic, time, bytes(data)) for one, time, data in reader.messages()]


def test_labels_stamps_and_legend(tmp_path: Path, segmenter: Segmenter) -> None:
    source, out = record(tmp_path / "drive"), tmp_path / "labels.mcap"
    found = segment_recording(segmenter, source, out)
    assert (found.done, found.skipped, found.failed, found.cut) == (6, 0, [], None)
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["drive", "labels.mcap"]
    messages = read(out)
    assert [(topic, time) for topic, time, _ in messages if topic.endswith("labels")] == [
        ("/camera/image/labels", (10 + index) * SECOND) for index in range(6)
    ]
    legends = [message for topic, _, message in messages if topic == "/camera/image/label_info"]
    assert [[(one.class_id, one.class_name) for one in legend.class_map] for legend in legends] == [
        list(enumerate(NAMES))
    ]
    assert messages[0][0].endswith("label_info")  # before the first labels
    for index, (_, _, message) in enumerate([one for one in messages if one[0].endswith("labels")]):
        assert (message.header.stamp.sec, message.header.stamp.nanosec) == (100 + index, 7)
        assert (message.header.frame_id, message.encoding) == ("camera 0", "mono8")
        expected = segmenter(recorded_picture(index)).labels
        np.testing.assert_array_equal(message.data.reshape(message.height, message.width), expected)
    with Recording(out) as recording:
        (legend,) = recording.connections("/camera/image/label_info")
        assert legend.ext.offered_qos_profiles[0].durability.name == "TRANSIENT_LOCAL"


def test_another_library_reads_it(tmp_path: Path, segmenter: Segmenter) -> None:
    segment_recording(segmenter, record(tmp_path / "drive", 3), tmp_path / "labels.mcap")
    read_back = list(read_ros2_messages(str(tmp_path / "labels.mcap")))
    labels = [one.ros_msg for one in read_back if one.channel.topic.endswith("labels")]
    assert [bytes(one.data) for one in labels] == [
        segmenter(recorded_picture(index)).labels.astype(np.uint8).tobytes() for index in range(3)
    ]
    (legend,) = [one.ros_msg for one in read_back if one.channel.topic.endswith("label_info")]
    assert [one.class_name for one in legend.class_map] == NAMES


@pytest.mark.parametrize("storage", [StoragePlugin.MCAP, StoragePlugin.SQLITE3])
@pytest.mark.parametrize("out", ["labels.mcap", "labels"])
def test_forms_of_input_and_output(tmp_path: Path, segmenter: Segmenter, storage: Any, out: str) -> None:
    source = record(tmp_path / "drive", 2, storage=storage)
    assert is_recording(source) and all(is_recording(path) for path in source.iterdir() if path.suffix != ".yaml")
    assert segment_recording(segmenter, source, tmp_path / out).done == 2
    assert len(read(tmp_path / out)) == 3


def test_many_classes_take_sixteen_bits(tmp_path: Path, segmenter: Segmenter) -> None:
    segmenter.set_vocabulary([f"thing {index}" for index in range(300)])
    segment_recording(segmenter, record(tmp_path / "drive", 1), tmp_path / "labels.mcap")
    (message,) = [one for topic, _, one in read(tmp_path / "labels.mcap") if topic.endswith("labels")]
    assert (message.encoding, message.step) == ("16UC1", 62)
    expected = segmenter(recorded_picture(0)).labels
    np.testing.assert_array_equal(message.data.view("<u2").reshape(expected.shape), expected)


def test_several_topics_and_copies(tmp_path: Path, segmenter: Segmenter) -> None:
    source = record(tmp_path / "drive", 3, topics=("/left", "/right"))
    with pytest.raises(RecordingError, match=r"drive: name one of its topics with images by --topic: /left, /right"):
        segment_recording(segmenter, source, tmp_path / "x.mcap")
    segment_recording(segmenter, source, tmp_path / "both", topics=["/right", "/left"], copy=["/said", "/left"])
    topics = [topic for topic, _, _ in read(tmp_path / "both")]
    assert {topic: topics.count(topic) for topic in set(topics)} == {
        **{"/said": 3, "/left": 3, "/left/labels": 3, "/right/labels": 3},
        **{"/left/label_info": 1, "/right/label_info": 1},
    }
    copied = [message.data for topic, _, message in read(tmp_path / "both") if topic == "/said"]
    assert copied == ["word 0", "word 1", "word 2"]
    segment_recording(segmenter, source, tmp_path / "all", topics=["/left"], copy=["all"])
    assert {topic for topic, _, _ in read(tmp_path / "all")} == {
        "/said",
        "/left",
        "/right",
        "/left/labels",
        "/left/label_info",
    }


def test_a_broken_frame_is_its_own(tmp_path: Path, segmenter: Segmenter) -> None:
    found = segment_recording(segmenter, record(tmp_path / "drive", 4, broken=[1]), tmp_path / "labels.mcap")
    assert found.done == 3 and len(found.failed) == 1
    assert "/camera/image at 11000000000 ns: encoding 'odd' is unknown" in found.failed[0]
    times = [time for topic, time, _ in read(tmp_path / "labels.mcap") if topic.endswith("labels")]
    assert times == [10 * SECOND, 12 * SECOND, 13 * SECOND]


@pytest.mark.parametrize("inside", [False, True], ids=["file", "folder without metadata"])
def test_frames_before_a_cut_are_kept(
    tmp_path: Path, segmenter: Segmenter, monkeypatch: pytest.MonkeyPatch, inside: bool
) -> None:
    """What is lost is the chunk in which the cut lies, here of two frames."""
    monkeypatch.setitem(SIZE, "width", 9000)
    (file,) = record(tmp_path / "drive", 8).glob("*.mcap")
    whole = file.read_bytes()
    source = tmp_path / "cut" / "part.mcap"
    source.parent.mkdir()
    source.write_bytes(whole[: len(whole) * 6 // 10])
    found = segment_recording(segmenter, source.parent if inside else source, tmp_path / "labels.mcap")
    assert found.cut is not None and "is cut off or damaged" in found.cut
    labels = [one for topic, _, one in read(tmp_path / "labels.mcap") if topic.endswith("labels")]
    assert 2 <= len(labels) == found.done < 8
    expected = segmenter(recorded_picture(found.done - 1)).labels
    np.testing.assert_array_equal(labels[-1].data.reshape(expected.shape), expected)
    with pytest.raises(PcasegError, match="is cut off, whose topics cannot be copied"):
        segment_recording(segmenter, source, tmp_path / "x.mcap", copy=["all"])


@pytest.mark.parametrize("data", [b"", b"no recording", b"\x89MCAP0\r\n"])
def test_what_is_no_recording(tmp_path: Path, segmenter: Segmenter, data: bytes) -> None:
    for name in ("drive.mcap", "drive.db3", "drive.bag"):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(RecordingError, match=rf"{name}: is no recording that can be read"):
            segment_recording(segmenter, tmp_path / name, tmp_path / "labels.mcap")
    with pytest.raises(RecordingError, match=r"none\.mcap: no such recording"):
        segment_recording(segmenter, tmp_path / "none.mcap", tmp_path / "labels.mcap")
    assert not (tmp_path / "labels.mcap").exists()


def test_topics_that_are_not_there(tmp_path: Path, segmenter: Segmenter) -> None:
    source = record(tmp_path / "drive", 1)
    for topics, says in (
        (["/camera/imag"], "has no topic '/camera/imag'; topics with images: /camera/image"),
        (["/said"], "'/said' holds std_msgs/msg/String; topics with images: /camera/image"),
    ):
        with pytest.raises(RecordingError, match=says):
            segment_recording(segmenter, source, tmp_path / "labels.mcap", topics=topics)
    with pytest.raises(PcasegError, match="has no topic '/sad' to copy; there are /camera/image, /said"):
        segment_recording(segmenter, source, tmp_path / "labels.mcap", copy=["/sad"])


def test_a_run_that_was_cut_off_goes_on(
    tmp_path: Path, segmenter: Segmenter, monkeypatch: pytest.MonkeyPatch, make_fake_backend: Callable[[], Any]
) -> None:
    source, out = record(tmp_path / "drive"), tmp_path / "labels.mcap"
    monkeypatch.setattr("pcaseg.runtime.recorded_labels._write", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        segment_recording(segmenter, source, out)
    monkeypatch.undo()
    part = tmp_path / "labels.mcap.part"
    (part / "00000004.png").unlink()
    other = Segmenter(make_fake_backend())
    other.set_vocabulary([*NAMES, "another"])
    with pytest.raises(OutputError, match=r"labels\.mcap\.part: holds labels of another run"):
        segment_recording(other, source, out)
    found = segment_recording(segmenter, source, out)
    assert (found.done, found.skipped) == (1, 5) and not part.exists()
    fresh = tmp_path / "fresh.mcap"
    segment_recording(segmenter, source, fresh)
    assert raw(fresh) == raw(out)
    with pytest.raises(OutputError, match=r"labels\.mcap: stands already"):
        segment_recording(segmenter, source, out)


def test_outputs_that_cannot_be(tmp_path: Path, segmenter: Segmenter, make_fake_backend: Callable[[], Any]) -> None:
    source = record(tmp_path / "drive", 1)
    with pytest.raises(OutputError, match="there is no folder .*none"):
        segment_recording(segmenter, source, tmp_path / "none" / "labels.mcap")
    with pytest.raises(VocabularyError, match="no vocabulary"):
        segment_recording(Segmenter(make_fake_backend()), source, tmp_path / "labels.mcap")
