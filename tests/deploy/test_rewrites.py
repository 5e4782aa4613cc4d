"""Each exact rewrite alone, in float64, against the part of the reference that it replaces."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from support import SMALL_EVA, SMALL_OPENAI, small_model
from torch import Tensor, nn

from pcaseg.deploy.algebra import compose, fold_batch_norm, fold_layer_norm, fold_statistics, split_guidance, weights_of
from pcaseg.deploy.decoder import FoldedDecoder, FoldedUpBlock
from pcaseg.deploy.epl import FoldedEPL
from pcaseg.deploy.folded import fold, fold_image_tower
from pcaseg.deploy.semantic import FoldedSemanticStream
from pcaseg.deploy.spatial import FoldedSpatialStream, rectangles
from pcaseg.model.decoder import Decoder
from pcaseg.model.epl import EPL
from pcaseg.model.semantic_stream import SemanticStream
from pcaseg.model.spatial_stream import SpatialStream

C, HEADS = 32, 4
RELATIVE = 1e-9


@pytest.fixture(autouse=True)
def float64() -> Iterator[None]:
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    with torch.no_grad():
        yield
    torch.set_default_dtype(torch.float32)


def randomise(module: nn.Module) -> nn.Module:
    """Random weights everywhere: biases, norms, padding tokens and statistics away from 0 and 1."""
    for name, tensor in module.state_dict().items():
        if name.endswith("running_var"):
            tensor.copy_(0.5 + torch.rand_like(tensor))
        elif tensor.is_floating_point() and not name.endswith("attn_mask"):
            tensor.copy_(torch.randn_like(tensor) * (0.5 if tensor.dim() < 2 else tensor[0].numel() ** -0.5))
    return module.eval()


def assert_same(values: Tensor, reference: Tensor) -> None:
    assert values.shape == reference.shape
    assert (values - reference).abs().max() <= RELATIVE * reference.abs().max()


def test_statistics_into_a_convolution():
    conv, mean, std = (
        randomise(nn.Conv2d(3, 8, 4, 4)),
        torch.tensor([120.0, 115.0, 104.0]),
        torch.tensor([68.0, 66.0, 70.0]),
    )
    images = torch.rand(2, 3, 12, 20) * 255
    weight, bias = fold_statistics(*weights_of(conv), mean, std)
    reference = conv((images - mean[:, None, None]) / std[:, None, None])
    assert_same(F.conv2d(images, weight, bias, stride=4), reference)


@pytest.mark.parametrize("preset", [SMALL_EVA, SMALL_OPENAI], ids=["eva", "openai"])
def test_statistics_and_positions_of_a_tower(preset):
    model = small_model(preset).double()
    images = torch.rand(2, 3, 96, 96) * 255
    features, taps = fold_image_tower(model, (12, 12))(images)
    reference, reference_taps = model.image_tower((images - model.pixel_mean) / model.pixel_std)
    for value, expected in zip((features, *taps), (reference, *reference_taps), strict=True):
        assert_same(value, expected)


def test_layer_norm_into_a_linear_layer():
    norm, linear, x = randomise(nn.LayerNorm(C)), randomise(nn.Linear(C, 7)), torch.randn(5, C)
    weight, bias = fold_layer_norm(*weights_of(linear), norm)
    assert_same(F.linear(F.layer_norm(x, (C,)), weight, bias), linear(norm(x)))


def test_batch_norm_into_a_convolution():
    conv, norm, x = randomise(nn.Conv2d(C, 8, 1)), randomise(nn.BatchNorm2d(8)), torch.randn(2, C, 3, 4)
    weight, bias = weights_of(conv)
    weight, bias = fold_batch_norm(weight[:, :, 0, 0], bias, norm)
    assert_same(F.conv2d(x, weight[:, :, None, None], bias), norm(conv(x)))


def test_two_linear_maps_as_one():
    inner, outer, x = randomise(nn.Linear(C, 6)), randomise(nn.Linear(6, 4)), torch.randn(5, C)
    assert_same(F.linear(x, *compose(weights_of(outer), weights_of(inner))), outer(inner(x)))


def test_guidance_split_off():
    linear, x, guidance = randomise(nn.Linear(2 * C, C)), torch.randn(4, 5, C), torch.randn(5, C)
    of_x, of_guidance = split_guidance(linear.weight)
    joined = torch.cat([x, guidance.expand(4, -1, -1)], dim=-1)
    assert_same(F.linear(x, of_x, linear.bias) + F.linear(guidance, of_guidance), linear(joined))


@pytest.mark.parametrize(("grid", "window"), [((12, 12), 6), ((12, 24), 6), ((24, 24), 12), ((6, 6), 6), ((15, 10), 5)])
def test_spatial_stream(grid, window):
    stream = randomise(SpatialStream(C, HEADS, window, grid))
    x, guidance = torch.randn(2, 3, *grid, C), torch.rand(2, *grid, C)
    folded = FoldedSpatialStream(stream, grid, torch.float64)
    values = folded(x.flatten(2, 3), folded.shares(guidance.flatten(1, 2)))
    assert_same(values.unflatten(2, grid), stream(x, guidance))


def test_shifted_windows_are_nine_rectangles():
    order, groups = rectangles((24, 24), 12, 6)
    assert groups == [(1, 144), (4, 72), (4, 36)]
    assert sorted(order.tolist()) == list(range(576))
    products = sum(count * area**2 for count, area in groups)
    assert 1 - products / (4 * 144**2) == pytest.approx(0.4375)
    assert rectangles((24, 24), 12, 0)[1] == [(4, 144)]


@pytest.mark.parametrize("T", [1, 2, 7, 20, 150, 255, 256])
def test_semantic_stream(T):
    """The padding to 256 classes as a constant, in one pass and in chunks of classes."""
    stream, grid = randomise(SemanticStream(C, HEADS)), (3, 4)
    x, guidance = torch.randn(2, T, *grid, C), torch.rand(2, T, C)
    folded, z = FoldedSemanticStream(stream, torch.float64), x.flatten(2, 3)
    share = folded.share(guidance)
    sums = folded.padding(T) + folded.sums(z, share)
    reference = stream(x, guidance, (1, 1))
    assert_same((z + folded.attend(z, share, sums)).unflatten(2, grid), reference)
    sums = folded.padding(T)
    for start in range(0, T, 60):
        sums = sums + folded.sums(z[:, start : start + 60], share[:, start : start + 60])
    parts = [folded.attend(z[:, i : i + 60], share[:, i : i + 60], sums) for i in range(0, T, 60)]
    assert_same((z + torch.cat(parts, dim=1)).unflatten(2, grid), reference)


@pytest.mark.parametrize("grid", [(6, 6), (5, 9), (1, 1)])
def test_epl(grid):
    epl = randomise(EPL(C))
    spatial, semantic = torch.randn(2, 3, *grid, C), torch.randn(2, 3, *grid, C)
    values = FoldedEPL(epl, grid, torch.float64)(spatial.flatten(2, 3), semantic.flatten(2, 3))
    assert_same(values.unflatten(2, grid), epl(spatial, semantic))


@pytest.mark.parametrize("grid", [(4, 4), (3, 7), (1, 1)])
def test_upsampling_and_first_convolution(grid):
    block = randomise(Decoder(C, (16, 16), (8, 8))).up1
    folded = FoldedUpBlock(block, grid, torch.float64)
    x, guidance = torch.randn(6, C, *grid), torch.rand(2, 8, 2 * grid[0], 2 * grid[1])
    assert_same(folded(x, folded.share(guidance)), block(x, guidance))


def test_decoder():
    decoder, grid = randomise(Decoder(C, (32, 16), (16, 8))), (4, 6)
    x = torch.randn(2, 3, *grid, C)
    guidance = torch.rand(2, 16, 8, 12), torch.rand(2, 8, 16, 24)
    folded = FoldedDecoder(decoder, grid, torch.float64)
    assert_same(folded(x.flatten(2, 3), folded.shares(*guidance)), decoder(x, guidance))


SETTINGS = [(1, (1, 1), None), (7, (2, 2), 3), (20, (1, 1), 8)]
MANY = (258, (1, 1), 100)
"""Classes, pooling and chunk: above 256 classes the best are chosen for each image."""


@pytest.mark.parametrize(
    ("preset", "aggregation", "T", "pooling", "chunk"),
    [
        *((SMALL_EVA, aggregation, *setting) for aggregation in ("parallel", "serial") for setting in SETTINGS),
        *((SMALL_OPENAI, aggregation, *setting) for aggregation in ("parallel", "serial") for setting in SETTINGS),
        pytest.param(SMALL_OPENAI, "serial", *MANY, marks=pytest.mark.long),
        pytest.param(SMALL_EVA, "parallel", *MANY, marks=pytest.mark.slow),
        pytest.param(SMALL_EVA, "serial", *MANY, marks=pytest.mark.slow),
        pytest.param(SMALL_OPENAI, "parallel", *MANY, marks=pytest.mark.slow),
    ],
)
def test_whole_model(preset, aggregation, T, pooling, chunk):
    model = small_model(preset, aggregation=aggregation).double()
    folded = fold(model)
    images, text = torch.rand(2, 3, 96, 96) * 255, F.normalize(torch.randn(T, 1, 64), dim=-1)
    reference = model(images, text, class_pooling=pooling)
    for given in (text, folded.prepare_vocabulary(text), text.expand(2, -1, -1, -1)):
        values = folded(images, given, class_pooling=pooling, chunk=chunk)
        assert torch.equal(values == -100, reference == -100)
        assert (values - reference).abs().max() <= RELATIVE * reference[reference != -100].abs().max()
