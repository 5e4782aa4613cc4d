"""The endless training stream of a labelled folder: its images in a new order each time round, augmented."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import torch

from pcaseg.data.augmentation import augmented
from pcaseg.data.batches import TrainingBatch
from pcaseg.data.folders import NO_LABEL, LabelledFolder
from pcaseg.errors import PcasegError

_ORDER, _CROP = 0, 1
"""Tell the random numbers of the order from those of the augmentation."""


@dataclass(frozen=True)
class CropStream:
    """Batches of crops, all with the folder's names.

    Attributes:
        folder: images and labels.
        seed: from 0.
        short_px: the short side of the resized images.
        crop_px: side of the crops.
    """

    folder: LabelledFolder
    seed: int = 0
    short_px: int = 384
    crop_px: int = 384

    def __post_init__(self) -> None:
        if not len(self.folder):
            raise PcasegError(f"{self.folder.source}: holds no images; check the download")

    def batch(self, step: int, *, size: int, rank: int = 0, world: int = 1) -> TrainingBatch:
        """Returns a batch, as `TrainingStream.batch`.

        Returns:
            images (size / world, 3, crop, crop) uint8; labels (size / world, crop, crop) int64.

        Raises:
            PcasegError: a file is missing or damaged, or labels do not fit, as `LabelledFolder.item`; `size` is no
                multiple of `world`.
        """
        if size % world:
            raise PcasegError(f"size={size}: a batch is shared by {world} processes; give a multiple of that")
        share = size // world
        first = step * size + rank * share
        crops = [self._crop(index) for index in range(first, first + share)]
        images = torch.from_numpy(np.stack([image for image, _ in crops]).transpose(0, 3, 1, 2).copy())
        labels = torch.from_numpy(np.stack([label for _, label in crops])).long()
        return TrainingBatch(images, (self.folder.names,), labels=labels)

    def _crop(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Crop `index` of the endless stream."""
        round_, place = divmod(index, len(self.folder))
        image, labels = self.folder.item(int(_order(self.seed, round_, len(self.folder))[place]))
        rng = np.random.default_rng([self.seed, _CROP, index])
        return augmented(image, labels, rng, short_px=self.short_px, crop_px=self.crop_px, unlabelled=NO_LABEL)


@functools.lru_cache(maxsize=2)
def _order(seed: int, round_: int, count: int) -> np.ndarray:
    return np.random.default_rng([seed, _ORDER, round_]).permutation(count)
