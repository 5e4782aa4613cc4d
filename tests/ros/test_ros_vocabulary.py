"""The vocabulary changes while frames flow: by parameter, topic and file; the legend says from which frame on."""

from __future__ import annotations

import json

import numpy as np
from publisher import picture
from ros_support import LATCHED, WARM, WITHOUT_VISION_MSGS, LabelInfo, Robot, String, Trigger, number_of, pixels

SIZE = (96, 128)
FIRST = ["sky", "grass", "red car", "house"]


def legend_of(robot: Robot, number: int) -> list[str]:
    """Names that hold for a frame: of the legends not behind it, the last."""
    first = [0 if one.header.stamp.sec == 0 or number_of(one) == WARM else number_of(one) for one in robot.legends]
    held = [one for one, begin in zip(list(robot.legends), first, strict=False) if begin <= number]
    return [entry.class_name for entry in held[-1].class_map]


def check(robot: Robot, segmenter, count: int) -> None:
    """Holds every frame's labels to those of the names that its legend says."""
    for index, one in enumerate(robot.came(count)):
        assert number_of(one) == index
        right = segmenter(picture(index, SIZE), vocabulary=legend_of(robot, index)).labels
        assert np.array_equal(pixels(one), right), index


def names_now(robot: Robot) -> list[str]:
    return [entry.class_name for entry in robot.legends[-1].class_map]


def test_it_changes_while_frames_flow(robot, segmenter, tmp_path):
    file = tmp_path / "names.txt"
    file.write_text("road\nsand\nsky\n", encoding="utf-8")
    robot.listen(LabelInfo, "/pcaseg/label_info", robot.legends, LATCHED)
    robot.started(depth=400)
    camera = robot.camera(150, rate=15)
    chosen = [FIRST]
    robot.came(10)
    assert robot.set(classes="blue thing, red thing") == ""
    chosen.append(["blue thing", "red thing"])
    robot.wait(lambda: names_now(robot) == chosen[-1])
    robot.tell("/pcaseg/set_classes", "car: wheel; house")
    chosen.append(["car", "car wheel", "house"])
    robot.wait(lambda: names_now(robot) == chosen[-1])
    assert robot.set(vocabulary=str(file)) == ""
    chosen.append(["road", "sand", "sky"])
    robot.wait(lambda: names_now(robot) == chosen[-1])
    file.write_text("water\nboat\n", encoding="utf-8")
    answer = robot.call(Trigger, "/pcaseg/reload_vocabulary", Trigger.Request())
    assert (answer.success, answer.message) == (True, "water, boat")
    chosen.append(["water", "boat"])
    robot.wait(lambda: names_now(robot) == chosen[-1])
    assert camera.wait(120) == 0
    robot.came(150)
    seen = [legend_of(robot, number) for number in range(150)]
    assert [one for index, one in enumerate(seen) if index == 0 or seen[index - 1] != one] == chosen
    plain = [number for number in range(150) if "car wheel" not in seen[number]]
    for number in plain:
        right = segmenter(picture(number, SIZE), vocabulary=seen[number]).labels
        assert np.array_equal(pixels(robot.came(150)[number]), right), number
    parts = next(number for number in range(150) if number not in plain)
    segmented = segmenter(picture(parts, SIZE), vocabulary="car: wheel; house").labels
    assert np.array_equal(pixels(robot.came(150)[parts]), segmented)


def test_names_that_cannot_be_are_refused_and_the_former_stay(robot, segmenter, tmp_path):
    robot.listen(LabelInfo, "/pcaseg/label_info", robot.legends, LATCHED)
    process = robot.started()
    assert "twice" in robot.set(classes="cat, cat") or "cat" in robot.set(classes="cat, cat")
    assert "none.txt" in robot.set(vocabulary=str(tmp_path / "none.txt"))
    assert "both empty" in robot.set(classes="")
    assert "both set" in robot.set(classes="cat", vocabulary="voc_20")
    (tmp_path / "bad.safetensors").write_bytes(b"none")
    assert "damaged" in robot.set(vocabulary=str(tmp_path / "bad.safetensors"))
    robot.tell("/pcaseg/set_classes", "cat, cat")
    robot.wait(lambda: robot.log().count("cat") >= 1)
    assert process.poll() is None
    robot.publish(3)
    check(robot, segmenter, 3)
    assert names_now(robot) == FIRST


def test_the_legend_waits_for_late_listeners_and_is_json_without_vision_msgs(robot, segmenter):
    robot.started(code=WITHOUT_VISION_MSGS, classes="Straße, red car")
    legends: list[String] = []
    robot.listen(String, "/pcaseg/label_info", legends, LATCHED)
    robot.wait(lambda: legends)
    entries = json.loads(legends[-1].data)["class_map"]
    assert entries == [{"class_id": 0, "class_name": "Straße"}, {"class_id": 1, "class_name": "red car"}]
    assert robot.set(classes="sky, grass") == ""
    robot.publish(1)
    robot.came(1)
    robot.wait(lambda: [one["class_name"] for one in json.loads(legends[-1].data)["class_map"]] == ["sky", "grass"])
    header = json.loads(legends[-1].data)["header"]
    assert header == {"stamp": {"sec": 1000, "nanosec": 0}, "frame_id": "camera_optical"}
