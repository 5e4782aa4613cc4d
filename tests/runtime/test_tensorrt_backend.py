"""The TensorRT backend over a fake TensorRT of each version: what it computes, and what it does with memory."""

from __future__ import annotations

import importlib
import json
import shutil
import sys
import threading

import numpy as np
import pytest
from cuda_fake import FakeDriver
from tensorrt_fake import fake_tensorrt
from tensorrt_listing import VERSIONS

from pcaseg.errors import EngineError, MissingDependencyError, PcasegError
from pcaseg.export.tensorrt.build import build_engines
from pcaseg.export.tensorrt.builder import BuildOptions
from pcaseg.export.tensorrt.refit import refit
from pcaseg.runtime.backends import open_backend
from pcaseg.runtime.bundle import Bundle
from pcaseg.runtime.cuda import DeviceArray, Gpu
from pcaseg.runtime.onnxruntime_backend import OnnxRuntimeBackend
from pcaseg.runtime.segmenter import Segmenter
from pcaseg.runtime.tensorrt_backend import TensorRTBackend


@pytest.fixture(scope="module")
def exported(copy_bundle, tmp_path_factory):
    return copy_bundle(tmp_path_factory.mktemp("trt") / "small.pcaseg", opset=17, layer_norm="decomposed")


@pytest.fixture
def folder(exported):
    """A bundle without engines."""
    shutil.rmtree(exported / "engines", ignore_errors=True)
    return exported


