"""`pcaseg.fold`: the whole model, folded."""

from __future__ import annotations

import copy
import functools
import os
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from pcaseg.configs import Strategy, check_choice, most_kept
from pcaseg.deploy.aggregator import FoldedAggregator, PreparedVocabulary
from pcaseg.deploy.algebra import fold_statistics, weights_of
from pcaseg.deploy.memory import largest_chunk, usual_chunk
from pcaseg.errors import PcasegError
from pcaseg.kernels.label_map import label_map
from pcaseg.model.aggregator import Guidance
from pcaseg.model.cost_volume import join_kept
from pcaseg.model.image_tower import EvaTower, ImageTower
from pcaseg.model.inference import image_tensor, resize, segment_image, sliding_inputs
from pcaseg.model.network import PCASeg, features_and_guidance
from pcaseg.model.positions import resize_position_embedding


def fold(
    model: PCASeg,
    *,
    dtype: torch.dtype | None = None,
    memory_mib: float | None = None,
    shortlist: int | None = None,
) -> FoldedPCASeg:
    """Folds a model for inference.

    Args:
        model: of `pcaseg.load_model`, in evaluation mode; not changed.
        dtype: of the weights; the model's own if None. The algebra runs in float64.
        memory_mib: budget of the aggregator's intermediates, in MiB, kept by running few classes at a time; None for no
            limit. See `pcaseg.deploy.memory`. Whether it suffices shows at the first call, which says what is needed.
        shortlist: classes of each window that are aggregated at most, 1 to 256, the others get the logit -100; None for
            the model's own.

    Returns:
        A module with the model's call signatures, on the preset's grid, without gradients.

    Raises:
        PcasegError: `memory_mib` is no number above 0, or `shortlist` is out of range.
    """
    if memory_mib is not None and not (isinstance(memory_mib, (int, float)) and 0 < memory_mib < float("inf")):
        raise PcasegError(f"memory_mib={memory_mib!r}: give a number of MiB above 0, or None for no limit")
    most_kept(shortlist)
    return FoldedPCASeg(
        model,
        dtype or next(model.parameters()).dtype,
        memory_mib=memory_mib,
        shortlist=model.shortlist if shortlist is None else shortlist,
    )


