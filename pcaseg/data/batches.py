"""Batches that training reads: of images with names, and labels or the area of each name in each cell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


@dataclass(frozen=True)
class TrainingBatch:
    """Images, names and what is true of them; either `labels` or `areas` is given.

    Attributes:
        images: (B, 3, R, R') uint8 or float RGB, 0..255.
        names: T names per image, B tuples; one tuple where all images share them.
        labels: (B, h, w) int64, an index of the names, -1 unlabelled.
        areas: (B, T, h, w) float in 0..1, the share of each cell that a name covers.
    """

    images: Tensor
    names: tuple[tuple[str, ...], ...]
    labels: Tensor | None = None
    areas: Tensor | None = None

    def targets(self, device: torch.device) -> Tensor:
        """(B, T, h, w) float32: the areas, or the labels one-hot with zeros for unlabelled pixels."""
        if self.areas is not None:
            return self.areas.to(device, torch.float32)
        assert self.labels is not None
        classes = torch.arange(len(self.names[0]), device=device)
        return (self.labels.to(device)[:, None] == classes[:, None, None]).float()


class TrainingStream(Protocol):
    """An endless stream of batches."""

    def batch(self, step: int, *, size: int, rank: int, world: int) -> TrainingBatch:
        """A pure function of the stream's seed, the step and the rank, so that resumed training sees the same.

        Args:
            step: from 0.
            size: images of all processes together.
            rank, world: which of how many processes asks; it gets size / world images.
        """
        ...
