"""Fixtures of the ROS 2 node's tests."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import pytest
from publisher import CLASSES

_domains = itertools.count()


def pytest_addoption(parser) -> None:
    parser.addoption("--bundle", type=Path, help="bundle of tiny that the ROS 2 node opens")


@pytest.fixture(scope="session")
def bundle(pytestconfig) -> Path:
    return pytestconfig.getoption("--bundle")


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