class FoldedPCASeg(nn.Module):
    """The computation of `PCASeg`, with everything removed that can be removed exactly."""

    def __init__(
        self,
        model: PCASeg,
        dtype: torch.dtype,
        *,
        memory_mib: float | None = None,
        shortlist: int | None = None,
    ) -> None:
        super().__init__()
        self.memory_mib, self.shortlist = memory_mib, shortlist
        self.preset, self.source = model.preset, model.source
        self.aggregation, self.dense_mode = model.aggregation, model.dense_mode
        grid = (model.preset.grid, model.preset.grid)
        self.image_tower = fold_image_tower(model, grid).to(dtype)
        self.text_tower = copy.deepcopy(model.text_tower).to(dtype)
        self.tap_upsample = copy.deepcopy(model.tap_upsample).to(dtype)
        self.aggregator = FoldedAggregator(model.aggregator, grid, dtype)
        self.eval().requires_grad_(False)

    def forward(
        self,
        images: Tensor,
        text: Tensor | PreparedVocabulary,
        *,
        class_pooling: tuple[int, int] = (1, 1),
        chunk: int | None = None,
        shortlist: int | None = None,
    ) -> Tensor:
        """As `PCASeg.forward`.

        Args:
            images, class_pooling, shortlist: as `PCASeg.forward`.
            text: likewise, or what `prepare_vocabulary` made of it.
            chunk: classes at a time, see `FoldedAggregator.forward`; None for what suits the device, the images and the
                number of classes, see `pcaseg.deploy.memory`.

        Raises:
            PcasegError: the memory budget is too small for these images and classes, or `shortlist` is out of range.
        """
        features, guidance = self.encode_image(images)
        kept = self.shortlist if shortlist is None else shortlist
        chunk = self._chunk(features, text, kept, chunk)
        result: Tensor = self.aggregator(
            features, text, guidance, class_pooling=class_pooling, chunk=chunk, shortlist=kept
        )
        return result

    def kept_logits(
        self, images: Tensor, text: Tensor | PreparedVocabulary, *, shortlist: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """As `PCASeg.kept_logits`; `text` may be what `prepare_vocabulary` made."""
        features, guidance = self.encode_image(images)
        kept = self.shortlist if shortlist is None else shortlist
        chunk = self._chunk(features, text, kept, None)
        return self.aggregator.aggregate_kept(features, text, guidance, chunk=chunk, shortlist=kept)

    def _chunk(
        self, features: Tensor, text: Tensor | PreparedVocabulary, shortlist: int | None, chunk: int | None
    ) -> int | None:
        """Classes at a time: as asked for or as usual, and within the memory budget."""
        B, T = len(features), (text.text if isinstance(text, PreparedVocabulary) else text).shape[-3]
        T, map_bytes = min(T, most_kept(shortlist)), self.aggregator.map_bytes
        if chunk is None:
            chunk = usual_chunk(features.device.type, B, T, map_bytes=map_bytes)
        if self.memory_mib is None:
            return chunk
        fits = largest_chunk(self.memory_mib, B, T, map_bytes=map_bytes)
        return fits if chunk is None else min(chunk, fits)

    def encode_text(self, names: Sequence[str]) -> Tensor:
        """As `PCASeg.encode_text`."""
        return self.text_tower.encode_names(names)

    def prepare_vocabulary(self, text: Tensor) -> PreparedVocabulary:
        """The text side's work, once per vocabulary instead of once per image: text (T, P, D)."""
        return self.aggregator.prepare_vocabulary(text)

    def encode_image(self, images: Tensor) -> tuple[Tensor, Guidance]:
        """As `PCASeg.encode_image`: images (B, 3, R, R) float RGB in 0..255, not normalised."""
        return features_and_guidance(self.image_tower, self.tap_upsample, images.to(self.aggregator.dtype))

    @torch.no_grad()
    def segment(
        self,
        image: str | os.PathLike[str] | np.ndarray | Tensor,
        text: Tensor,
        *,
        strategy: Strategy = "sliding",
        shortlist: int | None = None,
    ) -> Tensor:
        """As `PCASeg.segment`."""
        check_choice(strategy, Strategy, what="strategy")
        pixels, vocabulary = self._prepared(image, text)
        logits = functools.partial(self, text=vocabulary, shortlist=shortlist)
        return segment_image(pixels, logits, self.preset, strategy)

    @torch.no_grad()
    def label(
        self,
        image: str | os.PathLike[str] | np.ndarray | Tensor,
        text: Tensor,
        *,
        strategy: Strategy = "sliding",
        shortlist: int | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The best class of every pixel and its score: what is largest in `segment`, by the operator `label_map`.

        On a GPU the scores of all classes at the image's size, T x H x W, never exist. On any device there are maps of
        the classes alone that some window kept.

        Args:
            image, text, strategy, shortlist: as `PCASeg.segment`.

        Returns:
            labels (H, W) int32; confidence (H, W) float in 0..1.
        """
        check_choice(strategy, Strategy, what="strategy")
        pixels, vocabulary = self._prepared(image, text)
        sliding = self.preset.sliding if strategy == "sliding" else None
        if sliding is None:
            inputs = resize(pixels[None], self.preset.image_px)
        else:
            inputs = sliding_inputs(pixels[None], self.preset.image_px, sliding)
        most, T = most_kept(self.shortlist if shortlist is None else shortlist), len(vocabulary.text)
        size = pixels.shape[1], pixels.shape[2]
        if most >= T:
            maps = torch.cat([self(one[None], vocabulary, shortlist=most) for one in inputs])
            labels, confidence = label_map(maps.contiguous(), size, sliding=sliding)
            return labels[0], confidence[0]
        kept = [self.kept_logits(one[None], vocabulary, shortlist=most) for one in inputs]
        maps, shared = join_kept(torch.cat([one[0] for one in kept]), torch.cat([one[1] for one in kept]), T)
        labels, confidence = label_map(maps, size, sliding=sliding)
        return shared[labels[0].long()].int(), confidence[0]

    def _prepared(
        self, image: str | os.PathLike[str] | np.ndarray | Tensor, text: Tensor
    ) -> tuple[Tensor, PreparedVocabulary]:
        """The image's pixels and the vocabulary, in the model's type and place."""
        like = self.aggregator.cost_embedding.weight
        return image_tensor(image).to(like), self.prepare_vocabulary(text.to(like))


def fold_image_tower(model: PCASeg, grid: tuple[int, int]) -> ImageTower:
    """A copy of the image tower that takes 0..255 and holds its position table at `grid`.

    The pixel statistics go into the patch embedding, which has no padding (see `fold_statistics`).
    """
    tower = copy.deepcopy(model.image_tower)
    table = tower.position_table
    resized = resize_position_embedding(table.data.flatten(0, -2), grid)
    table.data = resized.reshape(*table.shape[:-2], *resized.shape)
    patch = tower.trunk.patch_embed.proj if isinstance(tower, EvaTower) else tower.trunk.conv1
    mean, std = model.pixel_mean.double().flatten(), model.pixel_std.double().flatten()
    weight, bias = fold_statistics(*weights_of(patch), mean, std)
    patch.weight.data = weight.to(patch.weight.dtype)
    patch.bias = nn.Parameter(bias.to(patch.weight.dtype))
    return tower
