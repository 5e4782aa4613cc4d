"""Participants of `pcaseg bench`: every way to run the model, each opened as a `Backend`, or a reason why not."""

from __future__ import annotations

import contextlib
import importlib.util
import shutil
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

import pcaseg
from pcaseg.benchmarks.rows import BACKENDS, Computation
from pcaseg.deploy.aggregator import PreparedVocabulary
from pcaseg.deploy.folded import FoldedPCASeg
from pcaseg.errors import MissingDependencyError, PcasegError
from pcaseg.export.tensorrt.refit import open_tensorrt
from pcaseg.export.torch_backend import TorchBackend
from pcaseg.kernels.registry import plain_operators
from pcaseg.model.network import PCASeg
from pcaseg.runtime.backends import Backend, open_backend
from pcaseg.runtime.bundle import Bundle
from pcaseg.runtime.onnxruntime_backend import OnnxRuntimeBackend


class SkippedError(Exception):
    """A backend cannot take part here; the message says why."""


@dataclass(frozen=True)
class Setting:
    """Model, bundle and settings that an implementation is opened with.

    Attributes:
        model: the eager float32 model, shared by those that need it.
        bundle: the same model exported.
        precision: asked for.
        device: `cpu` or `cuda`.
    """

    model: PCASeg
    bundle: Bundle
    precision: str
    device: str
    threads: int


@dataclass(frozen=True)
class Implementation:
    """One opened backend.

    Attributes:
        runs: what really runs, for people.
        precision: what it computes in.
    """

    name: str
    runs: str
    precision: str
    backend: Backend

    @property
    def computation(self) -> Computation:
        """As `computation_of` its name."""
        return computation_of(self.name)


