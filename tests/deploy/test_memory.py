"""The memory that the folded aggregator says it takes is what it takes."""

from __future__ import annotations

import weakref
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from support import SMALL_EVA, small_model
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import pcaseg
from pcaseg.configs import get_preset
from pcaseg.deploy.aggregator import FoldedAggregator
from pcaseg.deploy.memory import largest_chunk, peak_mib, usual_chunk
from pcaseg.errors import PcasegError
from pcaseg.kernels.registry import plain_operators
from pcaseg.model.aggregator import Aggregator


class LiveBytes(TorchDispatchMode):
    """Counts the storage of tensors made while it is open, and the most that were alive at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.alive = self.peak = 0
        self.known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage()._cdata not in self.known:
                storage = tensor.untyped_storage()
                self.known.add(storage._cdata)
                self.alive += storage.nbytes()
                weakref.finalize(storage, self._drop, storage._cdata, storage.nbytes())
        self.peak = max(self.peak, self.alive)
        return out

    def _drop(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.alive -= size


@pytest.fixture(scope="module")
def aggregator() -> FoldedAggregator:
    """With the published sizes, which the constants are for."""
    preset = get_preset("eva-b-384")
    torch.manual_seed(0)
    return FoldedAggregator(Aggregator(preset, "parallel").eval(), (24, 24), torch.float32)


@torch.no_grad()
@pytest.mark.slow
def test_peak_of_the_largest_vocabulary(aggregator):
    check_peak(aggregator, 1, 300, 8)


@torch.no_grad()
@pytest.mark.parametrize(("B", "T", "chunk"), [(1, 12, 1), (1, 12, 4), (2, 12, 4), (1, 20, None)])
def test_peak_is_as_stated(aggregator, B, T, chunk):
    check_peak(aggregator, B, T, chunk)


def check_peak(aggregator: FoldedAggregator, B: int, T: int, chunk: int | None) -> None:
    features = torch.randn(B, 512, 24, 24)
    guidance = (features, torch.randn(B, 256, 48, 48), torch.randn(B, 128, 96, 96))
    vocabulary = aggregator.prepare_vocabulary(F.normalize(torch.randn(T, 1, 512), dim=-1))
    with plain_operators(), LiveBytes() as live:  # what operators make within themselves is counted too
        aggregator(features, vocabulary, guidance, chunk=chunk)
    stated = peak_mib(B, T, chunk, map_bytes=aggregator.map_bytes)
    assert 0.6 * stated < live.peak / 2**20 <= stated


def test_largest_chunk_is_the_largest():
    for budget, images, classes in ((500, 1, 100), (500, 3, 60), (10_000, 5, 256), (800, 5, 256)):
        chunk = largest_chunk(budget, images, classes, map_bytes=294_912)
        assert peak_mib(images, classes, chunk, map_bytes=294_912) <= budget
        assert chunk == classes or peak_mib(images, classes, chunk + 1, map_bytes=294_912) > budget
    assert largest_chunk(50, 1, 20, map_bytes=294_912) == 1
    with pytest.raises(PcasegError, match="memory_mib=40: 1 images with 20 classes need 50 MiB at least; raise"):
        largest_chunk(40, 1, 20, map_bytes=294_912)


def test_usual_chunks_follow_device_images_and_classes():
    published, tiny = 24 * 24 * 128 * 4, 12 * 12 * 32 * 4
    cases = {("cpu", 1, 8): None, ("cpu", 1, 9): 8, ("cpu", 5, 150): 1, ("cpu", 2, 256): 4, ("cuda", 5, 256): None}
    for (device, images, classes), chunk in cases.items():
        assert usual_chunk(device, images, classes, map_bytes=published) == chunk
    assert usual_chunk("cpu", 1, 53, map_bytes=tiny) is None


@torch.no_grad()
def test_a_call_without_a_chunk_takes_the_usual_one():
    model, text = small_model(SMALL_EVA), F.normalize(torch.randn(140, 1, 64), dim=-1)
    folded, taken = pcaseg.fold(model), []
    folded.aggregator.decoder.register_forward_hook(lambda _, inputs, out: taken.append(inputs[0].shape[1]))
    folded(torch.rand(1, 3, 96, 96) * 255, text)
    folded(torch.rand(1, 3, 96, 96) * 255, text, chunk=140)
    folded(torch.rand(1, 3, 96, 96) * 255, text, shortlist=30)
    assert taken == [128, 12, 140, 30]


@torch.no_grad()
def test_a_budget_changes_no_result():
    model = small_model(SMALL_EVA)
    images, text = torch.rand(2, 3, 96, 96) * 255, F.normalize(torch.randn(30, 1, 64), dim=-1)
    free, tight = pcaseg.fold(model)(images, text), pcaseg.fold(model, memory_mib=8)(images, text)
    torch.testing.assert_close(tight, free, rtol=1e-4, atol=1e-4)
    with pytest.raises(PcasegError, match="memory_mib=1: 2 images with 30 classes need"):
        pcaseg.fold(model, memory_mib=1)(images, text)
