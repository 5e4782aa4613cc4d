"""Model repositories for Triton Inference Server: their configurations against its protobuf, and what is refused."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from pcaseg.cli import main
from pcaseg.errors import MissingDependencyError, PcasegError
from pcaseg.runtime import Segmenter
from pcaseg.runtime.bundle import Bundle
from pcaseg.serving.inputs import INPUTS
from pcaseg.serving.limits import Limits
from pcaseg.serving.outputs import OUTPUTS
from pcaseg.serving.triton_config import to_text
from pcaseg.serving.triton_model import answer, check_numpy

SCENE = np.random.default_rng(0).integers(0, 256, (1, 40, 60, 3), dtype=np.uint8)


def config(folder):
    """The configuration in a model's folder, read as Triton reads it."""
    pytest.importorskip("tritonclient.grpc", reason="tritonclient[grpc] is not installed")
    from google.protobuf import text_format
    from tritonclient.grpc.model_config_pb2 import ModelConfig

    return text_format.Parse((folder / "config.pbtxt").read_text(encoding="utf-8"), ModelConfig())


def described(tensors):
    from tritonclient.grpc.model_config_pb2 import DataType

    return {one.name: (DataType.Name(one.data_type).removeprefix("TYPE_"), list(one.dims)) for one in tensors}


def test_the_models_configuration(trained_tiny, tmp_path, capsys):
    odd = 'C:\\env "neu"\t/straße'
    options = ["--instances", "3", "--threads", "2", "--strategy", "sliding", "--environment", odd, "--pixels", "5000"]
    assert main(["serve-repository", str(trained_tiny), "--out", str(tmp_path / "repo"), *options]) == 0
    assert "tiny; ask tiny" in capsys.readouterr().out
    found = config(tmp_path / "repo" / "tiny")
    assert (found.name, found.backend, found.max_batch_size, found.instance_group[0].count) == ("tiny", "python", 0, 3)
    kinds = {"BYTES": "STRING"}
    assert {name: kind for name, (kind, _) in described(found.input).items()} == {
        name: kinds.get(kind, kind) for name, kind in INPUTS.items()
    }
    assert described(found.output) == {name: (kinds.get(kind, kind), shape) for name, (kind, shape) in OUTPUTS.items()}
    assert all(one.optional for one in found.input)
    given = {key: value.string_value for key, value in found.parameters.items()}
    assert given["EXECUTION_ENV_PATH"] == odd
    assert (given["strategy"], given["threads"], given["pixels"]) == ("sliding", "2", "5000")
    Bundle(tmp_path / "repo" / "tiny" / "1" / "bundle.pcaseg").verify()


@pytest.mark.parametrize("gpu", ["cuda", "tensorrt"])
@pytest.mark.parametrize("bundle", ["trained_tiny", "tiny_shortlist"])
def test_the_networks_configuration_is_the_graphs(bundle, gpu, request, tmp_path):
    path = request.getfixturevalue(bundle)
    assert (
        main(["serve-repository", str(path), "--out", str(tmp_path / "repo"), "--model-name", "s", "--gpu", gpu]) == 0
    )
    found, opened = config(tmp_path / "repo" / "s_network"), Bundle(path)
    assert (found.name, found.backend, found.max_batch_size) == ("s_network", "onnxruntime", 0)
    assert described(found.input) == {"image": ("FP32", [-1, 3, 96, 96]), "text": ("FP32", [-1, 64])}
    assert [*described(found.output)] == [*opened.outputs]
    (way,) = found.optimization.execution_accelerators.gpu_execution_accelerator
    assert way.name == gpu and way.parameters["use_tf32" if gpu == "cuda" else "precision_mode"] in ("0", "FP32")
    graph = tmp_path / "repo" / "s_network" / "1" / "model.onnx"
    assert graph.read_bytes() == opened.read("segmenter.onnx")
    assert not (tmp_path / "repo" / "s" / "1" / "bundle.pcaseg" / "segmenter.onnx").exists()
    assert config(tmp_path / "repo" / "s").parameters["network"].string_value == "s_network"


