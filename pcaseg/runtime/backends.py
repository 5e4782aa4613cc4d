"""Backends, which run the network: their protocol, and the table of those there are, imported only when chosen."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from pcaseg.errors import MissingDependencyError, PcasegError, install_hint
from pcaseg.runtime.bundle import Bundle
from pcaseg.runtime.manifest import Manifest

BACKENDS = {
    "onnxruntime": "pcaseg.runtime.onnxruntime_backend:OnnxRuntimeBackend",
    "tensorrt": "pcaseg.runtime.tensorrt_backend:TensorRTBackend",
    "torch": "pcaseg.export.torch_backend:TorchBackend",
}
"""Name, which is also the pip extra, to `module:class`. Each class has `open(bundle, *, device, threads)`."""

OPTIONS = {"tensorrt": ("engine_precision", "plugin_library")}
"""Further options of `open`, by backend."""


@runtime_checkable
class Backend(Protocol):
    """Runs the text encoder and the segmenter of one bundle."""

    @property
    def name(self) -> str:
        """Name of what really runs, such as `onnxruntime-cpu`."""
        ...

    @property
    def manifest(self) -> Manifest:
        """The bundle's manifest."""
        ...

    def encode_text(self, names: Sequence[str]) -> np.ndarray:
        """Class names to embeddings `(T, D)` float32, unit norm."""
        ...

    def logits(self, images: np.ndarray, text: np.ndarray) -> np.ndarray:
        """Images `(N, 3, R, R)` float32 0..255 and embeddings `(T, D)` float32 to logits `(N, T, h, w)` float32.

        Where the manifest's `graph` is `logits`.
        """
        ...

    def labels(self, images: np.ndarray, text: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Images `(N, H, W, 3)` uint8 RGB and embeddings `(T, D)` float32 to labels int32 and confidence float32.

        Both `(N, H, W)`. Where the manifest's `graph` is `labels`.
        """
        ...


def open_backend(
    name: str,
    bundle: Bundle,
    *,
    device: str | None = None,
    threads: int | None = None,
    options: Mapping[str, object] | None = None,
) -> Backend:
    """Opens a bundle with the backend of that name.

    Args:
        name: one of `BACKENDS`.
        bundle: the bundle to run.
        device: what the backend understands, such as `cpu` or `cuda`; None for its default.
        threads: CPU threads; None for the backend's default.
        options: what else one backend alone understands, see `OPTIONS`.

    Raises:
        PcasegError: no such backend, or an option of another.
        MissingDependencyError: the backend's package is not installed.
    """
    given = dict(options or {})
    if foreign := [key for key in given if key not in OPTIONS.get(name, ())]:
        raise PcasegError(f"{foreign[0]}={str(given[foreign[0]])!r}: is not for the backend {name!r}; leave it out")
    backend: Backend = backend_class(name).open(bundle, device=device, threads=threads, **given)
    return backend


def backend_class(name: str) -> Any:
    """The class of a backend, imported.

    Raises:
        PcasegError: no such backend.
        MissingDependencyError: a package that its module imports is not installed.
    """
    if name not in BACKENDS:
        raise PcasegError(f"backend={name!r}: choose one of {', '.join(BACKENDS)}")
    module, _, attribute = BACKENDS[name].partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except ImportError as error:
        raise MissingDependencyError(f"backend {name!r} cannot be imported ({error}); {install_hint(name)}") from error
