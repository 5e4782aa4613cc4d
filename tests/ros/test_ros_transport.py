"""Frames of 640 x 480 pixels through the transport, with the project's profile of shared memory and without."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from ros_support import HERE, SHARED_MEMORY

RECEIVER = """
import json, sys, time
sys.path.insert(0, {here!r})
import rclpy
from publisher import picture, quality
from sensor_msgs.msg import Image
rclpy.init()
node, came, wrong = rclpy.create_node("receiver"), [], []
def take(message):
    number = message.header.stamp.nanosec
    came.append(number)
    if bytes(message.data) != picture(number, (480, 640)).tobytes():
        wrong.append(number)
node.create_subscription(Image, "/camera/image_raw", take, quality({qos!r}, 10))
last = time.monotonic() + 30
while time.monotonic() < last:
    before = len(came)
    rclpy.spin_once(node, timeout_sec=0.2)
    if len(came) > before:
        last = time.monotonic() + 3
print(json.dumps([len(came), len(wrong)]))
"""


def received(robot, qos: str, *, frames: int, rate: float) -> int:
    """How many of these frames came to another process; each that came is whole."""
    code = RECEIVER.format(here=str(HERE), qos=qos)
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as receiver:
        robot.publish(frames, qos=qos, rate=rate, size=(480, 640))
        count, wrong = json.loads(receiver.communicate(timeout=60)[0])
    assert wrong == 0
    return count


@pytest.mark.parametrize("qos", ["reliable", "sensor_data"])
def test_shared_memory_loses_nothing(robot, monkeypatch, qos):
    default = received(robot, qos, frames=150, rate=30)
    monkeypatch.setenv("FASTRTPS_DEFAULT_PROFILES_FILE", str(SHARED_MEMORY))
    print(f"{qos}: {default} of 150 by the default transport")
    assert received(robot, qos, frames=150, rate=30) == 150


def test_the_node_gets_every_frame_by_shared_memory(robot, monkeypatch):
    monkeypatch.setenv("FASTRTPS_DEFAULT_PROFILES_FILE", str(SHARED_MEMORY))
    robot.started(qos="sensor_data", mode="latest")
    robot.publish(90, qos="sensor_data", rate=30, size=(480, 640))
    _, values = robot.health(lambda status, values: int(values["frames received"]) >= 90)
    assert values["frames lost in transport"] == "0"
    assert {(one.height, one.width) for one in robot.came(1)} == {(480, 640)}
