"""Recordings of ROS: frames of image topics out of rosbag2 folders, MCAP files, and ROS 1 bags."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pcaseg.errors import MissingDependencyError, PcasegError, install_hint, one_line
from pcaseg.paths import entries, exists, is_folder

try:
    from mcap.records import Channel, Message, Schema
    from mcap.stream_reader import StreamReader
    from rosbags.highlevel import AnyReader
    from rosbags.interfaces import Connection
    from rosbags.typesys import Stores, get_types_from_msg, get_typestore
except ImportError as error:
    raise MissingDependencyError(f"recordings need rosbags and mcap ({error}); {install_hint('recordings')}") from error

IMAGE_TYPES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")


class RecordingError(PcasegError):
    """A recording cannot be read or written."""


@dataclass(frozen=True)
class Topic:
    """A topic of a recording.

    Attributes:
        name: such as `/camera/image`.
        kind: message type, such as `sensor_msgs/msg/Image`.
        messages: how many there are; of a recording that was cut off, None.
    """

    name: str
    kind: str
    messages: int | None


@dataclass(frozen=True)
class Recorded:
    """A message of a recording.

    Attributes:
        topic: its topic's name.
        log_time_ns: when it was recorded.
        data: as it was recorded, CDR (of ROS 1 bags, their own form).
    """

    topic: str
    log_time_ns: int
    data: bytes


class Recording:
    """A recording, opened for reading.

    One that was cut off (power lost, disk full, copy broken) is read up to the cut: `cut` says so once `messages` came
    to it.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Opens a recording and reads its topics.

        Raises:
            RecordingError: no such file or folder, or not one of a recording.
        """
        self.path = Path(path)
        self.cut: str | None = None
        self.topics: dict[str, Topic] = {}
        if not exists(self.path, error=RecordingError):
            raise RecordingError(f"{self.path}: no such recording; check the path")
        self._reader: AnyReader | None = None
        self._connections: dict[str, list[Connection]] = {}
        self._store = get_typestore(Stores.ROS2_JAZZY)
        try:
            reader = AnyReader([self.path], default_typestore=get_typestore(Stores.ROS2_JAZZY))
            reader.open()
        except Exception as error:  # rosbags' own kinds, of SQLite, YAML and compression
            self._open_cut(error)
        else:
            self._reader = reader
            for one in reader.connections:
                self._connections.setdefault(one.topic, []).append(one)
            self.topics = {
                name: Topic(name, ones[0].msgtype, sum(one.msgcount for one in ones))
                for name, ones in self._connections.items()
            }

    def __enter__(self) -> Recording:
        return self

    def __exit__(self, *_: object) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def image_topics(self, asked: Sequence[str] = ()) -> tuple[Topic, ...]:
        """The topics asked for, or the only one that holds images.

        Raises:
            RecordingError: no such topic, one that holds no images, none, or several to choose from.
        """
        images = [topic for topic in self.topics.values() if topic.kind in IMAGE_TYPES]
        listed = ", ".join(sorted(topic.name for topic in images)) or "none"
        for name in asked:
            if name not in self.topics:
                raise RecordingError(f"{self.path}: has no topic {name!r}; topics with images: {listed}")
            if self.topics[name].kind not in IMAGE_TYPES:
                kind = self.topics[name].kind
                raise RecordingError(f"{self.path}: {name!r} holds {kind}; topics with images: {listed}")
        if asked:
            return tuple(self.topics[name] for name in dict.fromkeys(asked))
        if len(images) != 1:
            raise RecordingError(f"{self.path}: name one of its topics with images by --topic: {listed}")
        return tuple(images)

    def messages(self, topics: Sequence[str]) -> Iterator[Recorded]:
        """Messages of these topics in the order of their recording, up to a cut, which is then said in `cut`."""
        self.cut = None
        try:
            yield from self._whole(topics) if self._reader is not None else self._up_to_the_cut(topics)
        except Exception as error:  # as in opening
            self.cut = f"{self.path}: is cut off or damaged ({_first_line(error)})"

    def decode(self, message: Recorded) -> Any:
        """A message with ROS's fields.

        Raises:
            RecordingError: its bytes are not of its type.
        """
        try:
            kind = self.topics[message.topic].kind
            if self._reader is not None:
                return self._reader.deserialize(message.data, kind)
            return self._store.deserialize_cdr(message.data, kind)
        except Exception as error:  # rosbags raises struct's, NumPy's and its own kinds
            raise RecordingError(
                f"{self.path}: a message of {message.topic} at {message.log_time_ns} ns cannot be decoded "
                f"({_first_line(error)})"
            ) from error

    @property
    def form(self) -> Literal["rosbag2", "a bag of ROS 1", "cut off"]:
        """Form in which it is stored."""
        if self._reader is None:
            return "cut off"
        return "rosbag2" if self._reader.is2 else "a bag of ROS 1"

    def connections(self, topic: str) -> list[Connection]:
        """Ways in which the topic was recorded: type, quality of service; none of a recording that was cut off."""
        return self._connections.get(topic, [])

    def _whole(self, topics: Sequence[str]) -> Iterator[Recorded]:
        assert self._reader is not None
        chosen = [one for name in topics for one in self._connections[name]]
        for one, time, data in self._reader.messages(chosen) if chosen else ():
            yield Recorded(one.topic, time, bytes(data))

    def _open_cut(self, reason: Exception) -> None:
        """Opens an MCAP file without its end: its topics are those that stand before the cut."""
        fault = f"{self.path}: is no recording that can be read ({_first_line(reason)})"
        inside = entries(self.path, error=RecordingError) if is_folder(self.path) else [self.path]
        self._files = sorted(path for path in inside if path.suffix.lower() == ".mcap")
        if not self._files:
            raise RecordingError(f"{fault}; give a .mcap file, a folder of rosbag2 or a .bag file") from reason
        for _ in self._records():
            pass
        if not self.topics:
            raise RecordingError(f"{fault}; nothing before the damage can be read either") from reason

    def _up_to_the_cut(self, topics: Sequence[str]) -> Iterator[Recorded]:
        for topic, message in self._records():
            if topic in topics:
                yield Recorded(topic, message.log_time, message.data)
        raise RecordingError("it has no end")

    def _records(self) -> Iterator[tuple[str, Message]]:
        """Messages of MCAP files without their index, each up to where nothing more can be read."""
        for path in self._files:
            schemas: dict[int, Schema] = {}
            channels: dict[int, Channel] = {}
            with suppress(Exception), path.open("rb") as file:  # of mcap, lz4 and zstandard: the cut
                for record in StreamReader(file).records:
                    if isinstance(record, Schema):
                        schemas[record.id] = record
                    elif isinstance(record, Channel):
                        channels[record.id] = record
                        self._learn(record.topic, schemas[record.schema_id])
                    elif isinstance(record, Message):
                        yield channels[record.channel_id].topic, record

    def _learn(self, topic: str, schema: Schema) -> None:
        self.topics[topic] = Topic(topic, schema.name, None)
        if schema.encoding == "ros2msg" and schema.name not in self._store.fielddefs:
            self._store.register(get_types_from_msg(schema.data.decode(), schema.name))


def _first_line(error: Exception) -> str:
    return one_line(error) or type(error).__name__
