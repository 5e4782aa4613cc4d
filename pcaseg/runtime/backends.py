"""Backends, which run the network: their protocol, and those that are registered, each imported only when chosen."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import EntryPoint, entry_points
from typing import Protocol, runtime_checkable

import numpy as np

from pcaseg.errors import MissingDependencyError, PcasegError, install_hint
from pcaseg.runtime.bundle import Bundle
from pcaseg.runtime.manifest import Manifest

GROUP = "pcaseg.backends"
"""The group of entry points in which backends are registered: the name, which of this project's own is the pip extra
too, and an opener: `open(bundle, *, device, threads)`, with further keyword arguments that it alone understands."""


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

        Where the manifest's `graph` is `logits`; of a shortlist, -100 for the classes that were dropped.
        """
        ...

    def labels(self, images: np.ndarray, text: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Images `(N, H, W, 3)` uint8 RGB and embeddings `(T, D)` float32 to labels int32 and confidence float32.

        Both `(N, H, W)`. Where the manifest's `graph` is `labels`.
        """
        ...


@runtime_checkable
class ShortlistBackend(Backend, Protocol):
    """A backend that runs bundles of logits with a shortlist."""

    def kept_logits(self, images: np.ndarray, text: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """As `logits`, of the kept classes alone: `(N, K, h, w)` float32, and their indices `(N, K)`, ascending."""
        ...


@runtime_checkable
class PromptBackend(Backend, Protocol):
    """A backend that encodes prompts other than the published one."""

    def encode_prompts(self, prompts: Sequence[str]) -> np.ndarray:
        """Whole prompts to embeddings `(P, D)` float32, unit norm."""
        ...


def backend_names() -> tuple[str, ...]:
    """Names of the registered backends, sorted: this project's own, such as `onnxruntime`, and those of other packages.

    Raises:
        MissingDependencyError: none is registered.
    """
    return tuple(sorted(_registered()))


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
        name: one of `backend_names()`.
        bundle: the bundle to run.
        device: what the backend understands, such as `cpu` or `cuda`; None for its default.
        threads: CPU threads; None for the backend's default.
        options: what else one backend alone understands, such as `engine_precision` of `tensorrt`.

    Raises:
        PcasegError: no such backend, or an option of another.
        MissingDependencyError: the backend's package is not installed.
    """
    given, opener = dict(options or {}), backend_opener(name)
    if foreign := [key for key in given if key not in inspect.signature(opener).parameters]:
        raise PcasegError(f"{foreign[0]}={str(given[foreign[0]])!r}: is not for the backend {name!r}; leave it out")
    return opener(bundle, device=device, threads=threads, **given)


def backend_opener(name: str) -> Callable[..., Backend]:
    """Opener of bundles with a backend, imported.

    Raises:
        PcasegError: no such backend.
        MissingDependencyError: a package that its module imports is not installed.
    """
    known = _registered()
    if name not in known:
        raise PcasegError(f"backend={name!r}: choose one of {', '.join(sorted(known))}")
    try:
        opener: Callable[..., Backend] = known[name].load()
    except ImportError as error:
        owner = known[name].dist
        hint = install_hint(name) if owner is None or owner.name == "pcaseg" else f"install all that {owner.name} needs"
        raise MissingDependencyError(f"backend {name!r} cannot be imported ({error}); {hint}") from error
    return opener


def _registered() -> dict[str, EntryPoint]:
    known = {entry.name: entry for entry in entry_points(group=GROUP)}
    if not known:
        raise MissingDependencyError(
            "no backend is registered: pcaseg was not installed, or was by an older version; "
            "in a clone of pcaseg run: pip install -e ."
        )
    return known
