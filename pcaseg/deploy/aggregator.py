"""The folded aggregator: from features and a prepared vocabulary to one logit map per class."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pcaseg.configs import DROPPED_LOGIT, MAX_CLASSES, most_kept
from pcaseg.deploy.decoder import FoldedDecoder
from pcaseg.deploy.epl import FoldedEPL
from pcaseg.deploy.semantic import FoldedSemanticStream
from pcaseg.deploy.spatial import FoldedSpatialStream, Share
from pcaseg.errors import PcasegError
from pcaseg.kernels.cost_volume import cost_volume
from pcaseg.model.aggregator import Aggregator, Guidance, ParallelLayer, SerialLayer, text_per_image
from pcaseg.model.cost_volume import best_classes, rank_classes, restore_classes, take_classes, take_maps
from pcaseg.model.cost_volume import cost_volume as model_cost_volume
from pcaseg.model.precision import unit_norm, wide
from pcaseg.model.semantic_stream import pool_positions, upsample_positions

Layer = TypeVar("Layer", bound=nn.Module)


@dataclass(frozen=True)
class PreparedVocabulary:
    """All that depends on the vocabulary alone.

    Attributes:
        text: (T, P, D) or (B, T, P, D) float, unit norm.
        shares: for each semantic stream, what the text adds to q and k: (T, 2C) or (B, T, 2C).
    """

    text: Tensor
    shares: tuple[Tensor, ...]


class FoldedAggregator(nn.Module):
    """Computes what `Aggregator` computes, on one grid, at a cost that follows the number of classes."""

    def __init__(self, aggregator: Aggregator, grid: tuple[int, int], dtype: torch.dtype) -> None:
        super().__init__()
        self.grid = grid
        self.cost_embedding = _copy(aggregator.cost_embedding, dtype)
        self.image_guidance = _copy(aggregator.image_guidance, dtype)
        self.text_guidance = _copy(aggregator.text_guidance, dtype)
        self.decoder_guidance = nn.ModuleList(_copy(layer, dtype) for layer in aggregator.decoder_guidance)
        self.steps: Sequence[ParallelStep | SerialStep] = nn.ModuleList(_steps(aggregator, grid, dtype))  # type: ignore[assignment]
        self.decoder = FoldedDecoder(aggregator.decoder, grid, dtype)

    @property
    def dtype(self) -> torch.dtype:
        """The weights' type."""
        return self.cost_embedding.weight.dtype

    @property
    def map_bytes(self) -> int:
        """Bytes of one class map, HW x C numbers; some are float32 whatever the weights are."""
        size = torch.promote_types(self.dtype, torch.float32).itemsize
        return self.grid[0] * self.grid[1] * self.cost_embedding.out_channels * size

    def prepare_vocabulary(self, text: Tensor) -> PreparedVocabulary:
        """Does the text side's work, once per vocabulary: text (T, P, D) or (B, T, P, D) float.

        Raises:
            ValueError: another number of axes.
        """
        if text.dim() not in (3, 4):
            raise ValueError(f"text of shape {tuple(text.shape)}: expected (T, P, D) or (B, T, P, D)")
        text = wide(text)
        mean = unit_norm(text.mean(dim=-2), dim=-1)
        words = F.relu(self.text_guidance(mean.to(self.dtype)))
        return PreparedVocabulary(unit_norm(text, dim=-1), tuple(step.semantic.share(words) for step in self.steps))

    def forward(
        self,
        features: Tensor,
        text: Tensor | PreparedVocabulary,
        guidance: Guidance,
        *,
        class_pooling: tuple[int, int] = (1, 1),
        chunk: int | None = None,
        shortlist: int | None = None,
    ) -> Tensor:
        """As `Aggregator.forward`.

        Args:
            text: (T, P, D) or (B, T, P, D) float, or what `prepare_vocabulary` made of it.
            chunk: classes at a time, which bounds the memory and on a CPU keeps the work in its caches; None for all.

        Raises:
            PcasegError: `shortlist` is out of range.
        """
        vocabulary = text if isinstance(text, PreparedVocabulary) else self.prepare_vocabulary(text)
        T = vocabulary.text.shape[-3]
        if most_kept(shortlist) < T:
            logits, kept = self.aggregate_kept(
                features, vocabulary, guidance, class_pooling=class_pooling, chunk=chunk, shortlist=shortlist
            )
            return restore_classes(logits, kept, T)
        weight, bias = self.cost_embedding.weight, self.cost_embedding.bias
        assert bias is not None  # `Conv2d` may go without; this one has it
        x = cost_volume(features.permute(0, 2, 3, 1).contiguous(), vocabulary.text.contiguous(), weight, bias)
        shares = [share if share.dim() == 3 else share[None] for share in vocabulary.shares]
        return self.aggregate(x.flatten(2, 3), shares, guidance, class_pooling, chunk)

    def aggregate_kept(
        self,
        features: Tensor,
        text: Tensor | PreparedVocabulary,
        guidance: Guidance,
        *,
        class_pooling: tuple[int, int] = (1, 1),
        chunk: int | None = None,
        shortlist: int | None = None,
    ) -> tuple[Tensor, Tensor]:
        """As `Aggregator.aggregate_kept`, for any T without a branch, so that one traced graph serves all."""
        vocabulary = text if isinstance(text, PreparedVocabulary) else self.prepare_vocabulary(text)
        volume = model_cost_volume(wide(features), text_per_image(vocabulary.text, features.shape[0]))
        kept = best_classes(volume, most_kept(shortlist))
        return self._aggregate_some(volume, kept, vocabulary, guidance, class_pooling, chunk), kept

    def aggregate_best(self, features: Tensor, vocabulary: PreparedVocabulary, guidance: Guidance) -> Tensor:
        """As `forward`, for any T without a branch or a scatter: a graph of all logits.

        The min(T, 256) best classes of each image are aggregated, best first; sums over classes then differ from
        `forward` in their order, by rounding.
        """
        volume = model_cost_volume(wide(features), text_per_image(vocabulary.text, features.shape[0]))
        order = rank_classes(volume)
        kept = order.narrow(1, 0, torch.sym_min(order.shape[1], MAX_CLASSES))
        logits = self._aggregate_some(volume, kept, vocabulary, guidance, (1, 1), None)
        dropped = torch.full_like(logits[:, :1], DROPPED_LOGIT)
        return take_classes(torch.cat([logits, dropped], dim=1), order.argsort(dim=1).clamp(max=MAX_CLASSES))

    def _aggregate_some(
        self,
        volume: Tensor,
        kept: Tensor,
        vocabulary: PreparedVocabulary,
        guidance: Guidance,
        class_pooling: tuple[int, int],
        chunk: int | None,
    ) -> Tensor:
        """Aggregates the classes `kept`, (B, K) int64, alone: volume (B, P, T, H, W) -> (B, K, 4H, 4W)."""
        B = kept.shape[0]
        shares = [share if share.dim() == 3 else share[None] for share in vocabulary.shares]
        shares = [take_classes(share.expand(B, -1, -1), kept) for share in shares]
        return self.aggregate(self.embed(take_maps(volume, kept)), shares, guidance, class_pooling, chunk)

    def aggregate(
        self,
        x: Tensor,
        shares: list[Tensor],
        guidance: Guidance,
        class_pooling: tuple[int, int] = (1, 1),
        chunk: int | None = None,
    ) -> Tensor:
        """x (B, T, HW, C), shares (B or 1, T, 2C) per semantic stream, T at most 256 -> (B, T, 4H, 4W)."""
        spatial, *taps = guidance
        image = F.relu(self.image_guidance(spatial)).flatten(2).transpose(1, 2)
        decoder = self.decoder.shares(
            *(F.relu(project(tap)) for project, tap in zip(self.decoder_guidance, taps, strict=True))
        )
        for step, share in zip(self.steps, shares, strict=True):
            x = step(x, step.spatial.shares(image), share, class_pooling, chunk)
        logits = [self.decoder(x[:, part], decoder) for part in chunks(x.shape[1], chunk)]
        return logits[0] if len(logits) == 1 else torch.cat(logits, dim=1)

    def embed(self, volume: Tensor) -> Tensor:
        """The 7 x 7 embedding of each class's map: (B, P, T, H, W) -> (B, T, HW, C)."""
        maps = volume.transpose(1, 2).to(self.dtype)
        result: Tensor = (
            self.cost_embedding(maps.flatten(0, 1)).permute(0, 2, 3, 1).flatten(1, 2).unflatten(0, maps.shape[:2])
        )
        return result


