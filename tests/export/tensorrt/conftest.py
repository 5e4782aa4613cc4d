"""Bundles whose engines are a test's own, over a fake TensorRT of any version."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
from cuda_fake import FakeDriver
from PIL import Image
from tensorrt_fake import fake_tensorrt

from pcaseg.runtime.bundle import Bundle

OLD = {"opset": 17, "layer_norm": "decomposed"}
FORMS = {"float32": OLD, "float16": OLD | {"precision": "float16"}, "newer": {}}


@pytest.fixture
def bundle(copy_bundle, tmp_path):
    """Copies a bundle, so that its engines are this test's own."""

    def copy(name="float32"):
        path = tmp_path / f"{name}.pcaseg"
        return Bundle(path if path.exists() else copy_bundle(path, **FORMS[name]))

    return copy


@pytest.fixture
def machine(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def install(version="11.4", driver=None):
        driver = driver or FakeDriver()
        module = fake_tensorrt(version, driver)
        monkeypatch.setitem(sys.modules, "tensorrt", module)
        monkeypatch.setattr("pcaseg.export.tensorrt.build.open_driver", lambda device: driver)
        return module

    return install


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(2):
        pixels = np.random.default_rng(i).integers(0, 256, (40, 50, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    return folder


@pytest.fixture(scope="session")
def plan_of():
    """Reads the fake's plan of an engine."""
    return lambda found: json.loads(found.engine.plan.read_bytes())