@pytest.fixture(scope="module")
def label_folder(copy_bundle, tmp_path_factory):
    return copy_bundle(tmp_path_factory.mktemp("trt") / "labels.pcaseg", graph="labels", image_size=(60, 80))


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """Gives a driver of a machine on which that version of TensorRT is installed."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def install(version="11.4"):
        driver = FakeDriver()
        monkeypatch.setitem(sys.modules, "tensorrt", fake_tensorrt(version, driver))
        return driver

    return install


def vocabulary(T: int, seed: int = 0) -> np.ndarray:
    text = np.random.default_rng(seed).standard_normal((T, 64)).astype(np.float32)
    return text / np.linalg.norm(text, axis=1, keepdims=True)


def windows(N: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0, 255, (N, 3, 96, 96)).astype(np.float32)


@pytest.mark.parametrize(
    "version", [VERSIONS[0], *(pytest.param(one, marks=pytest.mark.long) for one in VERSIONS[1:-1]), VERSIONS[-1]]
)
def test_logits_are_those_of_onnx_runtime(folder, machine, version):
    driver = machine(version)
    bundle = Bundle(folder)
    build_engines(bundle, profile="large", driver=driver)
    backend, reference = TensorRTBackend(bundle, driver=driver), OnnxRuntimeBackend(bundle)
    assert backend.name == "tensorrt-fp32"
    sequence = [(1, 20), (1, 20), (1, 20), (2, 7), (1, 20), (5, 20), (1, 300), (1, 1), (1, 20), (1, 20)]
    for step, (N, T) in enumerate(sequence):  # other images each time: a graph that replays stale inputs would show
        images, text = windows(N, step), vocabulary(T, step // 3)
        expected = reference.logits(images, text)
        found = backend.logits(images, text)
        assert found.shape == expected.shape and found.dtype == np.float32
        np.testing.assert_allclose(found, expected, atol=3e-6 * np.abs(expected[expected > -99]).max())
    assert driver.calls.count("launch") >= 2  # (1, 20) was captured
    names = ["cat", "grass", "garden wall"]
    np.testing.assert_allclose(backend.encode_text(names), reference.encode_text(names), atol=1e-6)
    backend.close()
    assert driver.idle()


@pytest.mark.long
def test_labels_and_the_segmenter(label_folder, machine, monkeypatch):
    driver = machine("10.13")
    bundle = Bundle(label_folder)
    build_engines(bundle, driver=driver)
    module = importlib.import_module("pcaseg.runtime.tensorrt_backend")
    monkeypatch.setattr(module, "open_driver", lambda device: driver)
    frame = np.random.default_rng(1).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    results = {}
    for name in ("onnxruntime", "tensorrt"):
        segmenter = Segmenter(label_folder, backend=name)
        for classes in (["cat", "grass"], ["cat", "grass", "snow", "sledge"], ["cat", "grass"]):
            segmenter.set_vocabulary(classes)
            results.setdefault(name, []).append(segmenter(frame))
    for ours, theirs in zip(results["tensorrt"], results["onnxruntime"], strict=True):
        np.testing.assert_array_equal(ours.labels, theirs.labels)
        np.testing.assert_allclose(ours.confidence, theirs.confidence, atol=1e-5)


def test_a_vocabulary_is_uploaded_once(folder, machine):
    driver = machine()
    build_engines(Bundle(folder), driver=driver)
    backend = TensorRTBackend(Bundle(folder), driver=driver)
    text = vocabulary(20)
    backend.logits(windows(1), text)
    driver.calls.clear()
    backend.logits(windows(1, 1), text)
    assert driver.calls.count("copy_in") == 1  # the image alone
    text[3] = -text[3]  # the same array with other numbers is another vocabulary
    changed = backend.logits(windows(1, 1), text)
    assert driver.calls.count("copy_in") == 3
    np.testing.assert_allclose(changed, OnnxRuntimeBackend(Bundle(folder)).logits(windows(1, 1), text), atol=1e-4)


def test_arrays_on_the_gpu_stay_there(folder, machine):
    driver = machine()
    build_engines(Bundle(folder), driver=driver)
    backend = TensorRTBackend(Bundle(folder), driver=driver)
    images, text = windows(1, 5), vocabulary(9)
    address = driver.allocate(images.nbytes)
    driver.bytes(address, images.nbytes)[:] = images.view(np.uint8).ravel()
    found = backend.run_device(DeviceArray(address, images.shape, images.dtype, None), text)["logits"]
    shape, (pointer, _) = found.__cuda_array_interface__["shape"], found.__cuda_array_interface__["data"]
    logits = driver.bytes(pointer, 4 * int(np.prod(shape))).view(np.float32).reshape(shape)
    np.testing.assert_allclose(logits, OnnxRuntimeBackend(Bundle(folder)).logits(images, text), atol=1e-4)
    with pytest.raises(PcasegError, match="not on the GPU"):
        backend.run_device(_Shaped(images.shape), text)
    with pytest.raises(EngineError, match="float64"):
        backend.run_device(DeviceArray(address, images.shape, np.dtype(np.float64), None), text)


class _Shaped:
    def __init__(self, shape):
        self.shape = shape


def test_threads_share_a_backend(folder, machine):
    driver = machine()
    build_engines(Bundle(folder), driver=driver)
    backend = TensorRTBackend(Bundle(folder), driver=driver, contexts=2)
    reference = OnnxRuntimeBackend(Bundle(folder))
    faults = []

    def work(seed):
        for step in range(4):
            images, text = windows(1, seed * 10 + step), vocabulary(5 + seed, seed)
            if not np.allclose(backend.logits(images, text), reference.logits(images, text), atol=1e-4):
                faults.append((seed, step))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults
    backend.close()
    assert driver.idle()


def test_work_that_cannot_be_captured_is_launched(folder, machine):
    driver = machine()
    driver.refuse_capture = True
    build_engines(Bundle(folder), driver=driver)
    backend = TensorRTBackend(Bundle(folder), driver=driver)
    reference = OnnxRuntimeBackend(Bundle(folder))
    for step in range(4):
        images, text = windows(1, step), vocabulary(4)
        np.testing.assert_allclose(backend.logits(images, text), reference.logits(images, text), atol=1e-4)
    assert not driver.graphs


def test_a_stripped_engine_gets_its_weights_when_opened(folder, machine):
    driver = machine("10.13")
    build_engines(Bundle(folder), options=BuildOptions(weight_stripped=True), driver=driver)
    backend = TensorRTBackend(Bundle(folder), refit=refit, driver=driver)
    images, text = windows(1), vocabulary(3)
    expected = OnnxRuntimeBackend(Bundle(folder)).logits(images, text)
    np.testing.assert_allclose(backend.logits(images, text), expected, atol=1e-4)
    (opened,) = backend._open.values()
    assert opened.engine._plan["refitted"]
    with pytest.raises(EngineError, match=r"\.plan: was built with --strip-weights; open it with refit"):
        TensorRTBackend(Bundle(folder), driver=driver).logits(images, text)


def test_engines_of_another_precision_run_where_they_are_asked_for(folder, machine):
    driver = machine()
    build_engines(Bundle(folder), profile="edge", driver=driver)
    with pytest.raises(
        EngineError, match=r"it computes in fp32, not int8; run: .* --precision int8 --calibration FOLDER"
    ):
        TensorRTBackend(Bundle(folder), precision="int8", driver=driver)
    (sidecar,) = (folder / "engines").glob("main-*.json")
    content = json.loads(sidecar.read_text())
    content["key"]["precision"] = "int8"
    sidecar.write_text(json.dumps(content))
    with pytest.raises(EngineError, match="it computes in int8, not fp32"):
        TensorRTBackend(Bundle(folder), driver=driver)
    assert TensorRTBackend(Bundle(folder), precision="int8", driver=driver).name == "tensorrt-int8"


def test_of_equal_engines_the_newest_runs(folder, machine):
    driver = machine()
    build_engines(Bundle(folder), profile="edge", driver=driver)
    (sidecar,) = (folder / "engines").glob("main-*.json")
    content = json.loads(sidecar.read_text())
    for year in (1999, 2999, 2998):
        other = content | {"created": f"{year}-01-01T00:00:00+00:00"}
        (folder / "engines" / f"main-{year}.json").write_text(json.dumps(other))
    backend = TensorRTBackend(Bundle(folder), driver=driver)
    assert backend.engine_in_use(1).sidecar.created.startswith("2999")


def test_engine_times_are_between_events(folder, machine):
    driver = machine()
    build_engines(Bundle(folder), driver=driver)
    backend = TensorRTBackend(Bundle(folder), driver=driver)
    assert backend.engine_times_ms(windows(1), vocabulary(3), calls=4) == [1.0] * 4
    assert not driver.events


def test_refusals_name_the_mend(folder, machine, monkeypatch):
    driver = machine()
    bundle = Bundle(folder)
    build_engines(bundle, profile="edge", driver=driver)
    backend = TensorRTBackend(bundle, driver=driver)
    with pytest.raises(EngineError, match=r"no profile .* covers image 1x3x96x96, text 65x64 .*pcaseg build"):
        backend.logits(windows(1), vocabulary(65))
    with pytest.raises(EngineError, match=r"no TensorRT engine of its large graph.*--profile large"):
        backend.logits(windows(1), vocabulary(300))
    with pytest.raises(EngineError, match=r"built on NVIDIA Test GPU and this is NVIDIA Other"):
        TensorRTBackend(bundle, driver=FakeDriver(Gpu("NVIDIA Other", "9.0")))
    with pytest.raises(EngineError, match=r"compute capability 9.0, not 8.7"):
        TensorRTBackend(bundle, driver=FakeDriver(Gpu("Orin", "8.7")))
    with pytest.raises(PcasegError, match="contexts=0"):
        TensorRTBackend(bundle, driver=driver, contexts=0)
    with pytest.raises(PcasegError, match="CPU threads"):
        open_backend("tensorrt", bundle, threads=2)
    with pytest.raises(PcasegError, match=r"plugin_library='x\.so': is not for the backend 'onnxruntime'"):
        open_backend("onnxruntime", bundle, options={"plugin_library": "x.so"})
    machine("10.13")
    with pytest.raises(EngineError, match=r"built with TensorRT 11\.4.* and this is 10\.13"):
        TensorRTBackend(bundle, driver=driver)


def test_damaged_plans_never_reach_tensorrt(folder, machine, tmp_path):
    driver = machine()
    build_engines(Bundle(folder), profile="edge", driver=driver)
    (plan,) = (folder / "engines").glob("main-*.plan")
    whole = plan.read_bytes()
    for damaged in (whole[:-7], whole[:100] + b"x" + whole[101:], b""):
        plan.write_bytes(damaged)
        with pytest.raises(EngineError, match=r"truncated or altered.*pcaseg build"):
            TensorRTBackend(Bundle(folder), driver=driver).logits(windows(1), vocabulary(2))
    plan.unlink()
    with pytest.raises(EngineError, match="cannot be read"):
        TensorRTBackend(Bundle(folder), driver=driver).logits(windows(1), vocabulary(2))
    (sidecar,) = (folder / "engines").glob("main-*.json")
    sidecar.write_text("{")
    with pytest.raises(EngineError, match=r"main-.*\.json: not readable as JSON"):
        TensorRTBackend(Bundle(folder), driver=driver)
    (rebuilt, _) = build_engines(Bundle(folder), profile="edge", driver=driver)
    assert rebuilt.built and plan.read_bytes() == whole


def test_too_little_device_memory(folder, machine):
    driver = machine()
    build_engines(Bundle(folder), driver=driver)
    backend = TensorRTBackend(Bundle(folder), driver=driver)
    driver.total = 1 << 19
    with pytest.raises(
        EngineError, match=r"a context needs 1 MiB of device memory and 0 MiB are free.*smaller --profile"
    ):
        backend.logits(windows(1), vocabulary(2))


def test_nothing_installed(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(MissingDependencyError, match=r'pip install "\.\[tensorrt\]"'):
        open_backend("tensorrt", Bundle(folder))
    monkeypatch.setitem(sys.modules, "tensorrt", fake_tensorrt("11.4", None))
    monkeypatch.setitem(sys.modules, "cuda.bindings.driver", None)
    with pytest.raises(MissingDependencyError, match="cuda-python"):
        open_backend("tensorrt", Bundle(folder))
    with pytest.raises(PcasegError, match="cuda or cuda:N"):
        open_backend("tensorrt", Bundle(folder), device="cpu")
