"""The node's life: transitions, parameters, bad bundles, ends."""

from __future__ import annotations

import signal

import numpy as np
import pytest
from publisher import picture, quality
from ros_support import LATCHED, Image, LabelInfo, number_of, pixels

SIZE = (96, 128)


def test_a_whole_life(robot, segmenter):
    process = robot.start()
    robot.listen(LabelInfo, "/pcaseg/label_info", robot.legends, LATCHED)
    topics = {"/pcaseg/labels", "/pcaseg/label_info"}
    for turn in range(2):
        assert robot.state() == "unconfigured"
        assert robot.transition("configure") and robot.state() == "inactive"
        assert not robot.node.count_subscribers("/camera/image_raw") and not robot.legends[turn:]
        assert robot.transition("activate") and robot.state() == "active"
        robot.warm_up()
        robot.wait(lambda turn=turn: robot.legends[turn:])
        robot.publish(2, first=10 * turn)
        assert robot.transition("deactivate") and robot.state() == "inactive"
        robot.wait(lambda: not robot.node.count_subscribers("/camera/image_raw"))
        assert robot.transition("cleanup") and robot.state() == "unconfigured"
        robot.wait(lambda: not any(robot.node.count_publishers(topic) for topic in topics))
    assert set(robot.numbers()) <= {0, 1, 10, 11}
    assert robot.transition("configure") and robot.transition("activate") and robot.transition("deactivate")
    assert robot.transition("activate")  # again, without a cleanup
    robot.warm_up()
    robot.publish(3, first=20)
    robot.wait(lambda: robot.numbers()[-1:] == [22])
    assert np.array_equal(pixels(robot.came(1)[-1]), segmenter(picture(22, SIZE)).labels)
    assert robot.transition("deactivate") and robot.transition("shutdown")
    assert robot.state() == "finalized"
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 0


def test_a_node_that_is_killed_is_started_again(robot, segmenter):
    process = robot.started()
    camera = robot.camera(60, rate=10)
    robot.came(5)
    process.kill()
    process.wait()
    before = robot.numbers()[-1]
    robot.listen(LabelInfo, "/pcaseg/label_info", robot.legends, LATCHED)
    again = robot.start(autostart=True)
    assert camera.wait(60) == 0
    robot.wait(lambda: robot.legends)
    robot.warm_up()
    robot.publish(5, first=100)
    robot.wait(lambda: robot.numbers()[-1:] == [104])
    for one in robot.came(1):
        assert np.array_equal(pixels(one), segmenter(picture(number_of(one), SIZE)).labels)
    assert {100, 101, 102, 103, 104} <= set(robot.numbers()) and before < 60
    assert again.poll() is None
    assert "Traceback" not in robot.log()


def test_a_bad_bundle_fails_the_transition_and_can_be_mended(robot, bundle, tmp_path):
    text, empty = tmp_path / "text.pcaseg", tmp_path / "empty.pcaseg"
    text.write_text("no bundle", encoding="utf-8")
    empty.mkdir()
    process = robot.start(bundle="")
    for path in ("", str(tmp_path / "none.pcaseg"), str(text), str(empty)):
        assert robot.set(bundle=path) == ""
        assert not robot.transition("configure")
        assert robot.state() == "unconfigured"
        status, _ = robot.health(lambda status, values: status.level == b"\x02")
        assert (path or "bundle: is empty") in status.message and status.message in robot.log()
        assert "\n" not in status.message
    assert process.poll() is None and "Traceback" not in robot.log()
    assert robot.set(bundle=str(bundle)) == ""
    assert robot.set(backend="tensorrt") == "" and not robot.transition("configure")
    assert robot.set(backend="onnxruntime", smooth=0.5) == ""
    assert robot.transition("configure") and robot.transition("activate")
    status, values = robot.health(lambda status, values: values["state"] == "active")
    assert (values["backend"], values["bundle"]) == ("onnxruntime-cpu", str(bundle))
    assert status.name == "/pcaseg: labels"


def test_what_the_bundle_does_not_hold_fails_the_transition(robot):
    robot.start(shortlist=5)
    assert not robot.transition("configure")
    assert "shortlist=5: the bundle was exported with no shortlist" in robot.log()
    assert robot.set(shortlist=0) == "" and robot.transition("configure")


def test_frames_that_cannot_come_are_told(robot):
    process = robot.start(qos="reliable", autostart=True)
    robot.health(lambda status, values: status.level == b"\x01" and status.message.endswith("nothing publishes there"))
    robot.node.create_publisher(Image, "/camera/image_raw", quality("sensor_data", 1))
    robot.health(lambda status, values: status.message.endswith("its publishers may offer another qos"))
    assert process.poll() is None


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_cleanly_while_frames_flow(robot, how):
    process = robot.started(mode="latest")
    robot.camera(300, rate=30)
    robot.came(5)
    process.send_signal(how)
    assert process.wait(30) == 0, robot.log()
    assert "Traceback" not in robot.log() and "ERROR" not in robot.log()


@pytest.mark.parametrize(
    ("name", "bad", "sentence"),
    [
        ("mode", "newest", "mode='newest': choose one of every, latest"),
        ("qos", 3, "qos: got 3, which is no str; give one"),
        ("classes", "cat, cat", "cat"),
    ],
)
def test_a_bad_value_at_the_start_is_told_and_can_be_mended(robot, name, bad, sentence):
    process = robot.start(**{name: bad})
    assert not robot.transition("configure")
    assert sentence.split(":")[0] in robot.log() and process.poll() is None
    good = {"mode": "every", "qos": "reliable", "classes": "cat, dog"}[name]
    assert robot.set(**{name: good}) == ""
    assert robot.transition("configure"), robot.log()


def test_parameters_describe_themselves_and_refuse_with_one_sentence(robot):
    from pcaseg_ros.parameters import SETTINGS

    process = robot.started()
    described = robot.describe(*SETTINGS)
    assert all(one.description for one in described)
    assert {one.name for one in described} == set(SETTINGS)
    for name, value in {
        "max_rate": -1.0,
        "classes": "cat, cat",
        "bundle": "/other.pcaseg",
        "mode": "latest",
        "overlay": True,
        "depth": 0,
        "threads": "many",
    }.items():
        reason = robot.set(**{name: value})
        assert reason and "\n" not in reason
        assert name in reason or "type" in reason, reason
    assert robot.set(mode="every", max_rate=3) == ""  # as it is; and a whole number
    assert process.poll() is None and robot.state() == "active"
