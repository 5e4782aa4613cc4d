"""Model repositories of NVIDIA Triton Inference Server, from a bundle.

A repository holds one model that speaks as `pcaseg serve` does, with the bundle in it: it may be copied anywhere. For
GPUs the network is a model of its own, on Triton's ONNX Runtime, which the first one asks.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, Literal

from pcaseg.configs import Strategy
from pcaseg.errors import BundleError, PcasegError
from pcaseg.files import atomic_path, refuse_foreign
from pcaseg.paths import entries, is_folder, real_path
from pcaseg.runtime.bundle import MANIFEST_NAME, SEGMENTER_NAME, TEXT_ENCODER_NAME, TOKENIZER_NAME, Bundle
from pcaseg.runtime.segmenter import choose_strategy
from pcaseg.serving.inputs import INPUTS
from pcaseg.serving.limits import Limits
from pcaseg.serving.outputs import OUTPUTS
from pcaseg.serving.triton_config import accelerator, graph_tensors, model_config, tensor, to_text

Gpu = Literal["cuda", "tensorrt"]
"""ONNX Runtime's provider of the network on a GPU."""

BUNDLE_NAME = "bundle.pcaseg"
NETWORK_SUFFIX = "_network"

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_SHAPES = {"frames": [-1, -1, -1, 3]}
_MODEL = '''"""Labels of images by class names; written by `pcaseg serve-repository`."""

try:
    from pcaseg.serving.triton_model import TritonPythonModel
except ImportError as error:
    raise ImportError(
        f"{error}; install pcaseg with its extra onnxruntime into the Python of Triton's backend, or name an "
        "environment with `pcaseg serve-repository --environment`"
    ) from error

__all__ = ["TritonPythonModel"]
'''


def write_repository(
    bundle: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    model: str | None = None,
    gpu: Gpu | None = None,
    instances: int = 1,
    strategy: Strategy | None = None,
    threads: int | None = None,
    environment: str | None = None,
    limits: Limits | None = None,
) -> tuple[str, ...]:
    """Writes a repository, whole or not at all.

    Args:
        bundle: of `pcaseg export`.
        out: folder to make, or an empty one.
        model: its name; None for the bundle's.
        gpu: makes the network a model of its own for GPUs, on ONNX Runtime's provider of this name; None runs it within
            the first model, on the CPU.
        instances: processes of the first model.
        strategy: see `pcaseg.Segmenter`.
        threads: CPU threads of each instance; None for ONNX Runtime's choice.
        environment: a Python environment on the server, folder or packed as .tar.gz, for the first model.
        limits: of requests: pixels, classes, images and batch count here.

    Returns:
        Names of the models; the first is the one to ask.

    Raises:
        BundleError: no bundle, a file in it is missing or altered, or the strategy is not its graph's.
        OutputError: `out` exists and is not an empty folder, or cannot be written.
        PcasegError: the name cannot be a model's.
    """
    opened = Bundle(bundle)
    name = real_path(bundle).name.removesuffix(".zip").removesuffix(".pcaseg") if model is None else model
    if not _NAME.fullmatch(name):
        raise PcasegError(f"model name {name!r}: give letters, digits, _, - and . alone with --model-name")
    choose_strategy(opened.manifest, strategy)
    needed = (SEGMENTER_NAME, TEXT_ENCODER_NAME, TOKENIZER_NAME)
    if lacking := [one for one in needed if one not in opened.manifest.files]:
        raise BundleError(f"{bundle}: lacks {lacking[0]}, which the server needs; export the bundle anew")
    folder = Path(out)
    refuse_foreign(folder, lambda path: is_folder(path) and not entries(path), "an empty folder")
    network = f"{name}{NETWORK_SUFFIX}" if gpu else ""
    parameters = _parameters(network, strategy, threads, environment, limits or Limits())
    with atomic_path(folder, folder=True) as root:
        inside = _version(root, name, _front_config(name, instances, parameters))
        (inside / "model.py").write_text(_MODEL, encoding="utf-8")
        copied = [one for one in opened.manifest.files if not (gpu and one == SEGMENTER_NAME)]
        _copy_bundle(opened, inside / BUNDLE_NAME, copied)
        if gpu:
            within = _version(root, network, network_config(opened, network, gpu))
            (within / "model.onnx").write_bytes(opened.read(SEGMENTER_NAME))
    return (name, network) if gpu else (name,)


def network_config(bundle: Bundle, name: str, gpu: Gpu) -> dict[str, Any]:
    """The configuration of a bundle's segmenter as a model of its own."""
    manifest = bundle.manifest
    return model_config(
        name,
        "onnxruntime",
        inputs=graph_tensors(manifest.inputs),
        outputs=graph_tensors(manifest.outputs),
        instances=1,
        kind="GPU",
        parameters={},
        optimization=accelerator(gpu, manifest.precision),
    )


def _front_config(name: str, instances: int, parameters: dict[str, str]) -> dict[str, Any]:
    inputs = {key: (kind, _SHAPES.get(key, [-1])) for key, kind in INPUTS.items()} | {"embeddings": ("FP32", [-1, -1])}
    return model_config(
        name,
        "python",
        inputs=[tensor(key, kind, shape, optional=True) for key, (kind, shape) in inputs.items()],
        outputs=[tensor(key, kind, shape) for key, (kind, shape) in OUTPUTS.items()],
        instances=instances,
        kind="CPU",
        parameters=parameters,
    )


def _parameters(
    network: str, strategy: Strategy | None, threads: int | None, environment: str | None, limits: Limits
) -> dict[str, str]:
    """Parameters of the first model, as `pcaseg.serving.triton_model` reads them; absent ones are defaults."""
    given = {
        "network": network,
        "strategy": strategy,
        "threads": threads,
        "EXECUTION_ENV_PATH": environment,
        "pixels": limits.pixels,
        "classes": limits.classes,
        "images": limits.images,
        "batch": limits.batch,
    }
    return {key: str(value) for key, value in given.items() if value}


def _version(root: Path, name: str, config: dict[str, Any]) -> Path:
    """The folder of a model's first version, made, and beside it its configuration."""
    inside = root / name / "1"
    inside.mkdir(parents=True)
    (root / name / "config.pbtxt").write_text(to_text(config), encoding="utf-8")
    return inside


def _copy_bundle(bundle: Bundle, folder: Path, names: list[str]) -> None:
    """Files of a bundle, each checked, and its manifest."""
    folder.mkdir()
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(bundle.read(name))
    (folder / MANIFEST_NAME).write_bytes(bundle.manifest_bytes)
