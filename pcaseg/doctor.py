"""Diagnosis of this machine, by trying: every backend on its devices, and a bundle with every backend."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from pcaseg.errors import BundleError, MissingDependencyError, PcasegError, install_hint
from pcaseg.runtime.backends import backend_names, backend_opener, open_backend
from pcaseg.runtime.bundle import SEGMENTER_NAME, TEXT_ENCODER_NAME, Bundle
from pcaseg.runtime.cuda import MIB, open_driver
from pcaseg.runtime.engines import TITLES, EngineRuntime
from pcaseg.runtime.segmenter import Segmenter
from pcaseg.runtime.tensorrt_api import capture_log, import_tensorrt, known_capabilities, start, title


@dataclass(frozen=True)
class Finding:
    """One thing that was tried.

    Attributes:
        subject: what, such as `onnxruntime on cpu`.
        works: whether it does.
        detail: versions and device, or why not and the mend.
    """

    subject: str
    works: bool
    detail: str

    @property
    def runs(self) -> bool:
        """True where a bundle can be run with it."""
        return self.works and self.subject != _BUILDER


def diagnose() -> list[Finding]:
    """Tries every backend on every device; what fails is a finding too, never an exception."""
    return [_tried(subject, probe) for subject, probe in _PROBES.items()]


def diagnose_bundle(bundle: Bundle) -> list[Finding]:
    """Holds a bundle's files against their hashes, the first finding, and labels a frame with every backend.

    A graph that only engines are built of is read.
    """
    others = [name for name in bundle.manifest.graphs if name not in (SEGMENTER_NAME, TEXT_ENCODER_NAME)]
    graphs = [_tried(f"graph {name}", partial(_read_graph, name, bundle)) for name in others]
    ran = [_tried(f"runs with {name}", partial(_label, name, bundle)) for name in backend_names()]
    return [_tried("files", partial(_verify, bundle)), *graphs, *ran]


def _tried(subject: str, probe: Callable[[], str]) -> Finding:
    try:
        return Finding(subject, True, probe())
    except (PcasegError, ImportError, OSError, RuntimeError) as error:  # a broken installation is a finding as well
        return Finding(subject, False, " ".join(str(error).split()))


def _onnxruntime(device: str) -> str:
    backend_opener("onnxruntime")  # says which extra is missing
    from pcaseg.runtime.onnxruntime_backend import start_provider

    return f"ONNX Runtime {start_provider(device)}"


def _openvino() -> str:
    backend_opener("openvino")
    from pcaseg.runtime.openvino_backend import start_device

    return f"OpenVINO {start_device('cpu')}"


def _tensorrt(runtime: EngineRuntime) -> str:
    backend_opener(TITLES[runtime].lower())
    trt = import_tensorrt(runtime)
    driver = open_driver(None)
    start(trt.Runtime, capture_log(trt), trt)
    free, total = driver.memory()
    return (
        f"{title(trt)}, {driver.gpu.name}, compute capability {driver.gpu.compute_capability}, "
        f"{free // MIB} of {total // MIB} MiB free"
    )


def _rtx_builder() -> str:
    trt = import_tensorrt("rtx")
    start(trt.Builder, capture_log(trt), trt)
    return f"{title(trt)} for compute capabilities {', '.join(known_capabilities(trt))}; needs no GPU"


def _torch(device: str) -> str:
    backend_opener("torch")
    torch = importlib.import_module("torch")
    if device == "cpu":
        return f"PyTorch {torch.__version__}"
    if not torch.cuda.is_available():
        raise PcasegError(f"PyTorch {torch.__version__} finds no usable GPU; install NVIDIA's driver, or use the CPU")
    return f"PyTorch {torch.__version__}, {torch.cuda.get_device_name()}"


def _kernels() -> str:
    try:
        triton = importlib.import_module("triton")
    except ImportError as error:
        raise MissingDependencyError(f"Triton cannot be imported ({error}); {install_hint('triton')}") from error
    return f"Triton {triton.__version__}, {_torch('cuda')}"


def _verify(bundle: Bundle) -> str:
    bundle.verify()
    manifest = bundle.manifest
    return f"{manifest.preset}, {manifest.graph}, {manifest.precision}, opset {manifest.opset}; hashes match"


def _read_graph(name: str, bundle: Bundle) -> str:
    try:
        onnx = importlib.import_module("onnx")
    except ImportError as error:
        raise MissingDependencyError(f"onnx cannot be imported ({error}); {install_hint('torch')}") from error
    try:
        graph = onnx.load_model_from_string(bundle.read(name)).graph
    except Exception as error:  # protobuf's own kinds
        raise BundleError(f"cannot be read ({error}); export the bundle anew") from error
    written = bundle.manifest.graphs[name].nodes
    if len(graph.node) != written:
        raise BundleError(f"has {len(graph.node)} nodes, not {written} as the manifest says; export the bundle anew")
    return f"{written} nodes; runs in engines alone"


def _label(name: str, bundle: Bundle) -> str:
    """Goes the whole way: tokenizer, text encoder, segmenter and labels."""
    segmenter = Segmenter(open_backend(name, bundle))
    segmenter.set_vocabulary(_NAMES)
    height, width = bundle.manifest.image_size or _FRAME
    result = segmenter(np.linspace(0, 255, height * width * 3).astype(np.uint8).reshape(height, width, 3))
    return (
        f"as {result.backend}: encoded {len(_NAMES)} names, labelled a frame of {width} x {height} in "
        f"{result.timings_ms['total']:.0f} ms"
    )


_BUILDER = "tensorrt-rtx as a builder"
_NAMES = ("sky", "grass")
_FRAME = (120, 160)

_PROBES: dict[str, Callable[[], str]] = {
    "onnxruntime on cpu": partial(_onnxruntime, "cpu"),
    "onnxruntime on cuda": partial(_onnxruntime, "cuda"),
    "onnxruntime on tensorrt": partial(_onnxruntime, "tensorrt"),
    "openvino on cpu": _openvino,
    "tensorrt on cuda": partial(_tensorrt, "tensorrt"),
    "tensorrt-rtx on cuda": partial(_tensorrt, "rtx"),
    _BUILDER: _rtx_builder,
    "torch on cpu": partial(_torch, "cpu"),
    "torch on cuda": partial(_torch, "cuda"),
    "Triton kernels on cuda": _kernels,
}
