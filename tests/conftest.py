"""Fixtures of all test folders; plain helpers stand in `support.py`."""

from __future__ import annotations

import os
import shutil
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch

if not torch.cuda.is_available():  # Triton reads it once, when it is first imported
    os.environ["TRITON_INTERPRET"] = "1"

from support import SMALL_EVA, content_sha256, made_once, published_state, small_model
from tensorrt_bindings import Bindings

from pcaseg.export import graphs
from pcaseg.export.bundle import write_bundle
from pcaseg.export.options import ExportOptions
from pcaseg.model.checkpoint import load_model
from pcaseg.model.network import PCASeg

WORKER = "PYTEST_XDIST_WORKER" in os.environ
if WORKER:
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def thread_per_worker():
    """A worker computes on one thread, and so does what its tests start: the other cores are other workers'.

    A pytest that a test starts is no worker: pytest-benchmark writes nothing in one.
    """
    if not WORKER:
        yield
        return
    make = onnxruntime.InferenceSession.__init__

    def on_one_thread(self, model, sess_options=None, *arguments, **named):
        options = sess_options or onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.intra_op_num_threads or 1
        make(self, model, options, *arguments, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.delenv("PYTEST_XDIST_WORKER")
        patch.setattr(onnxruntime.InferenceSession, "__init__", on_one_thread)
        yield


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory) -> Path:
    """A temporary folder of this run that all workers see; files in it are made by `support.made_once`."""
    base = tmp_path_factory.getbasetemp()
    return (base.parent if WORKER else base) / "shared"


@pytest.fixture(scope="session", autouse=True)
def traced_once(shared_folder):
    """A module that was traced in this run with the same settings is not traced again: most of a minute each time."""
    trace = graphs.trace

    def once(module, signature, options, operators):
        opset = max(options.opset, graphs.OLDEST_TRACED)
        named = sorted(map(str, operators or ())), operators is None
        key = content_sha256((module, signature, opset, options.precision, options.layer_norm, named))
        path = shared_folder / f"{key}.onnx"
        return onnx.load(made_once(path, lambda part: onnx.save(trace(module, signature, options, operators), part)))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(graphs, "trace", once)
        yield


@pytest.fixture(scope="session")
def small() -> PCASeg:
    """The small model, shared: do not change it."""
    return small_model()


@pytest.fixture(scope="session")
def shared_bundle(small, shared_folder) -> Callable[[ExportOptions], Path]:
    """Exports the small model with these options, once a run; bundles are shared: do not change them."""

    def get(options: ExportOptions) -> Path:
        path = shared_folder / f"{zlib.crc32(repr(options).encode()):08x}.pcaseg"
        return made_once(path, lambda part: write_bundle(small, part, options=options))

    return get


@pytest.fixture(scope="session")
def copy_bundle(shared_bundle) -> Callable[..., Path]:
    """Puts a bundle of the small model, exported with these options, at a path."""
    return lambda path, **options: shutil.copytree(shared_bundle(ExportOptions(**options)), path)


@pytest.fixture(scope="session")
def trained_tiny(shared_folder) -> Path:
    """A bundle of the shipped `tiny`, shared: do not change it."""
    return made_once(shared_folder / "tiny.pcaseg", lambda part: write_bundle(small_model("tiny"), part))


@pytest.fixture(scope="session")
def tiny_shortlist(shared_folder) -> Path:
    """A bundle of the shipped `tiny` with a shortlist of 6, shared: do not change it."""
    options = ExportOptions(shortlist=6)
    return made_once(
        shared_folder / "tiny_shortlist.pcaseg", lambda part: write_bundle(small_model("tiny"), part, options=options)
    )


@pytest.fixture(scope="session")
def golden_model(pytestconfig) -> Callable[[str], PCASeg]:
    """Makes the model of the goldens' `eva_b` or `cat_b`; their weights are kept among what pytest caches."""
    folder = pytestconfig.cache.mkdir("golden-weights")

    def make(names: str) -> PCASeg:
        preset, aggregation = {"eva_b": ("eva-b-384", "parallel"), "cat_b": ("openai-b-384", "serial")}[names]
        return load_model(preset, published_state(names, folder), aggregation=aggregation)

    return make


@pytest.fixture
def small_preset(monkeypatch):
    """Makes the small preset one that a file may name."""
    monkeypatch.setitem(sys.modules["pcaseg.configs"]._PRESETS, SMALL_EVA.name, SMALL_EVA)
    return SMALL_EVA


@pytest.fixture(scope="session")
def real_tensorrt(pytestconfig) -> Bindings:
    """NVIDIA's bindings without libraries; fetched once, and kept among what pytest caches."""
    return Bindings(pytestconfig.cache.mkdir("tensorrt-bindings"))
