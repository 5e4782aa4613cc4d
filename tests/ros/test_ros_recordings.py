"""Labels of a recording, read by ROS 2's own deserialiser."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed here; run make test-ros")
from mcap.reader import make_reader
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import Image
from vision_msgs.msg import LabelInfo

sys.path.append(str(Path(__file__).parents[1]))
from support_sources import record, recorded_picture

from pcaseg.runtime.recorded_labels import segment_recording


@pytest.mark.parametrize("out", ["labels.mcap", "labels"])
def test_rclpy_reads_the_labels_of_a_recording(segmenter, tmp_path, out):
    segment_recording(segmenter, record(tmp_path / "drive"), tmp_path / out)
    (file,) = [tmp_path / out] if out.endswith(".mcap") else (tmp_path / out).glob("*.mcap")
    with file.open("rb") as stream:
        messages = [(channel.topic, message.data) for _, channel, message in make_reader(stream).iter_messages()]
    images = [deserialize_message(data, Image) for topic, data in messages if topic == "/camera/image/labels"]
    assert len(images) == 6
    for index, image in enumerate(images):
        assert (image.header.stamp.sec, image.header.frame_id, image.encoding) == (100 + index, "camera 0", "mono8")
        labels = np.frombuffer(image.data, np.uint8).reshape(image.height, image.width)
        np.testing.assert_array_equal(labels, segmenter(recorded_picture(index)).labels)
    (legend,) = [deserialize_message(data, LabelInfo) for topic, data in messages if topic.endswith("label_info")]
    assert tuple(one.class_name for one in legend.class_map) == segmenter.vocabulary.names
