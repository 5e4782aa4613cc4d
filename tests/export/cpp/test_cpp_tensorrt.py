"""The C++ backend for TensorRT: it compiles over every version's headers, links, and says what it lacks.

`PCASEG_TENSORRT_HEADERS` names a folder with one folder of headers for each version, as NVIDIA's public repository has
them under its tags, and `PCASEG_CUDA_HEADERS` the CUDA runtime's, for which there is a stand-in. Nothing here runs an
engine: CUDA and TensorRT themselves are stand-ins too.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from build import SOURCES, run

from pcaseg.runtime.bundle import Bundle
from pcaseg.runtime.engines import EngineKey, EngineSidecar, ShapeProfile

STAND_IN = Path(__file__).parent / "stand_in"
KIND = {"hardware": "this-gpu", "version_compatible": False, "weight_stripped": False, "optimization_level": None}
KIND |= {"plugins": None, "calibration": None}
NAMED = "PCASEG_TENSORRT_HEADERS"


def versions() -> list[Path]:
    named = os.environ.get(NAMED)
    return sorted(path.parent for path in Path(named).glob("*/NvInferRuntime.h")) if named else []


pytestmark = pytest.mark.skipif(not versions(), reason=f"{NAMED} names no folder of TensorRT's headers")


@pytest.mark.parametrize("include", versions(), ids=lambda path: path.name)
def test_it_compiles_over_tensorrts_headers(include):
    cuda = os.environ.get("PCASEG_CUDA_HEADERS", STAND_IN)
    flags = ["-std=c++17", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", f"-I{SOURCES / 'include'}"]
    run("g++", *flags, "-isystem", include, "-isystem", cuda, SOURCES / "src/tensorrt/tensorrt_backend.cpp")


@pytest.fixture(scope="module")
def program(builder, tmp_path_factory) -> Path:
    """`pcaseg-segment` with both backends, over stand-ins of CUDA and TensorRT."""
    folder = tmp_path_factory.mktemp("stand_in")
    libraries = [folder / f"lib{name}.so" for name in ("nvinfer", "cudart")]
    for library in libraries:
        run("g++", "-std=c++17", "-shared", "-fPIC", STAND_IN / "gpu.cpp", "-o", library)
    settings = ["-DPCASEG_TENSORRT=ON", f"-DTENSORRT_INCLUDE_DIR={versions()[-1]}", f"-DCUDART_INCLUDE_DIR={STAND_IN}"]
    settings += [f"-DTENSORRT_LIBRARY={libraries[0]}", f"-DCUDART_LIBRARY={libraries[1]}"]
    return builder.build("tensorrt", *builder.onnxruntime(), *settings) / "pcaseg-segment"


def said(program: Path, *words: str | Path, gpus: int = 1) -> str:
    """What the program refuses to run with."""
    done = subprocess.run([program, *words], input=b"", capture_output=True, env=os.environ | {"GPUS": str(gpus)})
    assert done.returncode == 2 and done.stderr.count(b"\n") == 1, done.stderr
    return done.stderr.decode().removeprefix("error: ").strip()


def test_without_a_gpu(program, bundle, vocabulary, tmp_path):
    words = [bundle("logits"), vocabulary, tmp_path, "--backend"]
    mend = "install NVIDIA's driver, or take the backend onnxruntime"
    assert said(program, *words, "tensorrt", gpus=0) == f"tensorrt: finds no usable GPU (no driver); {mend}"
    assert said(program, *words, "cuda") == "backend='cuda': choose one of onnxruntime, tensorrt"


def test_engines_that_are_none(program, bundle, vocabulary, tmp_path):
    """None, of another graph or precision, and a plan that is not what its sidecar vouches for."""
    path = shutil.copytree(bundle("logits"), tmp_path / "scene.pcaseg")
    words = [path, vocabulary, tmp_path, "--backend", "tensorrt"]
    none = (
        f"{path}/engines: holds no TensorRT engine of the bundle's main graph, with its weights and without plugins; "
    )
    none += f"run: pcaseg build {path}"
    assert said(program, *words) == none
    shapes = {"image": ((1, 3, 96, 96),) * 3, "text": ((1, 64), (1, 64), (256, 64))}
    graph = Bundle(path).manifest.files["segmenter.onnx"].sha256
    key = EngineKey(
        "tensorrt", "main", graph, 1, "fp32", (ShapeProfile("one", shapes),), "10.13.3.9", "8.7", "Orin", **KIND
    )
    plan, engines = b"a plan", path / "engines"
    sidecar = EngineSidecar(key, hashlib.sha256(plan).hexdigest(), len(plan), {}, None, 1.0, "2026-01-01", {})
    engines.mkdir()
    others = {"graph": "large", "precision": "int8", "onnx_sha256": "0" * 64, "runtime": "rtx", "plugins": "library-1"}
    for name, value in (*others.items(), ("weight_stripped", True)):
        other = dataclasses.replace(sidecar, key=dataclasses.replace(key, **{name: value}))
        (engines / f"{name}.json").write_text(other.to_json())
        (engines / f"{name}.plan").write_bytes(plan)
    assert said(program, *words) == none
    (engines / "main.json").write_text(sidecar.to_json())
    assert f"{engines}/main.plan: cannot be read (No such file or directory)" in said(program, *words)
    (engines / "main.plan").write_bytes(b"A plan")
    assert f"{engines}/main.plan: differs from what was built" in said(program, *words)
    for text in ("", "[]", '{"schema_version": 1}', '{"schema_version": 2, "key": {}}'):
        (engines / "main.json").write_text(text)
        assert f"{engines}/main.json: no sidecar of an engine (" in said(program, *words)
