"""Labels of a recording, as a recording: label images with the stamps of their frames, and a latched legend.

Labels of frames that are done lie in a folder beside the output, `OUT.part`, so that a run that was cut off goes on
where it stopped; the recording itself is written at the end, in one pass, and the folder is removed.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rosbags.interfaces import (
    Connection,
    ConnectionExtRosbag2,
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from tqdm import tqdm

from pcaseg.errors import OutputError, PcasegError, VocabularyError
from pcaseg.files import atomic_path
from pcaseg.paths import entries, exists, is_file, is_folder, real_path, refusal, size_of, status
from pcaseg.runtime.recordings import Recorded, Recording, Topic
from pcaseg.runtime.ros_images import encode_labels, image_of
from pcaseg.runtime.segmenter import Segmenter
from pcaseg.runtime.stream import Frame

LABELS, LEGEND = "/labels", "/label_info"
"""What is added to a topic's name for its labels and its legend."""

_IMAGE = "sensor_msgs/msg/Image"
_LABEL_INFO = "vision_msgs/msg/LabelInfo"
_VISION_CLASS = "vision_msgs/msg/VisionClass"
_FOREVER = QosTime(2147483647, 4294967295)
_LATCHED = Qos(
    QosHistory.KEEP_LAST,
    1,
    QosReliability.RELIABLE,
    QosDurability.TRANSIENT_LOCAL,
    *(_FOREVER, _FOREVER, QosLiveliness.AUTOMATIC, _FOREVER),
    False,
)


@dataclass
class RecordedLabels:
    """Outcome of `segment_recording`.

    Attributes:
        done: frames labelled now.
        skipped: frames whose labels an earlier run left.
        failed: what was wrong with each frame that could not be labelled.
        cut: says that the recording ends in the middle; None of a whole one.
        topics: names of the topics of labels.
    """

    done: int = 0
    skipped: int = 0
    failed: list[str] = field(default_factory=list)
    cut: str | None = None
    topics: tuple[str, ...] = ()

    def said(self) -> str:
        """The counts in words."""
        return f"{self.done} frames labelled, {self.skipped} done before, {len(self.failed)} failed"


def segment_recording(
    segmenter: Segmenter,
    path: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    topics: Sequence[str] = (),
    copy: Sequence[str] = (),
    progress: bool = False,
) -> RecordedLabels:
    """Labels the frames of a recording's image topics, and writes a recording of the labels.

    Of a topic `/camera/image`, `/camera/image/labels` holds `sensor_msgs/Image` (mono8 up to 255 classes, else 16UC1)
    with the headers and log times of the frames, and `/camera/image/label_info` the classes, latched.

    Args:
        segmenter: with its vocabulary set.
        path: a folder of rosbag2, a `.mcap` or `.bag` file.
        out: a `.mcap` file, or a folder of rosbag2.
        topics: with images; none where the recording has only one.
        copy: further topics to copy as they are; `all` for every one.
        progress: show a progress bar on standard error.

    Raises:
        RecordingError: the recording cannot be read, or has no such topic.
        OutputError: `out` stands already, cannot be written, or the labels beside it are of another run.
        VocabularyError: the segmenter has no vocabulary.
    """
    vocabulary = segmenter.vocabulary
    if vocabulary is None:
        raise VocabularyError("no vocabulary: call set_vocabulary with class names before segmenting")
    target = Path(out)
    if exists(target, error=OutputError):
        raise OutputError(f"{target}: stands already; choose another name, or remove it")
    if not is_folder(target.parent, error=OutputError):
        raise OutputError(f"{target}: there is no folder {target.parent}; make it first")
    with Recording(path) as recording:
        chosen = recording.image_topics(topics)
        copied = _to_copy(recording, copy, chosen)
        part = _part_folder(target, _settings(segmenter, recording, chosen))
        found = _label(segmenter, recording, chosen, part, progress=progress)
        with atomic_path(target, folder=target.suffix.lower() != ".mcap") as new:
            _write(recording, chosen, copied, vocabulary.names, part, new)
        shutil.rmtree(part)
    found.topics = tuple(topic.name + LABELS for topic in chosen)
    return found


