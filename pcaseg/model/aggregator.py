"""The aggregator: cost volume, aggregation layers (parallel or serial), decoder."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from pcaseg.configs import Aggregation, Preset, most_kept
from pcaseg.model.cost_volume import best_classes, cost_volume, restore_classes, take_classes, take_maps
from pcaseg.model.decoder import Decoder
from pcaseg.model.epl import EPL
from pcaseg.model.fod import fod
from pcaseg.model.precision import unit_norm
from pcaseg.model.semantic_stream import SemanticStream
from pcaseg.model.spatial_stream import SpatialStream

Guidance = tuple[Tensor, Tensor, Tensor]
"""What the image gives besides its features: for the spatial stream (B, D, H, W), for the decoder
(B, 256, 2H, 2W) and (B, 128, 4H, 4W)."""


class ParallelLayer(nn.Module):
    """PCA-Seg's layer: both streams read the same volume, an EPL merges them; twice."""

    def __init__(self, preset: Preset) -> None:
        super().__init__()
        self.spatial_first, self.spatial_second = _spatial(preset), _spatial(preset)
        self.semantic_first, self.semantic_second = _semantic(preset), _semantic(preset)
        self.epl_first, self.epl_second = EPL(preset.hidden), EPL(preset.hidden)

    def forward(
        self, x: Tensor, image: Tensor, text: Tensor, class_pooling: tuple[int, int], fod_terms: list[Tensor] | None
    ) -> Tensor:
        """x (B, T, H, W, C), image guidance (B, H, W, C), text guidance (B, T, C) -> (B, T, H, W, C)."""
        for spatial, semantic, epl in (
            (self.spatial_first, self.semantic_first, self.epl_first),
            (self.spatial_second, self.semantic_second, self.epl_second),
        ):
            s, m = spatial(x, image), semantic(x, text, class_pooling)
            if fod_terms is not None:
                fod_terms.append(fod(s, m))
            x = epl(s, m)
        return x


class SerialLayer(nn.Module):
    """CAT-Seg's layer: the semantic stream reads what the spatial stream made."""

    def __init__(self, preset: Preset) -> None:
        super().__init__()
        self.spatial, self.semantic = _spatial(preset), _semantic(preset)

    def forward(
        self, x: Tensor, image: Tensor, text: Tensor, class_pooling: tuple[int, int], fod_terms: list[Tensor] | None
    ) -> Tensor:
        """As `ParallelLayer.forward`; there is no EPL, so no FOD term."""
        result: Tensor = self.semantic(self.spatial(x, image), text, class_pooling)
        return result


class AddedLayer(nn.Module):
    """PCA-Seg's streams without its EPLs: their sum instead, twice. For ablations."""

    def __init__(self, preset: Preset) -> None:
        super().__init__()
        self.spatial_first, self.spatial_second = _spatial(preset), _spatial(preset)
        self.semantic_first, self.semantic_second = _semantic(preset), _semantic(preset)

    def forward(
        self, x: Tensor, image: Tensor, text: Tensor, class_pooling: tuple[int, int], fod_terms: list[Tensor] | None
    ) -> Tensor:
        """As `ParallelLayer.forward`; the streams' cosine is given as there."""
        for spatial, semantic in (
            (self.spatial_first, self.semantic_first),
            (self.spatial_second, self.semantic_second),
        ):
            s, m = spatial(x, image), semantic(x, text, class_pooling)
            if fod_terms is not None:
                fod_terms.append(fod(s, m))
            x = s + m
        return x


LAYERS: dict[Aggregation, type[ParallelLayer] | type[SerialLayer] | type[AddedLayer]] = {
    "parallel": ParallelLayer,
    "serial": SerialLayer,
    "added": AddedLayer,
}


def _spatial(preset: Preset) -> SpatialStream:
    return SpatialStream(preset.hidden, preset.heads, preset.window, (preset.grid, preset.grid))


def _semantic(preset: Preset) -> SemanticStream:
    return SemanticStream(preset.hidden, preset.heads, preset.class_padding)


