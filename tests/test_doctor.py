"""`pcaseg doctor`: what it finds is what happens when a backend is really used."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import shutil
import subprocess
import sys

import onnx
import pytest
import torch
from cuda_fake import FakeDriver
from tensorrt_fake import fake_tensorrt
from tensorrt_listing import RTX

from pcaseg.cli import main
from pcaseg.doctor import diagnose, diagnose_bundle
from pcaseg.runtime import onnxruntime_backend
from pcaseg.runtime.bundle import Bundle


@pytest.fixture(scope="module")
def exported(copy_bundle, tmp_path_factory):
    return copy_bundle(tmp_path_factory.mktemp("doctor") / "small.pcaseg")


def findings() -> dict:
    return {finding.subject: finding for finding in diagnose()}


def test_what_computes_on_the_cpu_is_found():
    found = findings()
    assert found["onnxruntime on cpu"].works and found["torch on cpu"].works
    assert torch.__version__ in found["torch on cpu"].detail
    assert found["torch on cuda"].works == torch.cuda.is_available()


@pytest.mark.parametrize(
    ("package", "subject", "extra"),
    [
        ("onnxruntime", "onnxruntime on cpu", "onnxruntime"),
        ("tensorrt", "tensorrt on cuda", "tensorrt"),
        ("tensorrt_rtx", "tensorrt-rtx on cuda", "tensorrt-rtx"),
        ("tensorrt_rtx", "tensorrt-rtx as a builder", "tensorrt-rtx"),
        ("triton", "Triton kernels on cuda", "triton"),
    ],
)
def test_a_missing_package_is_named_with_its_extra(monkeypatch, package, subject, extra):
    monkeypatch.delitem(sys.modules, "pcaseg.runtime.onnxruntime_backend", raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    found = findings()[subject]
    assert not found.works and package in found.detail and f'pip install ".[{extra}]"' in found.detail
    assert findings()["torch on cpu"].works  # the others are tried all the same


def test_tensorrt_with_and_without_a_gpu(monkeypatch):
    driver = FakeDriver()
    monkeypatch.setattr("pcaseg.doctor.open_driver", lambda device: driver)
    monkeypatch.setitem(sys.modules, "tensorrt", fake_tensorrt("10.13", driver))
    found = findings()["tensorrt on cuda"]
    assert found.works and "TensorRT 10.13" in found.detail and driver.gpu.name in found.detail
    monkeypatch.setitem(sys.modules, "tensorrt", fake_tensorrt("10.13", None))
    found = findings()["tensorrt on cuda"]
    assert not found.works and "finds no usable GPU (CUDA initialization failure" in found.detail


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens without a GPU")
@pytest.mark.skipif(importlib.util.find_spec("cuda") is None, reason="needs the package cuda-python")
def test_no_driver_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", fake_tensorrt("11.4", FakeDriver()))
    found = findings()["tensorrt on cuda"]
    assert not found.works and "no NVIDIA driver can be used here" in found.detail


def test_a_broken_installation_is_a_finding(monkeypatch):
    def broken(device):
        raise OSError("libcudart.so.12: cannot open shared object file")

    monkeypatch.setattr(onnxruntime_backend, "start_provider", broken)
    found = findings()["onnxruntime on cpu"]
    assert not found.works and "libcudart" in found.detail


def test_the_graph_that_is_tried_is_one_node():
    proto = onnx.load_from_string(onnxruntime_backend._ONE_NODE)
    onnx.checker.check_model(proto)
    assert [node.op_type for node in proto.graph.node] == ["Identity"]


def test_a_bundle_runs_with_each(exported, capsys):
    found = {finding.subject: finding for finding in diagnose_bundle(Bundle(exported))}
    assert found["files"].works and "small-eva, logits, float32" in found["files"].detail
    ran = found["runs with onnxruntime"]
    assert ran.works and ran.detail.startswith("as onnxruntime-cpu: encoded 2 names, labelled a frame of 160 x 120 in ")
    assert not found["runs with tensorrt"].works
    assert main(["doctor", str(exported)]) == 0
    out = capsys.readouterr().out
    assert f"\n{exported}\n" in out and "as onnxruntime-cpu" in out


def altered(exported, tmp_path, name, data, *, listed=None):
    """A copy in which a file is another, vouched for by the manifest."""
    copy = tmp_path / "altered.pcaseg"
    shutil.copytree(exported, copy)
    (copy / name).write_bytes(data)
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["files"][name] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    if listed is not None:
        manifest["graphs"][name] = listed
    (copy / "manifest.json").write_text(json.dumps(manifest))
    return copy


@pytest.mark.parametrize("name", ["text_encoder.onnx", "tokenizer.json", "segmenter.onnx"])
def test_every_part_is_tried(exported, tmp_path, capsys, name):
    copy = altered(exported, tmp_path, name, b"{}")
    found = {finding.subject: finding for finding in diagnose_bundle(Bundle(copy))}
    assert found["files"].works and not found["runs with onnxruntime"].works
    assert name.partition(".")[0].partition("_")[0] in found["runs with onnxruntime"].detail
    assert main(["doctor", str(copy)]) == 1


@pytest.mark.long
def test_a_graph_for_engines_alone_is_read(exported, tmp_path):
    whole = (exported / "text_encoder.onnx").read_bytes()
    nodes = len(onnx.load_from_string(whole).graph.node)
    for data, count, said in ((whole, nodes, f"{nodes} nodes"), (whole, 3, "not 3 as"), (whole[:-9], 3, "cannot be")):
        name = "segmenter.plugins.onnx"
        copy = altered(exported, tmp_path / said, name, data, listed={"nodes": count, "operators": {"Mul": count}})
        found = {finding.subject: finding for finding in diagnose_bundle(Bundle(copy))}[f"graph {name}"]
        assert said in found.detail and found.works == (said == f"{nodes} nodes")
        assert main(["doctor", str(copy)]) == (0 if found.works else 1)


def test_a_damaged_bundle_fails(exported, tmp_path, capsys):
    copy = tmp_path / "copy.pcaseg"
    shutil.copytree(exported, copy)
    (copy / "tokenizer.json").write_text("{}")
    assert main(["doctor", str(copy)]) == 1
    assert "tokenizer.json differs from the manifest" in capsys.readouterr().out
    assert main(["doctor", str(tmp_path / "nowhere.pcaseg")]) == 2


def test_a_builder_alone_runs_nothing(monkeypatch, capsys):
    for name in ("torch", "onnxruntime", "openvino", "tensorrt"):
        monkeypatch.delitem(sys.modules, f"pcaseg.runtime.{name}_backend", raising=False)
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", fake_tensorrt(RTX, None))
    assert main(["doctor"]) == 1
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("yes")]
    assert len(lines) == 1 and "tensorrt-rtx as a builder" in lines[0]
    assert "7.5, 8.0, 8.6, 8.9, 12.0, 12.1; needs no GPU" in lines[0]


def test_without_any_backend_it_says_so():
    code = (
        "import sys\n"
        "for name in ('torch', 'onnxruntime', 'openvino', 'tensorrt', 'tensorrt_rtx'): sys.modules[name] = None\n"
        "from pcaseg.cli import main; sys.exit(main(['doctor']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1 and "yes" not in done.stdout and done.stderr == ""
