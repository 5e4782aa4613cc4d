"""Labels that the node publishes are those of `Segmenter`, whatever comes in."""

from __future__ import annotations

import numpy as np
import pytest
from publisher import encoded, message, picture
from ros_support import CompressedImage, Image, QoSProfile, number_of, pixels

from pcaseg.runtime import Vocabulary
from pcaseg.runtime.ros_images import image_of

SIZE = (96, 128)


def decoded(index: int, size: tuple[int, int], encoding: str) -> np.ndarray:
    return image_of(message(index, size, encoding, encoded(index, size, encoding)))


@pytest.mark.parametrize(
    ("encoding", "size", "qos"),
    [("rgb8", SIZE, "reliable"), ("bgr8", (121, 75), "sensor_data"), ("mono8", (60, 200), "reliable")],
)
def test_labels_confidence_and_overlay_are_the_segmenters(robot, segmenter, encoding, size, qos):
    robot.started(qos=qos, overlay=True, confidence=True)
    scores, overlays = [], []
    robot.listen(Image, "/pcaseg/confidence", scores, QoSProfile(depth=100))
    robot.listen(Image, "/pcaseg/overlay", overlays, QoSProfile(depth=100))
    robot.wait(lambda: robot.node.count_publishers("/pcaseg/overlay"))
    before = len(overlays), len(scores)
    robot.wait(lambda: robot.warm_up(qos) or (len(overlays) > before[0] and len(scores) > before[1]))
    robot.publish(4, encoding=encoding, size=size, qos=qos, rate=5)
    labels = robot.came(4)
    assert robot.numbers() == [0, 1, 2, 3]
    for kind in (scores, overlays):
        robot.wait(lambda kind=kind: number_of(kind[-1]) == 3)
    for index, one, score, overlay in zip(range(4), labels, scores[-4:], overlays[-4:], strict=True):
        result = segmenter(decoded(index, size, encoding))
        assert one.encoding == "mono8" and np.array_equal(pixels(one), result.labels)
        assert number_of(score) == index and np.array_equal(pixels(score), result.confidence)
        assert number_of(overlay) == index and np.array_equal(pixels(overlay), np.asarray(result.overlay()))
    assert len({pixels(one).tobytes() for one in labels}) > 1 and len(np.unique(pixels(labels[0]))) > 1


@pytest.mark.parametrize("encoding", ["jpeg", "png"])
def test_compressed_images(robot, segmenter, encoding):
    robot.started(input="compressed")
    assert [name for name, kinds in robot.node.get_topic_names_and_types() if "image_raw" in name] == [
        "/camera/image_raw/compressed"
    ]
    first = robot.node.create_publisher(CompressedImage, "/camera/image_raw/compressed", 1)
    warm = message(1_000_000, SIZE, "png", encoded(0, SIZE, "png"))
    robot.wait(lambda: robot.labels or first.publish(warm), every_s=0.5)
    robot.publish(3, encoding=encoding, topic="/camera/image_raw/compressed")
    for index, one in enumerate(robot.came(3)):
        assert number_of(one) == index
        assert np.array_equal(pixels(one), segmenter(decoded(index, SIZE, encoding)).labels)


def test_more_than_255_classes_take_16_bits(robot, segmenter, tmp_path):
    of = segmenter.vocabulary
    rows = np.random.default_rng(0).normal(size=(300, of.embeddings.shape[1]))
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    names = Vocabulary(tuple(f"thing {number}" for number in range(300)), rows, of.encoder_sha256)
    names.save(tmp_path / "names.safetensors")
    robot.started(classes="", vocabulary=str(tmp_path / "names.safetensors"), mode="latest")
    robot.publish(1)
    for index, one in enumerate(robot.came(1)):
        assert one.encoding == "16UC1"
        assert np.array_equal(pixels(one), segmenter(picture(index, SIZE), vocabulary=names).labels)


def test_what_is_no_picture_is_told_and_the_next_frames_are_labelled(robot, segmenter):
    process = robot.started()
    robot.publish(3, encoding="32FC1")
    _, values = robot.health(lambda status, values: values["frames failed"] == "3")
    sentence = "/camera/image_raw: encoding '32FC1' holds distances, not a picture"
    assert sentence in values["last error"] and sentence in robot.log()
    assert robot.numbers() == [] and process.poll() is None
    robot.publish(2, first=3)
    for index, one in zip((3, 4), robot.came(2), strict=True):
        assert number_of(one) == index and np.array_equal(pixels(one), segmenter(picture(index, SIZE)).labels)
    robot.health(lambda status, values: status.level == b"\x00" or "no frame" in status.message)


def test_compressed_garbage_is_told(robot):
    process = robot.started(input="compressed")
    robot.publish(2, encoding="garbage", topic="/camera/image_raw/compressed")
    _, values = robot.health(lambda status, values: values["frames failed"] == "2")
    assert "/camera/image_raw/compressed: is no readable JPEG or PNG" in values["last error"]
    assert process.poll() is None


def test_300_frames_at_30_a_second_without_loss(robot, segmenter):
    robot.started(depth=400)
    rate = robot.publish(300, rate=30)
    came = robot.came(300, within_s=180)
    assert robot.numbers() == list(range(300)) and rate > 29
    right = {index: segmenter(picture(index, SIZE)).labels for index in range(8)}
    assert all(np.array_equal(pixels(one), right[number_of(one) % 8]) for one in came)
    _, values = robot.health(lambda status, values: int(values["frames labelled"]) >= 300)
    assert [values[key] for key in values if "dropped" in key or "lost" in key] == ["0", "0", "0"]
    print(f"published {rate:.1f} f/s; latency p50 {values['latency ms p50']} ms, p99 {values['latency ms p99']} ms")


@pytest.mark.parametrize(("mode", "depth", "dropped"), [("latest", 100, "overtaken"), ("every", 4, "too many")])
def test_what_is_dropped_is_counted(robot, mode, depth, dropped):
    robot.started(mode=mode, depth=depth)
    robot.publish(120, rate=100)
    robot.wait(lambda: robot.numbers()[-1:] == [119])  # the newest is never the one that goes
    numbers = robot.numbers()
    assert numbers == sorted(set(numbers)) and len(numbers) < 120
    _, values = robot.health(lambda status, values: "frames received" in values)
    gone = {key: int(value) for key, value in values.items() if key.startswith("frames dropped")}
    assert int(values["frames received"]) == int(values["frames labelled"]) + sum(gone.values())
    assert max(gone, key=gone.get).startswith(f"frames dropped, {dropped}")


def test_max_rate_leaves_frames_out(robot):
    robot.started(max_rate=5.0)
    robot.publish(60, rate=30)
    _, values = robot.health(lambda status, values: int(values["frames received"]) >= 60)
    assert 10 <= len(robot.numbers()) <= 13
    assert int(values["frames left out for max_rate"]) >= 60 - 13
    assert robot.set(max_rate=0) == ""  # a whole number is taken, and counts at once
    robot.publish(20, rate=30, first=100)
    robot.wait(lambda: set(range(100, 120)) <= set(robot.numbers()))