class Step(nn.Module):
    """Half of a layer: a spatial and a semantic stream on a grid."""

    def __init__(self, spatial: FoldedSpatialStream, semantic: FoldedSemanticStream, grid: tuple[int, int]) -> None:
        super().__init__()
        self.spatial, self.semantic, self.grid = spatial, semantic, grid

    def attention(self, z: Tensor, share: Tensor, chunk: int | None) -> Callable[[slice], Tensor]:
        """Semantic stream of a slice of z's classes; in chunks, the sums over all are made first."""
        if chunk is None:
            whole = self.semantic(z, share)
            return lambda part: whole[:, part]
        sums = self.semantic.padding(z.shape[1])
        for part in chunks(z.shape[1], chunk):
            sums = sums + self.semantic.sums(z[:, part], share[:, part])
        return lambda part: self.semantic.attend(z[:, part], share[:, part], sums)

    def pool(self, x: Tensor, pooling: tuple[int, int]) -> Tensor:
        """(B, T, HW, C) -> (B, T, hw, C)."""
        return x if pooling == (1, 1) else pool_positions(x.unflatten(2, self.grid), pooling).flatten(2, 3)

    def unpool(self, z: Tensor, pooling: tuple[int, int]) -> Tensor:
        """(B, T, hw, C) -> (B, T, HW, C)."""
        if pooling == (1, 1):
            return z
        small = (self.grid[0] // pooling[0], self.grid[1] // pooling[1])
        return upsample_positions(z.unflatten(2, small), self.grid).flatten(2, 3)


class ParallelStep(Step):
    """Half a parallel layer: both streams read x, the EPL merges them."""

    def __init__(
        self, spatial: FoldedSpatialStream, semantic: FoldedSemanticStream, grid: tuple[int, int], epl: FoldedEPL
    ) -> None:
        super().__init__(spatial, semantic, grid)
        self.epl = epl

    def forward(
        self, x: Tensor, image: list[Share], share: Tensor, pooling: tuple[int, int], chunk: int | None
    ) -> Tensor:
        """x (B, T, HW, C), image shares, text share (B or 1, T, 2C) -> (B, T, HW, C)."""
        z = self.pool(x, pooling)
        attended = self.attention(z, share, chunk)

        def merge(part: slice) -> Tensor:
            semantic = x[:, part] + self.unpool(attended(part), pooling)
            result: Tensor = self.epl(self.spatial(x[:, part], image), semantic)
            return result

        return by_chunks(x, chunk, merge)


class SerialStep(Step):
    """A serial layer: the semantic stream reads what the spatial stream made."""

    def forward(
        self, x: Tensor, image: list[Share], share: Tensor, pooling: tuple[int, int], chunk: int | None
    ) -> Tensor:
        """As `ParallelStep.forward`."""
        x = by_chunks(x, chunk, lambda part: self.spatial(x[:, part], image))
        z = self.pool(x, pooling)
        attended = self.attention(z, share, chunk)

        def attend(part: slice) -> Tensor:
            return x[:, part] + self.unpool(attended(part), pooling)

        return by_chunks(x, chunk, attend)


def by_chunks(x: Tensor, chunk: int | None, compute: Callable[[slice], Tensor]) -> Tensor:
    """Applies `compute` to x, (B, T, ...), all classes at once or chunk by chunk, then in x's own memory."""
    if chunk is None:
        return compute(slice(None))
    for part in chunks(x.shape[1], chunk):
        x[:, part] = compute(part)
    return x


def chunks(T: int, chunk: int | None) -> Iterator[slice]:
    """Slices of the class axis, `chunk` at a time; one slice of everything if None."""
    if chunk is None:
        yield slice(None)
        return
    for start in range(0, T, chunk):
        yield slice(start, start + chunk)


def _steps(aggregator: Aggregator, grid: tuple[int, int], dtype: torch.dtype) -> Iterator[ParallelStep | SerialStep]:
    for layer in aggregator.layers:
        if isinstance(layer, ParallelLayer):
            for half in ("first", "second"):
                spatial, semantic, epl = (getattr(layer, f"{part}_{half}") for part in ("spatial", "semantic", "epl"))
                yield ParallelStep(
                    FoldedSpatialStream(spatial, grid, dtype),
                    FoldedSemanticStream(semantic, dtype),
                    grid,
                    FoldedEPL(epl, grid, dtype),
                )
        elif isinstance(layer, SerialLayer):
            yield SerialStep(
                FoldedSpatialStream(layer.spatial, grid, dtype), FoldedSemanticStream(layer.semantic, dtype), grid
            )
        else:
            raise PcasegError("aggregation='added': is for ablations and runs eager only; fold parallel or serial")


def _copy(layer: Layer, dtype: torch.dtype) -> Layer:
    return copy.deepcopy(layer).to(dtype).requires_grad_(False)
