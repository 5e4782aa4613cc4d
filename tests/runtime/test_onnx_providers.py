"""NVIDIA's plugin for ONNX Runtime as a device: what is missing is said; sessions are made on the plugin's device."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import onnxruntime
import pytest

from pcaseg.errors import MissingDependencyError, PcasegError
from pcaseg.runtime.bundle import Bundle
from pcaseg.runtime.onnx_providers import Provider, open_provider
from pcaseg.runtime.onnxruntime_backend import OnnxRuntimeBackend

PACKAGE = "onnxruntime_ep_nv_tensorrt_rtx"
with_plugins = pytest.mark.skipif(
    not hasattr(onnxruntime, "get_ep_devices"), reason="this ONNX Runtime takes no plugins; 1.24 does"
)


def plugin(monkeypatch: pytest.MonkeyPatch, library: Path, name: str = "Some") -> None:
    found = ModuleType(PACKAGE)
    found.get_ep_name = lambda: name
    found.get_library_path = lambda: str(library)
    monkeypatch.setitem(sys.modules, PACKAGE, found)


def test_without_the_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, PACKAGE, None)
    with pytest.raises(MissingDependencyError, match=r"device='tensorrt-rtx:1': needs .* pip install -U onnxruntime"):
        open_provider("tensorrt-rtx:1")


def test_with_an_older_onnx_runtime(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    plugin(monkeypatch, tmp_path / "libsome.so")
    monkeypatch.delattr(onnxruntime, "register_execution_provider_library", raising=False)
    with pytest.raises(MissingDependencyError, match=r"needs ONNX Runtime 1\.24"):
        open_provider("tensorrt-rtx")


@with_plugins
@pytest.mark.parametrize("runtime", [False, True])
def test_a_library_that_does_not_load(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, runtime: bool) -> None:
    plugin(monkeypatch, tmp_path / "libsome.so")
    (tmp_path / "libsome.so").write_bytes(b"no library")
    if runtime:
        (tmp_path / "libcudart.so.12").write_bytes(b"no library either")
    with pytest.raises(PcasegError, match=r"cannot load libsome\.so \(.+\); install NVIDIA's driver, or choose"):
        open_provider("tensorrt-rtx")


@with_plugins
def test_sessions_run_on_the_listed_device(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, bundle_path: Path) -> None:
    """ONNX Runtime lists its CPU as a device too; that stands for a card's."""
    plugin(monkeypatch, tmp_path / "libsome.so", "CPUExecutionProvider")
    provider = open_provider("tensorrt-rtx:0")
    assert isinstance(provider, Provider) and provider.device.ep_name == "CPUExecutionProvider"
    with pytest.raises(PcasegError, match=r"tensorrt-rtx:7'.* sees \d RTX cards; choose another"):
        open_provider("tensorrt-rtx:7")
    backend = OnnxRuntimeBackend.open(Bundle(bundle_path), device="tensorrt-rtx")
    assert backend.name == "onnxruntime-tensorrt-rtx"
    images, text = np.ones((1, 3, 32, 32), np.float32), np.eye(2, 6, dtype=np.float32)
    usual = OnnxRuntimeBackend.open(Bundle(bundle_path))
    np.testing.assert_array_equal(backend.logits(images, text), usual.logits(images, text))


@pytest.mark.rtx
@with_plugins
def test_the_real_plugin_wants_a_driver() -> None:
    pytest.importorskip(PACKAGE, reason="pip install onnxruntime-ep-nv-tensorrt-rtx-cu12")
    try:
        assert open_provider("tensorrt-rtx").device is not None  # where there is a card
    except PcasegError as error:
        assert "libcuda.so.1" in str(error) or "sees 0 RTX cards" in str(error)
