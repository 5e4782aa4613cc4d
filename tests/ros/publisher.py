"""Publishes frames in a process of its own: `python publisher.py --help`."""

from __future__ import annotations

import argparse
import array
import io
import json
import sys
import time

import numpy as np
from PIL import Image as Picture

CLASSES = "sky, grass, red car, house"
"""Of the node, unless a test says otherwise."""

FIRST_S = 1000
"""Frame i has the stamp `FIRST_S + i` seconds and i nanoseconds."""

QOS = ("reliable", "sensor_data")
ENCODINGS = ("rgb8", "bgr8", "mono8", "jpeg", "png", "32FC1", "garbage")
"""Of them jpeg, png and garbage are compressed; 32FC1 holds distances, and garbage nothing."""

DEPTH = 200
"""Frames that wait in the transport: so many that a busy computer, which stops a process for seconds, loses none."""

DIFFERENT = 8
"""Pictures; frame i shows picture `i % DIFFERENT`."""


def picture(index: int, size: tuple[int, int]) -> np.ndarray:
    """Blocks of colours, `(height, width, 3)` uint8 RGB, in which `tiny` sees several classes."""
    blocks = np.random.default_rng(index % DIFFERENT).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    rows, columns = (np.arange(length) * count // length for length, count in zip(size, (6, 8), strict=True))
    return np.ascontiguousarray(blocks[rows][:, columns])


def encoded(index: int, size: tuple[int, int], encoding: str) -> bytes:
    """The bytes of a frame's message."""
    rgb = picture(index, size)
    if encoding in ("jpeg", "png"):
        out = io.BytesIO()
        Picture.fromarray(rgb).save(out, format=encoding)
        return out.getvalue()
    pixels = {"rgb8": rgb, "bgr8": rgb[..., ::-1], "mono8": rgb[..., 1], "32FC1": rgb[..., 1].astype(np.float32)}
    return pixels[encoding].tobytes() if encoding in pixels else b"nothing"


def message(index: int, size: tuple[int, int], encoding: str, data: bytes):
    """`sensor_msgs/Image` or `CompressedImage` of a frame."""
    from builtin_interfaces.msg import Time
    from sensor_msgs.msg import CompressedImage, Image
    from std_msgs.msg import Header

    header = Header(stamp=Time(sec=FIRST_S + index, nanosec=index), frame_id="camera_optical")
    if encoding in ("jpeg", "png", "garbage"):
        found = CompressedImage(header=header, format=encoding)
    else:
        step = len(data) // size[0]
        found = Image(header=header, height=size[0], width=size[1], encoding=encoding, step=step)
    found.data = array.array("B", data)
    return found


def quality(name: str, depth: int):
    """The QoS profile of a name in `QOS`."""
    from rclpy.qos import QoSProfile, ReliabilityPolicy

    reliable = name == "reliable"
    policy = ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT
    return QoSProfile(depth=depth, reliability=policy)


def main() -> int:
    """Publishes when somebody listens, and prints frames and seconds as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--topic", default="/camera/image_raw")
    parser.add_argument("--first", type=int, default=0, help="number of the first frame")
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--rate", type=float, default=10.0, help="frames per second")
    parser.add_argument("--size", type=int, nargs=2, default=(96, 128), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--encoding", choices=ENCODINGS, default="rgb8")
    parser.add_argument("--qos", choices=QOS, default="reliable")
    options = parser.parse_args()

    import rclpy
    from rclpy.duration import Duration

    rclpy.init()
    node = rclpy.create_node("camera")
    size, encoding = tuple(options.size), options.encoding
    data = [encoded(index, size, encoding) for index in range(DIFFERENT)]
    kind = type(message(0, size, encoding, data[0]))
    publisher = node.create_publisher(kind, options.topic, quality(options.qos, depth=DEPTH))
    deadline = time.monotonic() + 30
    while not publisher.get_subscription_count():
        if time.monotonic() > deadline:
            sys.exit(f"nobody listens to {options.topic}")
        time.sleep(0.02)
    time.sleep(0.5)  # until the listeners know of it too
    start = time.monotonic()
    for number in range(options.count):
        time.sleep(max(0.0, start + number / options.rate - time.monotonic()))
        index = options.first + number
        publisher.publish(message(index, size, encoding, data[index % DIFFERENT]))
    seconds = time.monotonic() - start
    publisher.wait_for_all_acked(Duration(seconds=30))
    print(json.dumps({"frames": options.count, "seconds": seconds}), flush=True)
    time.sleep(0.5)  # what is sent without acknowledgement is still on its way
    node.destroy_node()
    rclpy.shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