def _label(
    segmenter: Segmenter, recording: Recording, topics: Sequence[Topic], part: Path, *, progress: bool
) -> RecordedLabels:
    """Writes the labels of each frame that has none into `part`."""
    found = RecordedLabels()
    total = None if recording.cut or any(t.messages is None for t in topics) else sum(t.messages or 0 for t in topics)
    bar = tqdm(total=total, desc="segment", unit="frame", disable=not progress)

    def frames() -> Iterator[Frame]:
        for index, message in enumerate(recording.messages([topic.name for topic in topics])):
            if is_file(_labels_of(part, index), error=OutputError):
                found.skipped += 1
                bar.update()
                continue
            yield Frame(partial(_read, recording, message, segmenter.bits), message.log_time_ns, index)

    with bar, segmenter.stream(frames(), queue=3) as stream:
        for item in stream:
            if item.result is None:
                found.failed.append(str(item.error))
            else:
                _save(item.result.labels, _labels_of(part, item.tag))
                found.done += 1
            bar.update()
    found.cut = recording.cut
    return found


def _read(recording: Recording, message: Recorded, bits: int | None) -> np.ndarray:
    name = f"{recording.path}: {message.topic} at {message.log_time_ns} ns"
    return image_of(recording.decode(message), name=name, bits=bits)


