"""Footage of rendered scenes in motion, as a recording of ROS and as a clip, and pictures of what was made of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import av
import numpy as np
from PIL import Image
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from pcaseg.data.scene_sequence import render_sequence
from pcaseg.runtime.overlay import draw_overlay
from pcaseg.runtime.recorded_labels import LABELS, LEGEND
from pcaseg.runtime.recordings import Recording
from pcaseg.runtime.ros_images import image_of

TOPIC = "/camera/image"
FRAMES, RATE, SIDE = 16, 8, 192
SHOWN = 3
"""Frames of a picture."""


def frames() -> Iterator[np.ndarray]:
    """The footage: (S, S, 3) uint8 RGB."""
    for scene in render_sequence(3, frames=FRAMES, speed=0.02, noise=3.0, side=SIDE):
        yield scene.image


def write_recording(path: Path) -> None:
    """A folder of rosbag2 with the footage on `TOPIC`, as a camera's driver would record it."""
    store = get_typestore(Stores.ROS2_JAZZY)
    kind = "sensor_msgs/msg/Image"
    image, header, time = (store.types[name] for name in (kind, "std_msgs/msg/Header", "builtin_interfaces/msg/Time"))
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        topic = writer.add_connection(TOPIC, kind, typestore=store)
        for number, pixels in enumerate(frames()):
            at_ns = number * 10**9 // RATE
            message = image(
                header=header(stamp=time(sec=at_ns // 10**9, nanosec=at_ns % 10**9), frame_id="camera"),
                height=SIDE,
                width=SIDE,
                encoding="bgr8",
                is_bigendian=0,
                step=3 * SIDE,
                data=np.ascontiguousarray(pixels[..., ::-1]).reshape(-1),
            )
            writer.write(topic, at_ns, store.serialize_cdr(message, kind))


def write_clip(path: Path) -> None:
    """A video of the footage."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE, options={"crf": "12"})
        stream.width = stream.height = SIDE
        stream.pix_fmt = "yuv420p"
        for pixels in frames():
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))


def picture_of_recording(recording: Path, labels: Path, picture: Path) -> None:
    """Some frames of a recording under the labels that were recorded for them, with the recorded names."""
    with Recording(recording) as frames_of, Recording(labels) as labels_of:
        (legend,) = (labels_of.decode(one) for one in labels_of.messages([TOPIC + LEGEND]))
        names = [one.class_name for one in legend.class_map]
        pairs = zip(frames_of.messages([TOPIC]), labels_of.messages([TOPIC + LABELS]), strict=True)
        shown = []
        for frame, label in islice(pairs, 0, None, FRAMES // SHOWN):
            told = labels_of.decode(label)
            found = told.data.reshape(told.height, told.width)
            pixels = np.bincount(found.ravel(), minlength=len(names))
            shown.append(draw_overlay(image_of(frames_of.decode(frame)), found, names, pixels))
    _side_by_side(shown).save(picture)


def picture_of_clip(clip: Path, picture: Path) -> None:
    """Some frames of a video."""
    with av.open(str(clip)) as container:
        _side_by_side([one.to_image() for one in islice(container.decode(video=0), 0, None, FRAMES // SHOWN)]).save(
            picture
        )


def _side_by_side(pictures: Sequence[Image.Image]) -> Image.Image:
    whole = Image.new("RGB", (sum(one.width for one in pictures), max(one.height for one in pictures)), "white")
    left = 0
    for one in pictures:
        whole.paste(one, (left, 0))
        left += one.width
    return whole
