"""Runs the quick path in an environment of exactly the lowest versions that the package declares.

`python tests/lowest.py runtime` takes the base and ONNX Runtime, without PyTorch, and bundles that the environment of
this interpreter exports; `python tests/lowest.py all` takes every extra, and exports there too. TensorRT's companions
have an environment of their own: the CUDA bindings of their lowest version and of PyTorch's do not go together. Ray is
tried by `make test-ray`, in its newest version alone.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from environments import ROOT, run
from packaging.requirements import Requirement

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

TENSORRT = {"tensorrt", "tensorrt-rtx"}
ELSEWHERE = {*TENSORRT, "ray"}
EMBEDDED = ("runtime/test_recordings.py", "runtime/test_video.py", "serving/test_inference.py")
"""Tests of what recordings, video and the server need beside a bundle."""

NOT_FROM_PYPI = {"tensorrt", "onnxruntime-gpu"}
"""The first comes from NVIDIA's index and needs a GPU; the second holds the files of `onnxruntime`."""


def project() -> dict:
    """The table `project` of pyproject.toml."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def pins(*extras: str) -> list[str]:
    """`name==lowest` of what the base and these extras need, extras within extras followed.

    Raises:
        ValueError: a dependency has no lower bound, or two.
    """
    lowest: dict[str, str] = {}
    table = project()
    for needed in _needs(table, table["dependencies"], extras):
        bounds = [bound.version for bound in needed.specifier if bound.operator == ">="]
        inner = f"[{','.join(sorted(needed.extras))}]" if needed.extras else ""
        if len(bounds) != 1 or lowest.setdefault(needed.name + inner, bounds[0]) != bounds[0]:
            raise ValueError(f"{needed}: declare one lower bound, the same in every extra")
    return sorted(f"{name}=={version}" for name, version in lowest.items() if name not in NOT_FROM_PYPI)


def _needs(table: dict, lines: list[str], extras: tuple[str, ...]) -> Iterator[Requirement]:
    for line in lines:
        needed = Requirement(line)
        if needed.name == table["name"]:
            yield from _needs(table, [], tuple(needed.extras))
        else:
            yield needed
    for extra in extras:
        yield from _needs(table, table["optional-dependencies"][extra], ())


def environment(folder: Path, *extras: str) -> Path:
    """The python of a fresh environment with the lowest versions and the package itself."""
    run(sys.executable, "-m", "venv", "--clear", folder)
    python = folder / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", *pins(*extras))
    run(python, "-m", "pip", "install", "--quiet", "--no-deps", ROOT)
    run(python, "-m", "pip", "check")
    return python


def export(python: Path | str, work: Path) -> None:
    """Bundles in both precisions, and images, made by one environment."""
    for precision in ("float32", "float16"):
        run(python, "-m", "pcaseg", "export", "tiny", "--precision", precision, "--out", work / f"{precision}.pcaseg")
    run(python, "-m", "pcaseg", "datasets", "scenes", "--images", "2", "--out", work / "scenes")


def use(python: Path, work: Path) -> None:
    """Labels images with each bundle, and reads labels of 16 bits."""
    for precision in ("float32", "float16"):
        network = ("--bundle", work / f"{precision}.pcaseg")
        words = work / f"{precision}.safetensors"
        run(python, "-m", "pcaseg", "vocab", *network, "--classes", "sky, grass, red car", "--out", words)
        run(python, "-m", "pcaseg", "segment", work / "scenes" / "images", *network, "--vocabulary", words,
            "--out", work / precision)  # fmt: skip
    run(python, "-c", _DEEP_LABELS, work / "deep.png")


def start_tensorrt(python: Path) -> None:
    """Reads a graph and looks for a GPU with TensorRT's companions; the driver alone may be missing."""
    run(python, "-c", "import filelock, onnx.compose")
    run(python, "-c", _LOOK_FOR_GPU)


_LOOK_FOR_GPU = """
from pcaseg.errors import EngineError
from pcaseg.runtime.cuda import open_driver
try:
    print(open_driver(None).gpu)
except EngineError as error:
    print(error)
"""

_OPENVINO = """
import pathlib, sys
import numpy as np
from pcaseg import Segmenter
found = {}
for backend in ("onnxruntime", "openvino"):
    segmenter = Segmenter(sys.argv[1], backend)
    segmenter.set_vocabulary(["sky", "grass", "red car"])
    found[backend] = segmenter(min(pathlib.Path(sys.argv[2]).iterdir())).labels
assert (found["onnxruntime"] == found["openvino"]).mean() > 0.999
"""

_DEEP_LABELS = """
import sys
import numpy as np
from PIL import Image
from pcaseg.images import read_label_map
labels = (np.arange(4096).reshape(64, 64) % 800).astype(np.uint16)
Image.fromarray(labels).save(sys.argv[1])
assert (read_label_map(sys.argv[1]) == labels).all()
"""


def main() -> None:
    """Tries what was asked for; the first command that fails ends it."""
    kind = sys.argv[1]
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        if kind == "runtime":
            python = environment(ROOT / ".venv-lowest-runtime", "onnxruntime")
            export(sys.executable, work)
        else:
            start_tensorrt(environment(ROOT / ".venv-lowest-tensorrt", "onnxruntime", *TENSORRT))
            python = environment(ROOT / ".venv-lowest", *(set(project()["optional-dependencies"]) - ELSEWHERE))
            export(python, work)
            images = work / "scenes" / "images"
            run(python, "-m", "pcaseg", "check", work / "float32.pcaseg", "--images", images, "--classes", "1,20",
                "--labelled", work / "scenes")  # fmt: skip
            rows = ROOT / "benchmarks" / "results" / "bench_eva-b-384.jsonl"
            run(python, "-m", "pcaseg", "report", rows, "--html", work / "report.html")
            run(python, "-c", _OPENVINO, work / "float32.pcaseg", images)
            run(python, "-m", "pytest", "-q", "-m", "not slow", *(ROOT / "tests" / name for name in EMBEDDED))
        use(python, work)
    print(f"the lowest versions run: {', '.join(pins(*(['onnxruntime'] if kind == 'runtime' else [])))}")


if __name__ == "__main__":
    main()
