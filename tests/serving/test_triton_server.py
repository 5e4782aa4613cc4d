"""A repository of `pcaseg serve-repository` on the real Triton Inference Server, by its own clients."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from serving_support import LISTS, SCENES, png
from triton_environment import Served, Triton, free_ports, serving

from pcaseg.runtime import Segmenter
from pcaseg.runtime.bundle import Bundle
from pcaseg.serving.inputs import INPUTS
from pcaseg.serving.outputs import OUTPUTS
from pcaseg.serving.triton_config import to_text
from pcaseg.serving.triton_repository import NETWORK_SUFFIX, network_config, write_repository

pytestmark = pytest.mark.triton_server
grpc = pytest.importorskip("tritonclient.grpc", reason="tritonclient[grpc] is not installed")
http = pytest.importorskip("tritonclient.http", reason="tritonclient[http] is not installed")
utils = pytest.importorskip("tritonclient.utils")
CLIENTS = {"http": http, "grpc": grpc}


@pytest.fixture(scope="module")
def triton() -> Triton:
    if lack := Triton.lack():
        pytest.skip(lack)
    return Triton.ready()


@pytest.fixture(scope="module")
def segmenter(trained_tiny) -> Iterator[Segmenter]:
    with Segmenter(trained_tiny, threads=1, window_batch=8) as opened:
        yield opened


@pytest.fixture(scope="module")
def served(triton, trained_tiny, tmp_path_factory) -> Iterator[Served]:
    """A server on `tiny` with two instances."""
    folder = tmp_path_factory.mktemp("triton")
    write_repository(trained_tiny, folder / "repo", instances=2, threads=1, environment=str(triton.folder))
    with serving(triton, folder / "repo", "tiny", folder / "log.txt") as found:
        yield found


@pytest.fixture(params=CLIENTS)
def protocol(request) -> str:
    return request.param


def strings(*values: str | bytes) -> np.ndarray:
    return np.array([value.encode() if isinstance(value, str) else value for value in values], object)


def ask(served, protocol: str, *, model: str = "tiny", outputs=("labels",), parameters=None, **inputs: np.ndarray):
    """The outputs by name."""
    library = CLIENTS[protocol]
    given = []
    for name, values in inputs.items():
        given.append(library.InferInput(name, values.shape, utils.np_to_triton_dtype(values.dtype)))
        given[-1].set_data_from_numpy(values)
    wanted = [library.InferRequestedOutput(name) for name in outputs]
    with library.InferenceServerClient(getattr(served, protocol)) as client:
        found = client.infer(model, given, outputs=wanted, parameters=parameters)
        return {name: found.as_numpy(name) for name in outputs}


def test_what_it_says_of_itself(served, protocol):
    library = CLIENTS[protocol]
    with library.InferenceServerClient(getattr(served, protocol)) as client:
        assert client.is_server_live() and client.is_server_ready() and client.is_model_ready("tiny")
        found = client.get_model_metadata("tiny", **({"as_json": True} if protocol == "grpc" else {}))
    assert {one["name"]: one["datatype"] for one in found["inputs"]} == INPUTS
    assert {one["name"]: one["datatype"] for one in found["outputs"]} == {
        key: kind for key, (kind, _) in OUTPUTS.items()
    }


@pytest.mark.parametrize("names", LISTS, ids=",".join)
def test_frames_get_the_segmenters_labels(served, protocol, segmenter, names):
    found = ask(served, protocol, outputs=OUTPUTS, frames=np.stack(SCENES), classes=strings(*names))
    for index, scene in enumerate(SCENES):
        wanted = segmenter(scene, vocabulary=names)
        assert np.array_equal(found["labels"][index], wanted.labels)
        assert np.allclose(found["confidence"][index], wanted.confidence, atol=1e-5)
    assert [name.decode() for name in found["classes"]] == [*names]
    assert [entry["name"] for entry in json.loads(found["legend"][0])] == [*names]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP"])
def test_files_get_the_segmenters_labels(served, protocol, segmenter, tmp_path, kind):
    data = [png(scene, kind) for scene in SCENES[:2]]
    found = ask(served, protocol, image=strings(*data), classes=strings("car: car wheel", "sky", "grass; lawn"))
    for index, one in enumerate(data):
        (tmp_path / "scene").write_bytes(one)
        wanted = segmenter(tmp_path / "scene", vocabulary=["car: car wheel", "sky", "grass; lawn"])
        assert np.array_equal(found["labels"][index], wanted.labels)


def test_class_lists_and_embeddings(served, protocol, segmenter):
    found = ask(served, protocol, frames=SCENES[0][None], vocabulary=strings("voc_20"))
    assert np.array_equal(found["labels"][0], segmenter(SCENES[0], vocabulary="voc_20").labels)
    given = segmenter.prepare(["car", "sky", "straße"])
    inputs = {"frames": SCENES[1][None], "embeddings": given.embeddings, "classes": strings("a", "b", "straße")}
    found = ask(served, protocol, outputs=("labels", "classes"), **inputs)
    assert np.array_equal(found["labels"][0], segmenter(SCENES[1], vocabulary=given).labels)
    assert found["classes"][2].decode() == "straße"
    with pytest.raises(utils.InferenceServerException, match="encoder"):
        ask(served, protocol, parameters={"encoder_sha256": "0" * 64}, **inputs)


def test_many_at_once_each_with_its_own_names(served, segmenter):
    cases = [(scene, names) for names in LISTS for scene in range(len(SCENES))] * 3
    wanted = {case: segmenter(SCENES[case[0]], vocabulary=case[1]).labels for case in cases}

    def one(numbered: tuple[int, tuple[int, tuple[str, ...]]]) -> bool:
        number, (scene, names) = numbered
        asked = {"frames": SCENES[scene][None], "classes": strings(*names)}
        found = ask(served, ("http", "grpc")[number % 2], **asked)
        return np.array_equal(found["labels"][0], wanted[scene, names])

    with ThreadPoolExecutor(12) as pool:
        assert all(pool.map(one, enumerate(cases)))


NAMES = {"classes": strings("car", "sky")}
FRAME = {"frames": SCENES[0][None]}
BAD = {
    "no image": ({"image": strings(b"no picture")} | NAMES, "image.*format|image.*read"),
    "half an image": ({"image": strings(png(SCENES[0])[:300])} | NAMES, "image"),
    "two sizes": ({"image": strings(png(SCENES[0]), png(SCENES[1][:50]))} | NAMES, "several sizes"),
    "no files": ({"image": strings()} | NAMES, "holds no file|must not be empty|at least one"),
    "three axes": ({"frames": SCENES[0]} | NAMES, "shape"),
    "four channels": ({"frames": np.zeros((1, 9, 9, 4), np.uint8)} | NAMES, "shape"),
    "no pixels": ({"frames": np.zeros((1, 0, 9, 3), np.uint8)} | NAMES, "shape|empty"),
    "floats": ({"frames": np.zeros((1, 9, 9, 3), np.float32)} | NAMES, "data-type|datatype"),
    "both": (FRAME | {"image": strings(png(SCENES[0]))} | NAMES, "either `image`"),
    "neither": (NAMES, "either `image`"),
    "no names": (FRAME, "no class names"),
    "empty list": (FRAME | {"classes": strings()}, "class|name"),
    "empty name": (FRAME | {"classes": strings("car", "")}, "name|class"),
    "names that are no text": (FRAME | {"classes": strings(b"\xff\xfe")}, "UTF-8"),
    "unknown list": (FRAME | {"vocabulary": strings("other")}, "not registered"),
    "a path": (FRAME | {"vocabulary": strings("/etc/passwd")}, "not registered"),
    "other embeddings": (FRAME | NAMES | {"embeddings": np.zeros((2, 5), np.float32)}, "embeddings|vocabulary"),
    "too many names": (FRAME | {"classes": strings(*map(str, range(1025)))}, "1025 names"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_used_gets_a_sentence_and_the_server_lives_on(served, protocol, segmenter, case):
    inputs, said = BAD[case]
    with pytest.raises(utils.InferenceServerException, match=said) as refused:
        ask(served, protocol, **inputs)
    assert "\n" not in refused.value.message() and "Traceback" not in refused.value.message()
    assert refused.value.status() in ("400", "StatusCode.INVALID_ARGUMENT", None)
    found = ask(served, protocol, **FRAME, **NAMES)
    assert np.array_equal(found["labels"][0], segmenter(SCENES[0], vocabulary=["car", "sky"]).labels)
    assert served.process.poll() is None


STAND_IN = """
import json
import pathlib
import numpy as np
import onnxruntime
import triton_python_backend_utils as triton