def test_text_survives_protobufs_reader():
    pytest.importorskip("tritonclient.grpc", reason="tritonclient[grpc] is not installed")
    from google.protobuf import text_format
    from tritonclient.grpc.model_config_pb2 import ModelConfig

    for name in ('"', "\\n", "a\nb\0\x7f", "日本語 \u2028", "'"):
        assert text_format.Parse(to_text({"name": name}), ModelConfig()).name == name


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ("no bundle", "no such bundle"),
        ("full", "exists and is not an empty folder"),
        ("file", "exists and is not an empty folder"),
        ("no text encoder", "lacks text_encoder.onnx"),
        ("damaged", "differs from the manifest"),
        ("name", "model name 'a/b'"),
        ("file in the way", "cannot be written"),
    ],
)
def test_what_is_refused(case, said, trained_tiny, tmp_path, capsys):
    bundle, out, more = tmp_path / "b.pcaseg", tmp_path / "repo", []
    if case != "no bundle":
        shutil.copytree(trained_tiny, bundle)
    if case == "full":
        out.mkdir()
        (out / "kept").write_text("mine")
    elif case == "file":
        out.write_text("mine")
    elif case == "no text encoder":
        manifest = json.loads((bundle / "manifest.json").read_text())
        for key in ("files", "graphs"):
            del manifest[key]["text_encoder.onnx"]
        (bundle / "manifest.json").write_text(json.dumps(manifest))
    elif case == "damaged":
        (bundle / "tokenizer.json").write_text("{}")
    elif case == "name":
        more = ["--model-name", "a/b"]
    elif case == "file in the way":
        (tmp_path / "plain").write_text("")
        out = tmp_path / "plain" / "repo"
    before = sorted(tmp_path.rglob("*"))
    assert main(["serve-repository", str(bundle), "--out", str(out), *more]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and said in line
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.long
def test_a_label_graph_has_its_own_strategy(copy_bundle, tmp_path, capsys):
    bundle = copy_bundle(tmp_path / "labels.pcaseg", graph="labels", strategy="single")
    words = ["serve-repository", str(bundle), "--gpu", "cuda", "--out"]
    assert main([*words, str(tmp_path / "no"), "--strategy", "sliding"]) == 2
    assert "holds 'single'" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert main([*words, str(tmp_path / "empty")]) == 0
    found = described(config(tmp_path / "empty" / "labels_network").input)
    assert found["image"] == ("UINT8", [-1, -1, -1, 3])


def test_answers_are_the_segmenters(trained_tiny):
    with Segmenter(trained_tiny, threads=1) as segmenter:
        names = ["car: car wheel", "sky"]
        asked = {"frames": SCENE, "classes": np.array([name.encode() for name in names], object)}
        found = answer(segmenter, asked, {}, Limits())
        wanted = segmenter(SCENE[0], vocabulary=names)
        assert np.array_equal(found["labels"][0], wanted.labels)
        assert [name.decode() for name in found["classes"]] == [*wanted.classes]
        legend = json.loads(found["legend"][0])
        assert [one.get("object") for one in legend] == [None, "car", None]
        assert [one["label"] for one in legend] == [0, 1, 2]
        for wrong in ({"frames": SCENE}, {**asked, "other": SCENE}, {**asked, "frames": SCENE[..., :2]}):
            with pytest.raises(PcasegError):
                answer(segmenter, wrong, {}, Limits())


@pytest.mark.parametrize("version", ["2.0.0", "2.4.6", "3.0.0rc1", "10.1"])
def test_numpy_2_is_refused(version):
    with pytest.raises(MissingDependencyError, match=r'numpy.*wrong numbers.*"numpy<2"'):
        check_numpy(version)
