"""Frames of 640 x 480 pixels from one process to another, with and without the profile of shared memory.

    .venv-ros/bin/python tests/ros/transport.py --out benchmarks/results/transport_ros2.json

in the environment that `make test-ros` leaves.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from publisher import DEPTH, QOS, encoded, quality

from pcaseg.environment import write_rows

HERE = Path(__file__).parent
SHARED_MEMORY = HERE.parents[1] / "examples" / "ros2" / "pcaseg_ros" / "config" / "shared_memory.xml"
SIZE = (480, 640)
QUIET_S = 3.0
"""A receiver that has got a frame ends when none came for so long."""


@dataclass(frozen=True)
class TransportRow:
    """One run.

    Attributes:
        profile: `default` or `shared_memory`.
        qos: of both sides.
        rate: frames per second.
        sent: frames.
        received: of them, whole.
    """

    profile: str
    qos: str
    rate: float
    sent: int
    received: int


def transported(profile: str, qos: str, *, rate: float, frames: int) -> TransportRow:
    """Sends frames from one process to another; where they are, `ROS_DOMAIN_ID` says."""
    variables = dict(os.environ)
    if profile == "shared_memory":
        variables["FASTRTPS_DEFAULT_PROFILES_FILE"] = str(SHARED_MEMORY)
    words = ["--count", str(frames), "--rate", str(rate), "--qos", qos, "--size", *map(str, SIZE)]
    receiver = subprocess.Popen([sys.executable, __file__, "--receive", qos], stdout=subprocess.PIPE, env=variables)
    with receiver:
        subprocess.run([sys.executable, HERE / "publisher.py", *words], check=True, env=variables)
        return TransportRow(profile, qos, rate, frames, int(receiver.communicate(timeout=60)[0]))


def receive(qos: str) -> int:
    """Counts the frames that come whole."""
    import rclpy
    from sensor_msgs.msg import Image

    whole = {encoded(index, SIZE, "rgb8") for index in range(8)}
    rclpy.init()
    node, came = rclpy.create_node("receiver"), []
    node.create_subscription(
        Image, "/camera/image_raw", lambda one: came.append(bytes(one.data)), quality(qos, depth=DEPTH)
    )
    end, before = time.monotonic() + 30, 0
    while time.monotonic() < end:
        rclpy.spin_once(node, timeout_sec=0.2)
        if len(came) > before:
            end, before = time.monotonic() + QUIET_S, len(came)
    node.destroy_node()
    rclpy.shutdown()
    return sum(data in whole for data in came)


def main() -> int:
    """Receives, or measures all and writes the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--receive", choices=QOS, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.receive:
        print(receive(options.receive))
        return 0
    os.environ |= {"ROS_DOMAIN_ID": str(1 + os.getpid() % 100), "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
    rows = [
        transported(profile, qos, rate=rate, frames=int(10 * rate))
        for profile in ("default", "shared_memory")
        for qos in QOS
        for rate in (30.0, 60.0)
    ]
    write_rows(options.out, rows, encoding="rgb8", size=SIZE, rclpy=version("ros-jazzy-rclpy"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
