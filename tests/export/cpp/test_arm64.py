"""The Python runtime and the C++ program on arm64, under emulation, with the wheels and libraries of a real machine."""

from __future__ import annotations

import subprocess

import numpy as np
import pytest
from emulated import Arm64
from PIL import Image

from pcaseg.cli import main

pytestmark = pytest.mark.arm64


@pytest.fixture(scope="module")
def arm64(pytestconfig) -> Arm64:
    if lack := Arm64.lack():
        pytest.skip(lack)
    machine = Arm64(pytestconfig.cache.mkdir("arm64"))
    machine.prepare()
    return machine


@pytest.fixture
def photo(frame, tmp_path):
    path = tmp_path / "photo.png"
    Image.fromarray(frame(75, 110)).save(path)
    return path


def test_it_is_arm64(arm64):
    said = arm64.python("-c", "import platform, sys, onnxruntime; print(platform.machine(), 'torch' in sys.modules)")
    assert said.split() == ["aarch64", "False"]


@pytest.mark.parametrize("strategy", ["single", "sliding"])
def test_the_python_runtime(arm64, bundle, vocabulary, photo, tmp_path, strategy):
    """`pcaseg segment` writes the label PNG, byte for byte, that it writes here."""
    words = ["segment", str(photo), "--bundle", str(bundle("logits")), "--vocabulary", str(vocabulary)]
    words += ["--strategy", strategy, "--threads", "1"]
    assert main([*words, "--out", str(tmp_path / "here")]) == 0
    arm64.python("-m", "pcaseg", *words, "--out", tmp_path / "there")
    here, there = ((tmp_path / where / "photo_labels.png").read_bytes() for where in ("here", "there"))
    assert here == there
    assert len(np.unique(np.array(Image.open(tmp_path / "here/photo_labels.png")))) > 1


@pytest.mark.parametrize("graph", ["logits", "labels"])
def test_the_cpp_program(arm64, builder, built, bundle, vocabulary, photo, tmp_path, graph):
    """Its label PNG is, byte for byte, the one that the program built for this machine writes."""
    folder = arm64.build(builder)
    pictures = []
    for name, where, start in (("here", built, subprocess.check_output), ("there", folder, None)):
        (tmp_path / name).mkdir()
        command = [where / "pcaseg-segment", bundle(graph), vocabulary, tmp_path / name, "--threads", "1"]
        start(command, input=photo.read_bytes()) if start else arm64.run(*command, stdin=photo.read_bytes())
        pictures.append((tmp_path / name / "000000.png").read_bytes())
    assert pictures[0] == pictures[1]
