"""Fixtures of the ROS 2 node's tests."""

from __future__ import annotations

import itertools
import os
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "examples" / "ros2" / "pcaseg_ros"))  # behind where it is installed

from publisher import CLASSES

_domains = itertools.count()


def pytest_addoption(parser) -> None:
    parser.addoption("--bundle", type=Path, help="bundle of tiny that the ROS 2 node opens")


@pytest.fixture(scope="session")
def bundle(pytestconfig) -> Path:
    path = pytestconfig.getoption("--bundle", default=None)
    if path is None:
        pytest.skip("a bundle is needed: run make test-ros")
    return path


@pytest.fixture(scope="session")
def segmenter(bundle):
    """What the node's labels are held to."""
    from pcaseg import Segmenter

    with Segmenter(bundle, threads=1) as segmenter:
        segmenter.set_vocabulary([name.strip() for name in CLASSES.split(",")])
        yield segmenter


@pytest.fixture
def robot(tmp_path, bundle):
    """A ROS graph of this test alone, on the loopback."""
    from ros_support import Robot

    with Robot(1 + (os.getpid() + next(_domains)) % 100, tmp_path, bundle) as robot:
        yield robot
