"""Fixtures of all test folders; plain helpers stand in `support.py`."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

if not torch.cuda.is_available():  # Triton reads it once, when it is first imported
    os.environ["TRITON_INTERPRET"] = "1"

from support import SMALL_EVA, small_model
from tensorrt_bindings import Bindings

from pcaseg.export.bundle import write_bundle
from pcaseg.export.options import ExportOptions
from pcaseg.model.network import PCASeg


@pytest.fixture(scope="session")
def small() -> PCASeg:
    """The small model, shared: do not change it."""
    return small_model()


@pytest.fixture(scope="session")
def copy_bundle(small, tmp_path_factory) -> Callable[..., Path]:
    """Puts a bundle of the small model at a path, exported with these options once a session."""
    folder, known = tmp_path_factory.mktemp("exported"), {}

    def copy(path: Path, **options: object) -> Path:
        key = ExportOptions(**options)
        if key not in known:
            known[key] = folder / f"{len(known)}.pcaseg"
            write_bundle(small, known[key], options=key)
        return shutil.copytree(known[key], path)

    return copy


@pytest.fixture(scope="session")
def trained_tiny(tmp_path_factory) -> Path:
    """A bundle of the shipped `tiny`, shared: do not change it."""
    path = tmp_path_factory.mktemp("tiny") / "tiny.pcaseg"
    write_bundle(small_model("tiny"), path)
    return path


@pytest.fixture
def small_preset(monkeypatch):
    """Makes the small preset one that a file may name."""
    monkeypatch.setitem(sys.modules["pcaseg.configs"]._PRESETS, SMALL_EVA.name, SMALL_EVA)
    return SMALL_EVA


@pytest.fixture(scope="session")
def real_tensorrt(pytestconfig) -> Bindings:
    """NVIDIA's bindings without libraries; fetched once, and kept among what pytest caches."""
    return Bindings(pytestconfig.cache.mkdir("tensorrt-bindings"))
