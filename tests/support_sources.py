"""Recordings of ROS and films for tests."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

STORE = get_typestore(Stores.ROS2_JAZZY)
SECOND = 10**9


SIZE = {"width": 31}


def recorded_picture(index: int) -> np.ndarray:
    return np.random.default_rng(index).integers(0, 256, (20 + index, SIZE["width"], 3), dtype=np.uint8)


def image_message(index: int, encoding: str = "rgb8", frame: str = "camera") -> Any:
    types, pixels = STORE.types, recorded_picture(index)
    stamp = types["builtin_interfaces/msg/Time"](sec=100 + index, nanosec=7)
    return types["sensor_msgs/msg/Image"](
        header=types["std_msgs/msg/Header"](stamp=stamp, frame_id=frame),
        height=pixels.shape[0],
        width=pixels.shape[1],
        encoding=encoding,
        is_bigendian=0,
        step=pixels.shape[1] * 3,
        data=pixels.reshape(-1),
    )


def record(
    folder: Path,
    frames: int = 6,
    *,
    broken: Sequence[int] = (),
    topics: Sequence[str] = ("/camera/image",),
    storage: Any = StoragePlugin.MCAP,
) -> Path:
    """A recording of image topics and a topic of strings; broken frames have an unknown encoding."""
    image, string = STORE.types["sensor_msgs/msg/Image"], STORE.types["std_msgs/msg/String"]
    with Writer(folder, version=9, storage_plugin=storage) as writer:
        text = writer.add_connection("/said", string.__msgtype__, typestore=STORE)
        made = [writer.add_connection(topic, image.__msgtype__, typestore=STORE) for topic in topics]
        for index in range(frames):
            data = STORE.serialize_cdr(string(data=f"word {index}"), string.__msgtype__)
            writer.write(text, (10 + index) * SECOND - 1, data)
            for number, one in enumerate(made):
                message = image_message(index, "odd" if index in broken else "rgb8", f"camera {number}")
                writer.write(one, (10 + index) * SECOND + number, STORE.serialize_cdr(message, image.__msgtype__))
    return folder


H, W = 48, 64


def filmed_picture(index: int) -> np.ndarray:
    """Blocks of plain colour, which lossy video keeps nearly, brighter from frame to frame."""
    blocks = np.random.default_rng(5).integers(30, 120, (3, 4, 3))
    return (blocks.repeat(16, axis=0).repeat(16, axis=1) + 8 * index).astype(np.uint8)


def film(path: Path, times_s: Sequence[float] = tuple(index / 10 for index in range(10)), *, rate: int = 10) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate, options={"crf": "1", "g": "4"})
        stream.height, stream.width, stream.pix_fmt = H, W, "yuv444p"
        stream.codec_context.time_base = stream.time_base = Fraction(1, 1000)
        for index, time in enumerate(times_s):
            frame = av.VideoFrame.from_ndarray(filmed_picture(index), format="rgb24")
            frame.pts, frame.time_base = round(time * 1000), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path