class Aggregator(nn.Module):
    """From features and text to one logit map per class."""

    def __init__(self, preset: Preset, aggregation: Aggregation) -> None:
        super().__init__()
        C, D = preset.hidden, preset.embed_dim
        self.cost_embedding = nn.Conv2d(preset.prompts, C, 7, padding=3)
        self.image_guidance = nn.Conv2d(D, C, 3, padding=1)
        self.text_guidance = nn.Linear(D, C)
        self.decoder_guidance = nn.ModuleList(
            nn.Conv2d(tap, width, 3, padding=1)
            for tap, width in zip(preset.tap_widths, preset.decoder_guidance_widths, strict=True)
        )
        self.layers = nn.ModuleList(LAYERS[aggregation](preset) for _ in range(preset.layers))
        self.decoder = Decoder(C, preset.decoder_widths, preset.decoder_guidance_widths)

    def forward(
        self,
        features: Tensor,
        text: Tensor,
        guidance: Guidance,
        *,
        class_pooling: tuple[int, int] = (1, 1),
        fod_terms: list[Tensor] | None = None,
        shortlist: int | None = None,
    ) -> Tensor:
        """Logits of every class.

        Args:
            features: (B, D, H, W) float; the cosine normalises them.
            text: (T, P, D) float, shared by the images, or (B, T, P, D). Above T = K the best K classes of each
                image are aggregated, as if they were the whole vocabulary, and the others get -100.
            guidance: see `Guidance`.
            class_pooling: (2, 2) in the published training, (1, 1) in evaluation.
            fod_terms: if a list, each EPL's FOD value (see `fod`) is appended to it.
            shortlist: K, 1 to 256; None for the published 256.

        Returns:
            (B, T, 4H, 4W) float.

        Raises:
            PcasegError: `shortlist` is out of range.
        """
        T = text.shape[-3]
        if most_kept(shortlist) < T:
            logits, kept = self.aggregate_kept(
                features, text, guidance, class_pooling=class_pooling, fod_terms=fod_terms, shortlist=shortlist
            )
            return restore_classes(logits, kept, T)
        text = text_per_image(text, features.shape[0])
        return self.aggregate(cost_volume(features, text), text, guidance, class_pooling, fod_terms)

    def aggregate_kept(
        self,
        features: Tensor,
        text: Tensor,
        guidance: Guidance,
        *,
        class_pooling: tuple[int, int] = (1, 1),
        fod_terms: list[Tensor] | None = None,
        shortlist: int | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Logits of the kept classes alone.

        A class is scored by its highest cosine over prompts and positions; of equal ones the lowest is kept.

        Args:
            features, text, guidance, class_pooling, fod_terms, shortlist: as `forward`.

        Returns:
            logits (B, min(T, K), 4H, 4W) float; their classes (B, min(T, K)) int64, ascending.
        """
        text = text_per_image(text, features.shape[0])
        volume = cost_volume(features, text)
        kept = best_classes(volume, most_kept(shortlist))
        volume, text = take_maps(volume, kept), take_classes(text, kept)
        return self.aggregate(volume, text, guidance, class_pooling, fod_terms), kept

    def aggregate(
        self,
        volume: Tensor,
        text: Tensor,
        guidance: Guidance,
        class_pooling: tuple[int, int] = (1, 1),
        fod_terms: list[Tensor] | None = None,
    ) -> Tensor:
        """Aggregates all classes: volume (B, P, T, H, W), text (B, T, P, D), T at most 256 -> (B, T, 4H, 4W)."""
        image_guidance, text_guidance, decoder_guidance = self.project_guidance(text, guidance)
        x = self.embed(volume)
        for layer in self.layers:
            x = layer(x, image_guidance, text_guidance, class_pooling, fod_terms)
        result: Tensor = self.decoder(x, decoder_guidance)
        return result

    def embed(self, volume: Tensor) -> Tensor:
        """Embeds each class's map alone by the 7 x 7 convolution: (B, P, T, H, W) -> (B, T, H, W, C)."""
        maps = volume.transpose(1, 2)
        result: Tensor = self.cost_embedding(maps.flatten(0, 1)).permute(0, 2, 3, 1).unflatten(0, maps.shape[:2])
        return result

    def project_guidance(self, text: Tensor, guidance: Guidance) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
        """Projects what guides the streams and the decoder.

        Returns:
            image (B, H, W, C), text (B, T, C), decoder (B, G1, 2H, 2W) and (B, G2, 4H, 4W), all at least 0.
        """
        spatial, *taps = guidance
        image = F.relu(self.image_guidance(spatial)).permute(0, 2, 3, 1)
        words = F.relu(self.text_guidance(unit_norm(text.mean(dim=2), dim=-1)))
        first, second = (F.relu(project(tap)) for project, tap in zip(self.decoder_guidance, taps, strict=True))
        return image, words, (first, second)


def text_per_image(text: Tensor, batch: int) -> Tensor:
    """(T, P, D) or (B, T, P, D) -> (B, T, P, D).

    Raises:
        ValueError: another number of axes, or per-image text for another number of images.
    """
    if text.dim() == 3:
        text = text[None].expand(batch, -1, -1, -1)
    if text.dim() != 4 or text.shape[0] != batch:
        raise ValueError(f"text of shape {tuple(text.shape)}: expected (T, P, D) or ({batch}, T, P, D)")
    return text
