"""The whole model: image tower, text tower and aggregator put together."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from pcaseg.configs import PIXEL_MEAN, PIXEL_STD, Aggregation, DenseMode, Preset, Strategy, WeightsKind, check_choice
from pcaseg.model.aggregator import Aggregator, Guidance
from pcaseg.model.image_tower import ImageTower, build_image_tower
from pcaseg.model.inference import image_tensor, segment_image
from pcaseg.model.text_tower import TextTower


@dataclass(frozen=True)
class WeightsSource:
    """Origin of a model's weights.

    Attributes:
        kind: labels of any but `checkpoint` mean nothing, though shapes and speed are real.
        path: the file, None when seeded.
        sha256: of the file, or of the drawn tensors when seeded.
        seed: of the drawn tensors, None where nothing was drawn.
    """

    kind: WeightsKind
    path: str | None
    sha256: str
    seed: int | None


class PCASeg(nn.Module):
    """PCA-Seg (`parallel`) or CAT-Seg (`serial`), as published.

    Made by `pcaseg.load_model`, which fills the weights and sets `source`. `shortlist` is the K of calls that give
    none; None for the published 256.
    """

    shortlist: int | None = None

    source: WeightsSource
    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, preset: Preset, *, aggregation: Aggregation, dense_mode: DenseMode) -> None:
        super().__init__()
        self.preset, self.aggregation, self.dense_mode = preset, aggregation, dense_mode
        self.image_tower = build_image_tower(preset, dense_mode)
        self.text_tower = TextTower(preset)
        self.tap_upsample = nn.ModuleList(
            nn.ConvTranspose2d(preset.vision_width, width, kernel_size=scale, stride=scale)
            for width, scale in zip(preset.tap_widths, (2, 4), strict=True)
        )
        self.aggregator = Aggregator(preset, aggregation)
        self.register_buffer("pixel_mean", torch.tensor(PIXEL_MEAN)[:, None, None], persistent=False)
        self.register_buffer("pixel_std", torch.tensor(PIXEL_STD)[:, None, None], persistent=False)

    def forward(
        self,
        images: Tensor,
        text: Tensor,
        *,
        class_pooling: tuple[int, int] = (1, 1),
        fod_terms: list[Tensor] | None = None,
        shortlist: int | None = None,
    ) -> Tensor:
        """Logits of images or windows that have the model's input size.

        Args:
            images: (B, 3, R, R') float RGB in 0..255; sides are multiples of patch x window
                (192 for a 16-pixel patch), R = R' = the preset's size in evaluation.
            text: (T, P, D) or (B, T, P, D) float, of `encode_text`.
            class_pooling: see `Aggregator.forward`.
            fod_terms: see `Aggregator.forward`.
            shortlist: classes of each image that are aggregated at most, 1 to 256; None for the model's own.

        Returns:
            (B, T, 4H, 4W) float, H = R / patch.

        Raises:
            PcasegError: `shortlist` is out of range.
        """
        features, guidance = self.encode_image(images)
        kept = self.shortlist if shortlist is None else shortlist
        result: Tensor = self.aggregator(
            features, text, guidance, class_pooling=class_pooling, fod_terms=fod_terms, shortlist=kept
        )
        return result

    def kept_logits(self, images: Tensor, text: Tensor, *, shortlist: int | None = None) -> tuple[Tensor, Tensor]:
        """Logits of the kept classes alone: what `forward` gives, without the maps of the others.

        Args:
            images, text, shortlist: as `forward`.

        Returns:
            logits (B, min(T, K), 4H, 4W) float; their classes (B, min(T, K)) int64, ascending.
        """
        features, guidance = self.encode_image(images)
        kept = self.shortlist if shortlist is None else shortlist
        return self.aggregator.aggregate_kept(features, text, guidance, shortlist=kept)

    def encode_text(self, names: Sequence[str]) -> Tensor:
        """Embeds class names: (T, P, D) float, unit norm.

        Raises:
            VocabularyError: the list is empty, has blank, over-long or repeated names.
        """
        return self.text_tower.encode_names(names)

    def encode_image(self, images: Tensor) -> tuple[Tensor, Guidance]:
        """Everything that depends on the image alone.

        Args:
            images: (B, 3, R, R') float RGB in 0..255.

        Returns:
            features (B, D, H, W); guidance: the features again, and the taps upsampled to (B, 256, 2H, 2W)
            and (B, 128, 4H, 4W).
        """
        normalised = (images - self.pixel_mean) / self.pixel_std
        return features_and_guidance(self.image_tower, self.tap_upsample, normalised)

    @torch.no_grad()
    def segment(
        self,
        image: str | os.PathLike[str] | np.ndarray | Image.Image | Tensor,
        text: Tensor,
        *,
        strategy: Strategy = "sliding",
        shortlist: int | None = None,
    ) -> Tensor:
        """Scores of every class at every pixel of one image of any size.

        Args:
            image: an image file of any common kind (see `pcaseg.images.read_image`); a Pillow image, or an array, uint8
                or uint16, grey, RGB or with alpha (see `pcaseg.images.as_rgb`); or (H, W, 3) float RGB in 0..255,
                taken as it is.
            text: (T, P, D) float, of `encode_text`.
            strategy: `single` resizes the image to the model's input; `sliding` is the evaluation protocol,
                four windows and the whole image.
            shortlist: as `forward`; each window has its own.

        Returns:
            (T, H, W) float in 0..1; the label of a pixel is the argmax over T.

        Raises:
            ImageError: the image cannot be read, or the array has no defined meaning.
            PcasegError: unknown strategy, or `shortlist` is out of range.
        """
        check_choice(strategy, Strategy, what="strategy")
        pixels = image_tensor(image).to(self.pixel_mean)
        text = text.to(self.pixel_mean)
        return segment_image(pixels, lambda windows: self(windows, text, shortlist=shortlist), self.preset, strategy)


def features_and_guidance(tower: ImageTower, tap_upsample: nn.ModuleList, images: Tensor) -> tuple[Tensor, Guidance]:
    """Runs a tower and lays its outputs out as maps; see `PCASeg.encode_image`.

    Args:
        tower: the image tower.
        tap_upsample: the transposed convolutions of the two taps.
        images: (B, 3, R, R') as the tower takes them.
    """
    grid = tower.grid_of(images)
    features, taps = tower(images)
    features, *taps = (tokens.transpose(1, 2).unflatten(2, grid) for tokens in (features, *taps))
    first, second = (upsample(tap) for upsample, tap in zip(tap_upsample, taps, strict=True))
    return features, (features, first, second)
