"""Resizing, windows and labels against the same chain written with torch."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pcaseg.configs import Sliding
from pcaseg.errors import PcasegError, VocabularyError
from pcaseg.runtime.resize import bilinear_taps, resize_bilinear, resize_image
from pcaseg.runtime.windows import LABEL_BUDGET_BYTES, label_map, merge_windows, prepare_windows, sigmoid

SIZES = [1, 2, 3, 7, 96, 97, 336, 384, 641]
PIXEL_ATOL = 1e-4  # of 255: a few roundings of float32


def upsampling_atol(size_in: int) -> float:
    """One float32 step of the source coordinate more.

    PyTorch has two CPU kernels that differ by it (one fuses multiply and add) and chooses by size and thread count.
    """
    return PIXEL_ATOL + 255 * float(np.spacing(np.float32(size_in)))


def torch_resize(array: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    batch = torch.from_numpy(np.ascontiguousarray(array, np.float32))
    flat = batch.reshape(1, -1, *batch.shape[-2:])
    resized = F.interpolate(flat, size=size, mode="bilinear", align_corners=False)
    return resized.reshape(*batch.shape[:-2], *size).numpy()


def random_image(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height * 10007 + width).integers(0, 256, (height, width, 3), dtype=np.uint8)


def smooth_scores(classes: int, side: int, *, contrast: float, seed: int = 0) -> np.ndarray:
    """Maps like a network's: regions of a few cells in which one class leads."""
    coarse = np.random.default_rng(seed).standard_normal((classes, 7, 7)).astype(np.float32)
    return sigmoid(resize_bilinear(coarse * contrast - 2, (side, side)))


@pytest.mark.parametrize("size_in", SIZES)
def test_resize_equals_torch(size_in: int) -> None:
    rng = np.random.default_rng(size_in)
    atol = upsampling_atol(max(size_in, 5))
    for size_out in SIZES:
        array = rng.uniform(0, 255, (2, size_in, 5)).astype(np.float32)
        for size in ((size_out, 9), (size_out, 5), (3, size_out)):
            np.testing.assert_allclose(resize_bilinear(array, size), torch_resize(array, size), rtol=0, atol=atol)


def test_resize_of_long_axes_equals_torch() -> None:
    array = np.random.default_rng(0).uniform(0, 255, (3, 8000)).astype(np.float32)
    for size in ((2, 384), (3, 777), (3, 336)):
        np.testing.assert_allclose(resize_bilinear(array, size), torch_resize(array, size), rtol=0, atol=PIXEL_ATOL)


def test_resize_leaves_its_input_alone_and_returns_new_memory() -> None:
    array = np.ones((2, 4, 4), np.float32)
    for size in ((4, 4), (4, 2), (2, 4)):
        resized = resize_bilinear(array, size)
        resized[:] = 7
        assert (array == 1).all()


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (480, 640), (384, 384), (31, 1200)])
def test_resize_image_equals_torch(size: tuple[int, int]) -> None:
    image = random_image(*size)
    for view in (image, image[::-1, :, ::-1]):
        expected = torch_resize(view.transpose(2, 0, 1), (384, 384))
        np.testing.assert_allclose(resize_image(view, (384, 384)), expected, rtol=0, atol=upsampling_atol(max(size)))


def test_resize_image_reads_only_what_it_needs() -> None:
    image = np.zeros((6000, 8000, 3), np.uint8)
    tracemalloc.start()
    try:
        assert resize_image(image, (384, 384)).shape == (3, 384, 384)
        assert tracemalloc.get_traced_memory()[1] < 64 << 20  # the image in float32 is 576 MB
    finally:
        tracemalloc.stop()


def test_taps_of_an_empty_axis_are_refused() -> None:
    with pytest.raises(ValueError, match="must be 1 or more"):
        bilinear_taps(0, 4)


def torch_prepare(image: np.ndarray, side: int) -> np.ndarray:
    """The published protocol, window by window."""
    planes = image.transpose(2, 0, 1)
    canvas = torch_resize(planes, (640, 640))
    crops = [canvas[:, top : top + 384, left : left + 384] for top in (0, 256) for left in (0, 256)]
    crops.append(torch_resize(planes, (384, 384)))
    return np.stack([torch_resize(crop, (side, side)) for crop in crops])


def torch_merge(logits: np.ndarray) -> torch.Tensor:
    maps = F.interpolate(torch.from_numpy(logits), size=(384, 384), mode="bilinear", align_corners=False).sigmoid()
    total, count = torch.zeros(logits.shape[1], 640, 640), torch.zeros(640, 640)
    for part, (top, left) in zip(maps, [(0, 0), (0, 256), (256, 0), (256, 256)], strict=False):
        total[:, top : top + 384, left : left + 384] += part
        count[top : top + 384, left : left + 384] += 1
    whole = F.interpolate(maps[4:], size=(640, 640), mode="bilinear", align_corners=False)[0]
    return (total / count + whole) / 2