class TritonPythonModel:
    def initialize(self, args):
        graph = pathlib.Path(args["model_repository"], args["model_version"], "model.onnx")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(graph, options)

    def execute(self, requests):
        responses = []
        for request in requests:
            feeds = {one.name(): one.as_numpy() for one in request.inputs()}
            names = list(request.requested_output_names())
            found = self.session.run(names, feeds)
            responses.append(triton.InferenceResponse([triton.Tensor(*pair) for pair in zip(names, found)]))
        return responses
"""
"""Runs the network's graph as Triton's ONNX Runtime would, which is not in the package."""


@pytest.mark.parametrize("bundle", ["trained_tiny", "tiny_shortlist"])
def test_a_network_of_its_own(triton, bundle, request, tmp_path, protocol):
    """With inputs and outputs as they are configured for GPUs; the backend alone is another."""
    path = request.getfixturevalue(bundle)
    front, network = write_repository(
        path, tmp_path / "repo", model="seg", gpu="cuda", threads=1, environment=str(triton.folder)
    )
    assert network == f"seg{NETWORK_SUFFIX}"
    with Segmenter(path, threads=1) as segmenter:
        config = network_config(Bundle(path), network, "cuda") | {"backend": "python"}
        del config["optimization"]
        config["instance_group"] = []
        config["parameters"] = [{"key": "EXECUTION_ENV_PATH", "value": {"string_value": str(triton.folder)}}]
        (tmp_path / "repo" / network / "config.pbtxt").write_text(to_text(config))
        (tmp_path / "repo" / network / "1" / "model.py").write_text(STAND_IN)
        with serving(triton, tmp_path / "repo", front, tmp_path / "log.txt") as served:
            for names in (LISTS[2], "voc_20"):
                chosen = {"vocabulary": strings(names)} if names == "voc_20" else {"classes": strings(*names)}
                found = ask(served, protocol, model=front, frames=SCENES[0][None], **chosen)
                assert np.array_equal(found["labels"][0], segmenter(SCENES[0], vocabulary=names).labels)


def test_numpy_2_is_refused_at_the_start(triton, trained_tiny, tmp_path):
    environment = triton.with_numpy(tmp_path / "numpy2", "numpy>=2,<3")
    write_repository(trained_tiny, tmp_path / "repo", environment=str(environment))
    command = triton.command(tmp_path / "repo", free_ports())
    run = subprocess.run(command, env=triton.variables(), capture_output=True, text=True, timeout=120)
    assert run.returncode != 0
    assert re.search(r'numpy 2\.\S+: Triton\'s Python backend passes wrong numbers.*pip install "numpy<2"', run.stderr)
