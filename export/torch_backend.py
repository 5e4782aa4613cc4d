"""The eager model as a backend of the `Segmenter`: the reference, in the same harness as every other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from pcaseg.errors import BundleError, PcasegError, first_line
from pcaseg.export.bundle import describe
from pcaseg.export.options import ExportOptions
from pcaseg.model.checkpoint import load_model
from pcaseg.runtime.bundle import Bundle
from pcaseg.runtime.manifest import Manifest

if TYPE_CHECKING:
    from pcaseg.deploy.folded import FoldedPCASeg
    from pcaseg.model.network import PCASeg


class TorchBackend:
    """Runs a `PCASeg` through the protocol of `pcaseg.runtime.backends.Backend`."""

    def __init__(self, model: PCASeg | FoldedPCASeg, *, device: str | None = None, threads: int | None = None) -> None:
        """Takes a model as it is.

        Args:
            model: of `pcaseg.load_model` or `pcaseg.fold`, with its own shortlist if it has one; moved to `device`.
            device: a torch device, `cpu` by default.
            threads: CPU threads, for the whole process; None leaves torch's choice.

        Raises:
            PcasegError: torch does not know or have the device, or `threads` is below 1.
        """
        if threads is not None and threads < 1:
            raise PcasegError(f"threads={threads}: give 1 or more")
        if threads is not None:
            torch.set_num_threads(threads)
        try:
            self._device = torch.device(device or "cpu")
            self._model = model.to(self._device)
        except (RuntimeError, AssertionError) as error:
            raise PcasegError(
                f"device={device!r}: torch cannot use it ({first_line(error)}); choose device='cpu'"
            ) from error
        self._manifest = describe(model, ExportOptions(shortlist=model.shortlist), files={}, graphs={})

    @classmethod
    def open(cls, bundle: Bundle, *, device: str | None = None, threads: int | None = None) -> TorchBackend:
        """Loads the eager model that a bundle was exported from.

        Raises:
            BundleError: its checkpoint is not where the manifest says, or has changed since.
        """
        return cls(source_model(bundle), device=device, threads=threads)

    @property
    def name(self) -> str:
        """`torch-cpu`, `torch-cuda`: the eager model on that device."""
        return f"torch-{self._device.type}"

    @property
    def manifest(self) -> Manifest:
        """Manifest of a bundle of this model; it lists no files."""
        return self._manifest

    def encode_text(self, names: Sequence[str]) -> np.ndarray:
        """(T, D) float32, unit norm."""
        return self._model.encode_text(names)[:, 0].cpu().numpy()

    def encode_prompts(self, prompts: Sequence[str]) -> np.ndarray:
        """Whole prompts, (P, D) float32, unit norm."""
        return self._model.text_tower.encode_prompts(prompts).cpu().numpy()

    @torch.no_grad()
    def logits(self, images: np.ndarray, text: np.ndarray) -> np.ndarray:
        """images (N, 3, R, R) float32 in 0..255, text (T, D) float32 -> (N, T, h, w) float32."""
        return self.download(self.network(self.upload(images), self.upload(text)[:, None]))

    @torch.no_grad()
    def kept_logits(self, images: np.ndarray, text: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """As `pcaseg.runtime.backends.ShortlistBackend.kept_logits`, where the model has a shortlist."""
        logits, classes = self.kept_network(self.upload(images), self.upload(text)[:, None])
        return self.download(logits), classes.cpu().numpy()

    @property
    def on_gpu(self) -> bool:
        """True where the model is on a GPU."""
        return self._device.type == "cuda"

    def fetch(self, array: Any) -> np.ndarray:
        """A copy of an array on the GPU, see `pcaseg.runtime.arrays.GpuBackend`."""
        known = isinstance(array, Tensor) or hasattr(array, "__cuda_array_interface__")
        tensor = torch.as_tensor(array) if known else torch.from_dlpack(array)
        return tensor.detach().cpu().numpy()

    def upload(self, array: np.ndarray) -> Tensor:
        """A copy on the device."""
        return torch.tensor(array, device=self._device)

    def network(self, images: Tensor, text: Tensor) -> Tensor:
        """images (N, 3, R, R), text (T, P, D), both on the device -> logits (N, T, h, w) there."""
        return self._model(images, text)

    def kept_network(self, images: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        """As `network`, of the kept classes alone: logits (N, K, h, w), their classes (N, K)."""
        return self._model.kept_logits(images, text)

    def download(self, logits: Tensor) -> np.ndarray:
        """Logits in host memory, float32."""
        return logits.float().cpu().numpy()

    def labels(self, images: np.ndarray, text: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Not offered: the eager model ends in logits, as its manifest says, whatever the bundle's graph ends in."""
        raise PcasegError(f"{self.name}: the eager model has no graph of labels; merge its logits")


def source_model(bundle: Bundle) -> PCASeg:
    """The eager model that a bundle was exported from, with its shortlist: rebuilt from its seed, or loaded from its
    checkpoint.

    Raises:
        BundleError: the checkpoint is not where the manifest says, or is another one now.
    """
    manifest = bundle.manifest
    weights = manifest.weights
    if weights.path is None and weights.kind not in ("seeded", "shipped"):
        raise BundleError(f"{bundle.path}: was exported from weights in memory; pass the model file with --model")
    try:
        model = load_model(
            manifest.preset,
            weights.path,
            aggregation=manifest.aggregation,
            dense_mode=manifest.dense_mode,
            seed=weights.seed or 0,
        )
    except PcasegError as error:
        raise BundleError(
            f"{bundle.path}: its source cannot be loaded ({error}); pass the model with --model"
        ) from error
    model.shortlist = manifest.shortlist
    if model.source.sha256 != weights.sha256:
        raise BundleError(
            f"{bundle.path}: {weights.path or 'the seeded model'} is not what it was exported from (its hash differs); "
            "pass the right model with --model, or export anew"
        )
    return model