@pytest.mark.parametrize("side", [384, 336])
def test_windows_equal_the_published_protocol(side: int) -> None:
    image = random_image(480, 641)
    windows = prepare_windows(image, "sliding", image_px=side, sliding=Sliding())
    assert windows.shape == (5, 3, side, side) and windows.dtype == np.float32
    np.testing.assert_allclose(windows, torch_prepare(image, side), rtol=0, atol=3 * upsampling_atol(641))
    single = prepare_windows(image, "single", image_px=side, sliding=Sliding())
    whole = torch_resize(image.transpose(2, 0, 1), (side, side))
    np.testing.assert_allclose(single[0], whole, rtol=0, atol=upsampling_atol(641))


def test_labels_of_the_sliding_protocol_equal_torch() -> None:
    logits = np.random.default_rng(0).normal(0, 3, (5, 6, 96, 96)).astype(np.float32)
    scores = merge_windows(logits, "sliding", Sliding())
    expected = torch_merge(logits)
    np.testing.assert_allclose(scores, expected.numpy(), rtol=0, atol=2e-5)
    labels, confidence = label_map(scores, (480, 641))
    best = F.interpolate(expected[None], size=(480, 641), mode="bilinear", align_corners=False)[0]
    np.testing.assert_allclose(confidence, best.amax(0).numpy(), rtol=0, atol=5e-5)
    differing = labels != best.argmax(0).numpy()
    margin = best.topk(2, dim=0).values
    assert ((margin[0] - margin[1]).numpy()[differing] < 1e-4).all()  # only where rounding decides
    assert differing.mean() < 1e-3


def test_single_is_the_sigmoid() -> None:
    logits = np.array([-100, -1, 0, 30], np.float32).reshape(1, 4, 1, 1)
    with np.errstate(all="raise", under="ignore"):
        scores = merge_windows(logits, "single", Sliding())
    np.testing.assert_allclose(scores, torch.from_numpy(logits[0]).sigmoid().numpy(), rtol=1e-6, atol=1e-30)


def test_wrong_strategy_or_window_count_is_refused() -> None:
    with pytest.raises(PcasegError, match="strategy='double'"):
        prepare_windows(random_image(4, 4), "double", image_px=8, sliding=Sliding())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="expects the logits of 5 windows, got 1"):
        merge_windows(np.zeros((1, 2, 4, 4), np.float32), "sliding", Sliding())


@pytest.mark.parametrize("contrast", [4, 0.5, 0.01])
@pytest.mark.parametrize("size", [(1, 1), (5, 300), (96, 96), (97, 193), (480, 640)])
@pytest.mark.parametrize("classes", [1, 2, 40])
def test_label_map_equals_the_whole_array(classes: int, size: tuple[int, int], contrast: float) -> None:
    scores = smooth_scores(classes, 96, contrast=contrast)
    labels, confidence = label_map(scores, size)
    whole = resize_bilinear(scores, size)
    assert labels.dtype == np.uint16 and confidence.dtype == np.float32
    np.testing.assert_array_equal(labels, whole.argmax(0))
    np.testing.assert_array_equal(confidence, whole.max(0))


@pytest.mark.parametrize("shape", [(3, 1, 1), (3, 1, 9), (3, 9, 1), (70, 2, 2)])
def test_label_map_of_few_points(shape: tuple[int, ...]) -> None:
    scores = np.random.default_rng(0).random(shape, dtype=np.float32)
    np.testing.assert_array_equal(label_map(scores, (130, 140))[0], resize_bilinear(scores, (130, 140)).argmax(0))


def test_equal_scores_give_the_lowest_label() -> None:
    scores = np.zeros((4, 96, 96), np.float32)
    scores[1:3] = 0.5
    labels, confidence = label_map(scores, (600, 700))
    assert (labels == 1).all() and (confidence == 0.5).all()


def test_label_map_keeps_to_its_memory() -> None:
    scores = smooth_scores(150, 96, contrast=3)
    tracemalloc.start()
    try:
        labels, confidence = label_map(scores, (6000, 8000))
        extra = tracemalloc.get_traced_memory()[1] - labels.nbytes - confidence.nbytes
    finally:
        tracemalloc.stop()
    assert extra < LABEL_BUDGET_BYTES
    assert labels[0, 0] == scores[:, 0, 0].argmax() and labels[-1, -1] == scores[:, -1, -1].argmax()


def test_label_map_keeps_to_its_memory_for_many_undecided_classes() -> None:
    scores = np.random.default_rng(0).random((847, 64, 64), dtype=np.float32)
    tracemalloc.start()
    try:
        labels, confidence = label_map(scores, (150, 150))
        extra = tracemalloc.get_traced_memory()[1] - labels.nbytes - confidence.nbytes
    finally:
        tracemalloc.stop()
    assert extra < LABEL_BUDGET_BYTES
    np.testing.assert_array_equal(labels, resize_bilinear(scores, (150, 150)).argmax(0))


def test_too_many_classes_for_the_labels() -> None:
    with pytest.raises(VocabularyError, match="65536 classes do not fit 16-bit labels"):
        label_map(np.zeros((65536, 1, 1), np.float32), (1, 1))
