"""What of the ROS 2 node needs no ROS: parameters, the queue before the stream, counts; and its package's files."""

from __future__ import annotations

import re
import threading
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml
from pcaseg_ros.inbox import Inbox, Pace
from pcaseg_ros.parameters import (
    SETTINGS,
    check_changes,
    completed,
    of_type,
    segmenter_options,
    vocabulary_of,
)
from pcaseg_ros.tally import ERROR, OK, PATIENCE_S, WARN, Tally

from pcaseg.errors import PcasegError
from pcaseg.runtime import Frame

PACKAGE = Path(__file__).parents[2] / "examples" / "ros2" / "pcaseg_ros"
DEFAULTS = {name: setting.default for name, setting in SETTINGS.items()}
SET = DEFAULTS | {"bundle": "scene.pcaseg", "classes": "cat, dog"}


def refused(changes: dict, *, values: dict = SET, configured: bool = False) -> str:
    with pytest.raises(PcasegError) as error:
        check_changes(changes, values, configured=configured)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"backend": "cuda"}, "backend='cuda': choose one of onnxruntime"),
        ({"strategy": "tiled"}, "strategy='tiled': choose one of single, sliding"),
        ({"input": "Raw"}, "input='Raw': choose one of raw, compressed"),
        ({"mode": ""}, "mode='': choose one of latest, every"),
        ({"qos": "best_effort"}, "qos='best_effort': choose one of reliable, sensor_data"),
        ({"depth": 0}, "depth=0: give 1 to 1000"),
        ({"threads": -1}, "threads=-1: give 0 to 1024"),
        ({"threads": 10**12}, "threads=1000000000000: give 0 to 1024"),
        ({"shortlist": -3}, "shortlist=-3: give 0 or more"),
        ({"bits": 17}, "bits=17: give 8 to 16"),
        ({"smooth": 1.0}, "smooth=1.0: give the weight"),
        ({"max_rate": float("nan")}, "max_rate=nan: give 0 or more"),
        ({"max_rate": float("inf")}, "max_rate=inf: give 0 or more"),
        ({"classes": "cat, , dog"}, "classes"),
        ({"vocabulary": "names.txt"}, "names.txt"),
        ({"vocabulary": "voc"}, "voc: neither a .txt"),
    ],
)
def test_bad_values_are_one_sentence(changes, sentence):
    assert sentence in refused(changes)


def test_only_what_is_live_changes_while_configured():
    for name, setting in SETTINGS.items():
        other = {bool: True, str: "cat", int: 8, float: 0.5}[type(setting.default)]
        if not setting.live:
            assert refused({name: other}, configured=True).startswith(f"{name}: is read when the node is configured")
    check_changes({"bundle": SET["bundle"], "max_rate": 5.0}, SET, configured=True)
    assert "both empty" in refused({"classes": ""}, configured=True)
    assert "both set" in refused({"vocabulary": "ade20k_150"}, configured=True)
    check_changes({"vocabulary": "ade20k_150"}, SET, configured=False)


def test_one_name_of_the_classes_empties_the_other():
    assert completed({"classes": "cat"}) == {"classes": "cat", "vocabulary": ""}
    assert completed({"vocabulary": "ade20k_150"}) == {"vocabulary": "ade20k_150", "classes": ""}
    assert completed({"classes": "cat", "vocabulary": "ade20k_150"}) == {"classes": "cat", "vocabulary": "ade20k_150"}
    assert completed({"classes": "", "depth": 3}) == {"classes": "", "depth": 3}


def test_types_are_those_of_the_defaults():
    assert of_type(SETTINGS["max_rate"], 3) == 3.0
    for name, value in (("max_rate", "3"), ("depth", 3.0), ("overlay", 1), ("bundle", ["a"]), ("threads", True)):
        with pytest.raises(PcasegError, match=f"{name}: got .* which is no"):
            of_type(SETTINGS[name], value)


def test_what_the_segmenter_is_opened_with():
    assert segmenter_options(SET | {"threads": 2, "device": "cpu"}) == {
        **{"backend": "onnxruntime", "device": "cpu", "threads": 2, "strategy": None, "bits": None, "shortlist": None}
    }
    with pytest.raises(PcasegError, match="bundle: is empty"):
        segmenter_options(DEFAULTS)
    assert vocabulary_of(SET | {"classes": "car: wheel"}).names == ("car", "car wheel")
    assert vocabulary_of(DEFAULTS | {"vocabulary": "ade20k_150"}) == "ade20k_150"


def test_the_oldest_frame_goes_for_a_new_one_and_closing_ends_the_stream():
    inbox, found = Inbox(2), []
    assert [inbox.put(Frame(None, number)) for number in range(4)] == [0, 0, 1, 1]
    assert [next(inbox).timestamp, next(inbox).timestamp] == [2, 3]
    reader = threading.Thread(target=lambda: found.extend(frame.timestamp for frame in inbox))
    reader.start()
    inbox.put(Frame(None, 4))
    while not found:
        pass
    inbox.close()
    reader.join(5)
    assert found == [4] and not reader.is_alive() and inbox.put(Frame(None, 5)) == 0


@pytest.mark.parametrize(("max_rate", "taken"), [(0, 90), (20, 60), (30, 90), (7, 22), (1, 3), (100, 90)])
def test_the_rate_is_kept_evenly(max_rate, taken):
    pace = Pace()
    assert abs(sum(pace.takes(number / 30, max_rate) for number in range(90)) - taken) <= 1


def test_health_tells_the_worst_of_the_last_period():
    tally = Tally("/image", 0.0)
    for number in range(10):
        tally.came(number / 10)
        tally.labelled(10.0 * (number + 1))
    health = tally.health(1.0, 1)
    assert (health.level, health.message) == (OK, "10.0 frames per second")
    assert (health.values["latency ms p50"], health.values["frames labelled"]) == ("55.0", "10")
    tally.count("overtaken", 3)
    assert tally.health(2.0, 1).level == OK  # as mode latest should
    tally.count("lost", 2)
    assert tally.health(3.0, 1).message == "2 frames lost in transport"
    tally.failed("no picture")
    assert tally.health(3.5, 1).level == ERROR
    late = tally.health(0.9 + PATIENCE_S + 0.1, 0)
    assert (late.level, late.message) == (WARN, "no frame of /image for 3 s; nothing publishes there")
    assert late.values["last error"] == "no picture"


def test_the_page_has_every_parameter():
    page = (PACKAGE.parents[2] / "docs" / "ros2.md").read_text(encoding="utf-8")
    first = re.findall(r"^\| (.+?) \|", page.split("## Parameters")[1].split("##")[0], re.MULTILINE)
    assert set(re.findall(r"`(\w+)`", "".join(first))) == set(SETTINGS)


def test_the_packages_files_agree():
    written = yaml.safe_load((PACKAGE / "config" / "pcaseg.yaml").read_text(encoding="utf-8"))
    assert written["/**"]["ros__parameters"] == DEFAULTS
    described = ElementTree.parse(PACKAGE / "package.xml").getroot()
    setup = (PACKAGE / "setup.py").read_text(encoding="utf-8")
    assert f'NAME = "{described.findtext("name")}"' in setup and f'"{described.findtext("version")}"' in setup
    assert described.findtext("export/build_type") == "ament_python"
    assert (PACKAGE / "resource" / "pcaseg_ros").is_file()
