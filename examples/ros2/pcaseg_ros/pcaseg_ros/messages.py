"""Messages that the node publishes."""

from __future__ import annotations

import array
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus, KeyValue
from sensor_msgs.msg import Image
from std_msgs.msg import Header, String

from pcaseg.runtime import Result
from pcaseg.runtime.ros_images import encode_labels
from pcaseg_ros.tally import Health

try:
    from vision_msgs.msg import LabelInfo, VisionClass
except ImportError:
    LabelInfo = None

LEGEND_TYPE = LabelInfo or String
"""`vision_msgs/LabelInfo`, or where that package is not installed its fields as JSON."""


def labels_message(result: Result, header: Header) -> Image:
    """The class of each pixel: `mono8` up to 255 classes, else `16UC1`."""
    return _image(header, result.labels.shape, *encode_labels(result.labels, classes=len(result.classes)))


def confidence_message(result: Result, header: Header) -> Image:
    """The score of each pixel's class, 0 to 1: `32FC1`."""
    scores = np.ascontiguousarray(result.confidence, dtype="<f4")
    return _image(header, scores.shape, "32FC1", scores.strides[0], scores.tobytes())


def overlay_message(result: Result, header: Header) -> Image:
    """The image under the colours of its classes, with their names: `rgb8`."""
    picture = np.asarray(result.overlay().convert("RGB"))
    return _image(header, picture.shape, "rgb8", picture.strides[0], picture.tobytes())


def legend_message(names: Sequence[str], header: Header) -> Any:
    """Numbers and names of the classes, a message of `LEGEND_TYPE`; they hold for labels from the header's stamp on."""
    if LabelInfo is None:
        classes = [{"class_id": index, "class_name": name} for index, name in enumerate(names)]
        stamp = {"sec": header.stamp.sec, "nanosec": header.stamp.nanosec}
        fields = {"header": {"stamp": stamp, "frame_id": header.frame_id}, "class_map": classes, "threshold": 0.0}
        return String(data=json.dumps(fields, ensure_ascii=False))
    classes = [VisionClass(class_id=index, class_name=name) for index, name in enumerate(names)]
    return LabelInfo(header=header, class_map=classes, threshold=0.0)


def diagnostic_status(name: str, hardware: str, health: Health) -> DiagnosticStatus:
    """The node's health, as `/diagnostics` holds it."""
    values = [KeyValue(key=key, value=value) for key, value in health.values.items()]
    level = bytes([health.level])
    return DiagnosticStatus(level=level, name=name, message=health.message, hardware_id=hardware, values=values)


def _image(header: Header, shape: Sequence[int], encoding: str, step: int, data: bytes) -> Image:
    message = Image(header=header, height=shape[0], width=shape[1], encoding=encoding, is_bigendian=0, step=step)
    message.data = array.array("B", data)  # the one type that rclpy takes without looking at each byte
    return message
