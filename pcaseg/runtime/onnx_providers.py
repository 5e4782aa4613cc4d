"""ONNX Runtime's execution providers by names of devices: those built in, and NVIDIA's plugin for RTX cards."""

from __future__ import annotations

import ctypes
import importlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnxruntime

from pcaseg.errors import MissingDependencyError, PcasegError, first_line
from pcaseg.paths import entries

CPU = "CPUExecutionProvider"
RTX = "tensorrt-rtx"
RTX_PACKAGE = "onnxruntime-ep-nv-tensorrt-rtx-cu12"

_BUILT_IN = {"cpu": CPU, "cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}


class GraphRefusedError(Exception):
    """Why ONNX Runtime refuses a graph, in its words."""


@dataclass(frozen=True)
class Provider:
    """One execution provider, ready to make sessions.

    Attributes:
        name: ONNX Runtime's.
        short: for names of backends: `cpu`, `cuda`, `tensorrt`, `tensorrt-rtx`.
        options: of the provider.
        device: of a plugin, as ONNX Runtime lists it; None for what is built in.
    """

    name: str
    short: str
    options: dict[str, str] = field(default_factory=dict)
    device: Any = None

    def session(self, graph: bytes, options: onnxruntime.SessionOptions) -> onnxruntime.InferenceSession:
        """A session on this provider.

        Raises:
            GraphRefusedError: ONNX Runtime refuses the graph.
            PcasegError: ONNX Runtime fell back to another provider.
        """
        try:
            if self.device is None:
                session = onnxruntime.InferenceSession(graph, options, providers=[(self.name, self.options)])
            else:
                options.add_provider_for_devices([self.device], self.options)
                session = onnxruntime.InferenceSession(graph, options)
        except Exception as error:  # ONNX Runtime's exceptions have no common base below Exception
            raise GraphRefusedError(first_line(error)) from error
        if session.get_providers()[0] != self.name:
            raise PcasegError(
                f"ONNX Runtime could not start {self.name} (its log says why); install the CUDA, cuDNN and TensorRT "
                "versions it needs, or choose device='cpu'"
            )
        return session


def open_provider(device: str) -> Provider:
    """The provider of a device: `cpu`, or one of the others with or without the GPU's number, as in `cuda:1`.

    Raises:
        PcasegError: an unknown device; a plugin that cannot be loaded, or sees no such GPU.
        MissingDependencyError: this ONNX Runtime has no such provider.
    """
    kind, colon, index = device.partition(":")
    if kind not in (*_BUILT_IN, RTX) or (colon and (kind == "cpu" or not index.isdecimal())):
        raise PcasegError(f"device={device!r}: choose one of cpu, cuda, tensorrt, {RTX}; cuda:N is the GPU of number N")
    if kind == RTX:
        return _open_plugin(device, int(index or 0))
    name = _BUILT_IN[kind]
    if name not in onnxruntime.get_available_providers():
        raise MissingDependencyError(
            f"device={device!r}: this ONNX Runtime has no {name}; pip install onnxruntime-gpu in place of "
            "onnxruntime, or choose device='cpu'"
        )
    if kind == "cpu":
        return Provider(name, kind)
    options = {"device_id": index or "0"}
    exact = {"use_tf32": "0"} if kind == "cuda" else {}  # float32 in the manifest means float32
    return Provider(name, kind, options | exact)


def _open_plugin(device: str, index: int) -> Provider:
    try:
        plugin = importlib.import_module("onnxruntime_ep_nv_tensorrt_rtx")
        register = onnxruntime.register_execution_provider_library
    except (ImportError, AttributeError):
        raise MissingDependencyError(
            f"device={device!r}: needs ONNX Runtime 1.24 and NVIDIA's plugin; pip install -U onnxruntime "
            f"{RTX_PACKAGE}, or choose device='cpu'"
        ) from None
    name, library = plugin.get_ep_name(), Path(plugin.get_library_path())
    try:
        if not _devices(name):
            # The plugin needs the CUDA runtime that lies beside it, under a name that the loader does not look for.
            for runtime in entries(library.parent, "libcudart.so.*"):
                ctypes.CDLL(str(runtime))
            register(name, str(library))
    except Exception as error:  # as above
        raise PcasegError(
            f"device={device!r}: ONNX Runtime {onnxruntime.__version__} cannot load {library.name} "
            f"({first_line(error)}); install NVIDIA's driver, or choose device='cpu'"
        ) from error
    found = _devices(name)
    if index >= len(found):
        raise PcasegError(f"device={device!r}: {name} sees {len(found)} RTX cards; choose another, or device='cpu'")
    return Provider(name, RTX, device=found[index])


def _devices(name: str) -> list[Any]:
    return [device for device in onnxruntime.get_ep_devices() if device.ep_name == name]
