"""Frames of 640 x 480 pixels through the transport, with the project's profile of shared memory."""

from __future__ import annotations

import pytest
from publisher import QOS
from ros_support import Robot
from transport import SHARED_MEMORY, transported


@pytest.mark.parametrize("qos", QOS)
def test_shared_memory_loses_nothing(robot: Robot, qos):
    assert transported("shared_memory", qos, rate=30, frames=150).received == 150


def test_the_default_transport_is_what_reliable_is_for(robot: Robot):
    assert transported("default", "reliable", rate=30, frames=150).received == 150


def test_the_node_counts_what_the_default_transport_loses(robot: Robot):
    robot.started(qos="sensor_data", mode="latest")
    robot.publish(150, qos="sensor_data", rate=30, size=(480, 640))
    _, values = robot.health(lambda status, values: True)
    # the last ones may go unnoticed, and the first ones are of the warm-up
    assert 140 <= int(values["frames received"]) + int(values["frames lost in transport"]) <= 160


def test_the_node_gets_every_frame_by_shared_memory(robot: Robot, monkeypatch):
    monkeypatch.setenv("FASTRTPS_DEFAULT_PROFILES_FILE", str(SHARED_MEMORY))
    robot.started(qos="sensor_data", mode="latest")
    robot.publish(90, qos="sensor_data", rate=30, size=(480, 640))
    _, values = robot.health(lambda status, values: int(values["frames received"]) >= 90)
    assert values["frames lost in transport"] == "0"
    assert {(one.height, one.width) for one in robot.came(1)} == {(480, 640)}
