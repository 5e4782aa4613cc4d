"""The endless training stream of the preset `tiny`: scenes, lists of names, and the area of each name in each cell."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from pcaseg.data.batches import TrainingBatch
from pcaseg.data.scene_lists import training_list
from pcaseg.data.scenes import render_scene
from pcaseg.errors import PcasegError

AREA_GRID = 48
"""Cells per side of the areas: the model's logits."""

_LISTS = 1
"""Tells the random numbers of lists from others of the same seed."""


@dataclass(frozen=True)
class TinyStream:
    """Batches of scenes.

    Attributes:
        seed: from 0.
        usual: shortest and longest list.
        long: shortest and longest of the long lists, which keep the model from counting on short ones.
        long_share: how many of the steps have long lists.
    """

    seed: int = 0
    usual: tuple[int, int] = (8, 12)
    long: tuple[int, int] = (24, 53)
    long_share: float = 0.06

    def batch(self, step: int, *, size: int, rank: int = 0, world: int = 1) -> TrainingBatch:
        """Returns a batch, as `TrainingStream.batch`; scene `step * size + i` of the seed is image i of the whole step.

        Every image has a list of its own; all lists of a step have one length.

        Returns:
            images (size / world, 3, 96, 96) uint8; areas (size / world, T, 48, 48) float32.

        Raises:
            PcasegError: `size` is no multiple of `world`.
        """
        if size % world:
            raise PcasegError(f"size={size}: a batch is shared by {world} processes; give a multiple of that")
        length = self.list_length(step)
        first, share = step * size, size // world
        scenes, lists = [], []
        for index in range(first + rank * share, first + (rank + 1) * share):
            scene = render_scene(index, seed=self.seed)
            rng = np.random.default_rng(np.random.SeedSequence([self.seed, _LISTS, index]).spawn(1)[0])
            scenes.append(scene)
            lists.append(training_list(scene, length, rng))
        images = np.stack([scene.image for scene in scenes]).transpose(0, 3, 1, 2)
        areas = np.stack([scene.areas(names, AREA_GRID) for scene, names in zip(scenes, lists, strict=True)])
        return TrainingBatch(torch.from_numpy(images.copy()), tuple(lists), areas=torch.from_numpy(areas))

    def list_length(self, step: int) -> int:
        """T of a step, the same for all processes."""
        rng = np.random.default_rng(np.random.SeedSequence([self.seed, step]).spawn(2)[1])
        low, high = self.long if rng.random() < self.long_share else self.usual
        return int(rng.integers(low, high + 1))