class EagerBackend(TorchBackend):
    """The eager model, float32 or under autocast, or compiled."""

    def __init__(self, setting: Setting, *, autocast: torch.dtype | None = None, compiled: bool = False) -> None:
        super().__init__(setting.model, device=setting.device, threads=setting.threads)
        self.model = None if compiled else setting.model
        self._autocast = autocast
        self._call = torch.compile(setting.model, dynamic=False) if compiled else setting.model
        kept = setting.model.kept_logits
        self._kept = torch.compile(kept, dynamic=False) if compiled else kept

    def network(self, images: Tensor, text: Tensor) -> Tensor:
        """As `TorchBackend.network`."""
        enabled = self._autocast is not None
        with torch.autocast(images.device.type, dtype=self._autocast, enabled=enabled):
            return self._call(images, text)

    def kept_network(self, images: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        """As `TorchBackend.kept_network`."""
        enabled = self._autocast is not None
        with torch.autocast(images.device.type, dtype=self._autocast, enabled=enabled):
            return self._kept(images, text)


class FoldedBackend(TorchBackend):
    """The folded model with or without its kernels; the vocabulary is prepared once, as an application would."""

    def __init__(self, setting: Setting, dtype: torch.dtype, *, kernels: bool) -> None:
        self._kernels = kernels
        self.model: FoldedPCASeg = pcaseg.fold(setting.model, dtype=dtype)
        super().__init__(self.model, device=setting.device, threads=setting.threads)
        self._names = setting.model.encode_text  # float32 whatever the weights are
        self._prepared: tuple[Tensor, PreparedVocabulary] | None = None

    def encode_text(self, names: Sequence[str]) -> np.ndarray:
        """As `TorchBackend.encode_text`, in float32."""
        return self._names(names)[:, 0].cpu().numpy()

    def network(self, images: Tensor, text: Tensor) -> Tensor:
        """As `TorchBackend.network`."""
        with self._operators(images):
            return self.model(images, self._vocabulary(text))

    def kept_network(self, images: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        """As `TorchBackend.kept_network`."""
        with self._operators(images):
            return self.model.kept_logits(images, self._vocabulary(text))

    def _vocabulary(self, text: Tensor) -> PreparedVocabulary:
        if self._prepared is None or not (self._prepared[0] is text or torch.equal(self._prepared[0], text)):
            self._prepared = text, self.model.prepare_vocabulary(text.to(self.model.aggregator.dtype))
        return self._prepared[1]

    def _operators(self, images: Tensor) -> contextlib.AbstractContextManager[None]:
        plain = images.is_cuda and not self._kernels  # on a CPU the operators are the references
        return plain_operators() if plain else contextlib.nullcontext()


def _eager(setting: Setting) -> Implementation:
    return _torch(setting, "eager", "float32", EagerBackend(setting))


def _autocast(setting: Setting) -> Implementation:
    dtype = torch.bfloat16 if setting.device == "cpu" else torch.float16
    backend = EagerBackend(setting, autocast=dtype)
    return _torch(setting, "eager-autocast", _name(dtype), backend, "autocast")


def _compiled(setting: Setting) -> Implementation:
    if setting.device == "cpu" and not any(shutil.which(compiler) for compiler in ("g++", "clang++", "c++")):
        raise SkippedError("torch.compile needs a C++ compiler on a CPU, and none is installed")
    return _torch(setting, "eager-compiled", "float32", EagerBackend(setting, compiled=True), "compiled")


def _folded(setting: Setting) -> Implementation:
    dtype = getattr(torch, setting.precision)
    return _torch(setting, "folded", setting.precision, FoldedBackend(setting, dtype, kernels=False))


def _folded_triton(setting: Setting) -> Implementation:
    if setting.device == "cpu":
        raise SkippedError("Triton kernels run on a GPU; this run is on the CPU")
    if importlib.util.find_spec("triton") is None:
        raise SkippedError("triton is not installed")
    backend = FoldedBackend(setting, getattr(torch, setting.precision), kernels=True)
    return _torch(setting, "folded-triton", setting.precision, backend, "Triton kernels")


def _onnxruntime(device: str) -> Callable[[Setting], Implementation]:
    def open_it(setting: Setting) -> Implementation:
        precision = _bundle_precision(setting)
        if device != "cpu" and setting.device == "cpu":
            raise SkippedError("it runs on a GPU; this run is on the CPU")
        try:
            backend = OnnxRuntimeBackend(setting.bundle, device=device, threads=setting.threads)
        except MissingDependencyError as error:
            raise SkippedError(str(error)) from error
        runs = f"ONNX Runtime on {device}, {setting.threads} threads"
        return Implementation(f"onnxruntime-{device}", runs, precision, backend)

    return open_it


def _openvino(setting: Setting) -> Implementation:
    precision = _bundle_precision(setting)
    try:
        backend = open_backend("openvino", setting.bundle, threads=setting.threads)
    except MissingDependencyError as error:
        raise SkippedError(str(error)) from error
    return Implementation("openvino-cpu", f"OpenVINO on cpu, {setting.threads} threads", precision, backend)


def _tensorrt(setting: Setting) -> Implementation:
    if setting.device == "cpu":
        raise SkippedError("TensorRT runs on a GPU; this run is on the CPU")
    precision = _bundle_precision(setting)
    backend = open_tensorrt(setting.bundle, device=setting.device)
    machine, name = backend.machine, backend.name.removeprefix("tensorrt-")
    return Implementation("tensorrt", f"TensorRT {machine.tensorrt} on {machine.gpu}, {name}", precision, backend)


def _bundle_precision(setting: Setting) -> str:
    """The precision of the bundle's graph, where it is the one asked for."""
    held = setting.bundle.manifest.precision
    if setting.precision != held:
        raise SkippedError(f"the bundle is {held}; export one with --precision {setting.precision}")
    return held


_OPENERS = (
    *(_eager, _autocast, _compiled, _folded, _folded_triton),
    *(_onnxruntime("cpu"), _onnxruntime("cuda"), _onnxruntime("tensorrt")),
    *(_openvino, _tensorrt),
)
IMPLEMENTATIONS: dict[str, Callable[[Setting], Implementation]] = dict(zip(BACKENDS, _OPENERS, strict=True))
"""Functions that open each, or raise `SkippedError`."""

NOT_BY_DEFAULT = {
    "eager-compiled": "compiling takes minutes; ask for it with --backends all",
}
"""Left out unless asked for, and why."""


def computation_of(name: str) -> Computation:
    """Computation that a backend does for its result: the eager ones compute as published."""
    return "published" if name.startswith("eager") else "folded"


def check_names(names: Sequence[str]) -> None:
    """Refuses unknown backends.

    Raises:
        PcasegError: names those there are.
    """
    for name in names:
        if name not in IMPLEMENTATIONS:
            raise PcasegError(f"backend={name!r}: choose from {', '.join(IMPLEMENTATIONS)}, or all")


def open_implementation(name: str, setting: Setting) -> Implementation:
    """Opens one.

    Raises:
        SkippedError: it cannot run here, or what runs it fails to start.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return IMPLEMENTATIONS[name](setting)
        except PcasegError as error:
            raise SkippedError(str(error)) from error


def weight_bytes(model: PCASeg, precision: str) -> int:
    """Bytes of the weights that one call of the network reads: all but the text tower."""
    parts = (model.image_tower, model.tap_upsample, model.aggregator)
    count = sum(parameter.numel() for part in parts for parameter in part.parameters())
    return count * getattr(torch, precision).itemsize


def _torch(setting: Setting, name: str, precision: str, backend: Backend, how: str = "") -> Implementation:
    runs = f"PyTorch on {setting.device}, {setting.threads} threads, {precision}"
    return Implementation(name, f"{runs}, {how}" if how else runs, precision, backend)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