def _write(
    recording: Recording, topics: Sequence[Topic], copied: Sequence[str], names: Sequence[str], part: Path, new: Path
) -> None:
    """The recording of the labels in `part`, in the order of the frames."""
    bag = new if is_folder(new) else new.with_name(f"{new.name}.bag")
    if bag == new:
        new.rmdir()  # the writer makes it
    pictured, index = [topic.name for topic in topics], -1
    with Writer(bag, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        labels = _LabelWriter(writer, pictured, names)
        copies = {name: _copy_connection(writer, recording, name) for name in copied}
        for message in recording.messages(list(dict.fromkeys([*pictured, *copied]))):
            if message.topic in copies:
                writer.write(copies[message.topic], message.log_time_ns, message.data)
            if message.topic in pictured:
                index += 1
                if is_file(_labels_of(part, index)):
                    labels.add(message, recording.decode(message).header, _load(_labels_of(part, index)))
    if bag != new:
        (file,) = (one for one in entries(bag) if one.suffix == ".mcap")
        os.replace(file, new)
        shutil.rmtree(bag)


class _LabelWriter:
    """Writes labels and, before the first of a topic, its legend."""

    def __init__(self, writer: Writer, topics: Sequence[str], names: Sequence[str]) -> None:
        self._store = get_typestore(Stores.ROS2_JAZZY)
        self._store.register(get_types_from_msg("uint16 class_id\nstring class_name", _VISION_CLASS))
        fields = "std_msgs/Header header\nvision_msgs/VisionClass[] class_map\nfloat32 threshold"
        self._store.register(get_types_from_msg(fields, _LABEL_INFO))
        entry = self._store.types[_VISION_CLASS]
        self._classes = [entry(class_id=number, class_name=name) for number, name in enumerate(names)]
        self._writer = writer
        self._pictures = {t: writer.add_connection(t + LABELS, _IMAGE, typestore=self._store) for t in topics}
        self._legends = {
            t: writer.add_connection(t + LEGEND, _LABEL_INFO, typestore=self._store, offered_qos_profiles=[_LATCHED])
            for t in topics
        }
        self._begun: set[str] = set()

    def add(self, frame: Recorded, header: Any, labels: np.ndarray) -> None:
        """Labels `(H, W)` of a frame, with its header and log time."""
        types, (height, width) = self._store.types, labels.shape
        stamp = types["builtin_interfaces/msg/Time"](header.stamp.sec, header.stamp.nanosec)
        header = types["std_msgs/msg/Header"](stamp=stamp, frame_id=header.frame_id)
        if frame.topic not in self._begun:
            self._begun.add(frame.topic)
            legend = types[_LABEL_INFO](header=header, class_map=self._classes, threshold=0.0)
            self._put(self._legends[frame.topic], frame, legend)
        encoding, step, data = encode_labels(labels, classes=len(self._classes))
        picture = types[_IMAGE](
            header=header,
            height=height,
            width=width,
            encoding=encoding,
            is_bigendian=0,
            step=step,
            data=np.frombuffer(data, np.uint8),
        )
        self._put(self._pictures[frame.topic], frame, picture)

    def _put(self, connection: Connection, frame: Recorded, message: Any) -> None:
        data = self._store.serialize_cdr(message, connection.msgtype)
        self._writer.write(connection, frame.log_time_ns, data)


def _copy_connection(writer: Writer, recording: Recording, topic: str) -> Connection:
    one = recording.connections(topic)[0]
    qos = one.ext.offered_qos_profiles if isinstance(one.ext, ConnectionExtRosbag2) else ()
    return writer.add_connection(
        topic, one.msgtype, msgdef=one.msgdef.data, rihs01=one.digest, offered_qos_profiles=qos
    )


def _to_copy(recording: Recording, asked: Sequence[str], topics: Sequence[Topic]) -> list[str]:
    if asked and recording.form != "rosbag2":
        raise PcasegError(f"{recording.path}: is {recording.form}, whose topics cannot be copied; leave --copy out")
    if "all" in asked:
        return list(recording.topics)
    for name in asked:
        if name not in recording.topics:
            there = ", ".join(sorted(recording.topics))
            raise PcasegError(f"{recording.path}: has no topic {name!r} to copy; there are {there}")
    return list(dict.fromkeys(asked))


def _settings(segmenter: Segmenter, recording: Recording, topics: Sequence[Topic]) -> dict[str, object]:
    """Everything that decides the labels of a run."""
    vocabulary, manifest, file = segmenter.vocabulary, segmenter.backend.manifest, status(recording.path)
    assert vocabulary is not None and file is not None
    return {
        "recording": str(real_path(recording.path)),
        "size": size_of(recording.path),
        "changed_ns": file.st_mtime_ns,
        "topics": [topic.name for topic in topics],
        "classes": list(vocabulary.names),
        "embeddings_sha256": hashlib.sha256(np.ascontiguousarray(vocabulary.embeddings).tobytes()).hexdigest(),
        "weights_sha256": manifest.weights.sha256,
        "shortlist": manifest.shortlist,
        "strategy": segmenter.strategy,
        "bits": segmenter.bits,
        "backend": segmenter.backend.name,
    }


def _part_folder(target: Path, settings: dict[str, object]) -> Path:
    """The folder of the labels that are done, of the same settings."""
    part, text = target.with_name(f"{target.name}.part"), json.dumps(settings, indent=1, ensure_ascii=False)
    told = part / "settings.json"
    try:
        if exists(told, error=OutputError) and told.read_text(encoding="utf-8") != text:
            raise OutputError(
                f"{part}: holds labels of another run (other classes, weights, options or recording); remove it, or "
                "choose another --out"
            )
        part.mkdir(exist_ok=True)
        with atomic_path(told) as new:
            new.write_text(text, encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise refusal(part, error, OutputError) from error
    return part


def _labels_of(part: Path, index: int) -> Path:
    return part / f"{index:08d}.png"


def _save(labels: np.ndarray, path: Path) -> None:
    try:
        with atomic_path(path) as new:
            Image.fromarray(labels.astype(np.uint8 if labels.max() < 256 else np.uint16)).save(new, format="PNG")
    except OSError as error:
        raise refusal(path, error, OutputError) from error


def _load(path: Path) -> np.ndarray:
    with Image.open(path, formats=("PNG",)) as picture:
        return np.asarray(picture)
