"""Shapes, grids, batches and vocabularies beyond what the goldens cover."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from support import SMALL_EVA, SMALL_OPENAI, small_model

import pcaseg
from pcaseg.configs import get_preset, presets
from pcaseg.errors import ImageError, PcasegError, VocabularyError
from pcaseg.model.cost_volume import best_classes, cost_volume, rank_classes, restore_classes, take_classes
from pcaseg.model.positions import resize_position_embedding, rotary_table
from pcaseg.model.spatial_stream import from_windows, shifted_window_mask, to_windows


@pytest.fixture(autouse=True)
def no_grad():
    with torch.no_grad():
        yield


def images(B: int, height: int = 96, width: int = 96, seed: int = 0) -> torch.Tensor:
    return torch.rand(B, 3, height, width, generator=torch.Generator().manual_seed(seed)) * 255


def text(T: int, *, P: int = 1, seed: int = 1) -> torch.Tensor:
    return F.normalize(torch.randn(T, P, 64, generator=torch.Generator().manual_seed(seed)), dim=-1)


@pytest.mark.parametrize("preset", [SMALL_EVA, SMALL_OPENAI], ids=["eva", "openai"])
@pytest.mark.parametrize("aggregation", ["parallel", "serial"])
@pytest.mark.parametrize("pooling", [(1, 1), (2, 2)])
@pytest.mark.parametrize("size", [(96, 96), (48, 48), (96, 144)])
def test_any_grid_that_the_window_divides(preset, aggregation, pooling, size):
    model = small_model(preset, aggregation=aggregation)
    logits = model(images(2, *size), text(3), class_pooling=pooling)
    assert logits.shape == (2, 3, size[0] // 2, size[1] // 2)
    assert logits.isfinite().all()


def test_dense_modes_differ(small):
    other = small_model(dense_mode="qq")
    assert not torch.allclose(small(images(1), text(2)), other(images(1), text(2)))


def test_grid_that_nothing_divides_is_refused(small):
    with pytest.raises(ValueError, match="multiples of 8"):
        small(images(1, 97, 96), text(2))
    with pytest.raises(ValueError, match="multiples of the window, 6"):
        small(images(1, 104, 96), text(2))


def test_images_of_a_batch_do_not_see_each_other(small):
    both = small(images(2), text(5))
    for index in range(2):
        alone = small(images(2)[index : index + 1], text(5))
        torch.testing.assert_close(both[index : index + 1], alone, rtol=1e-4, atol=1e-4)


def test_text_per_image_equals_shared_text(small):
    shared = small(images(2), text(5))
    torch.testing.assert_close(shared, small(images(2), text(5)[None].expand(2, -1, -1, -1)))
    mixed = small(images(2), torch.stack([text(5), text(5, seed=9)]))
    torch.testing.assert_close(mixed[0], shared[0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(mixed[1:], small(images(2)[1:], text(5, seed=9)), rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match=r"expected \(T, P, D\) or \(2, T, P, D\)"):
        small(images(2), text(5)[None].expand(3, -1, -1, -1))


def test_order_of_classes_does_not_matter(small):
    order = torch.tensor([3, 0, 4, 1, 2])
    straight = small(images(1), text(5))
    torch.testing.assert_close(small(images(1), text(5)[order]), straight[:, order], rtol=1e-4, atol=1e-4)


def test_a_class_feels_how_many_others_there_are(small):
    """Published behaviour: the padding to 256 classes takes part in the attention."""
    assert not torch.allclose(small(images(1), text(2)), small(images(1), text(1).repeat(2, 1, 1)), atol=1e-4)


@pytest.mark.parametrize("T", [1, 255, 256, 257, 300])
def test_vocabularies_around_the_limit(small, T):
    logits = small(images(2), text(T))
    dropped = (logits == -100).all(dim=(2, 3))
    assert dropped.sum(dim=1).tolist() == [max(0, T - 256)] * 2
    assert (logits == -100).any(dim=(2, 3)).equal(dropped)


def test_kept_classes_are_the_best_of_each_image(small):
    vocabulary, pictures = text(300), images(2)
    features, guidance = small.encode_image(pictures)
    scores = cost_volume(features, vocabulary[None].expand(2, -1, -1, -1)).amax(dim=(1, 3, 4))
    logits = small(pictures, vocabulary)
    for index in range(2):
        kept = (logits[index] != -100).all(dim=(1, 2)).nonzero()[:, 0]
        assert set(kept.tolist()) == set(scores[index].topk(256).indices.tolist())
        alone = small.aggregator(
            features[index : index + 1],
            vocabulary[kept],
            tuple(part[index : index + 1] for part in guidance),
        )
        torch.testing.assert_close(logits[index, kept], alone[0], rtol=1e-3, atol=1e-3)


def test_take_and_restore_are_inverse():
    volume = torch.rand(2, 1, 9, 3, 3, generator=torch.Generator().manual_seed(0))
    maps, order = torch.rand(2, 9, 4, 4), rank_classes(volume)
    assert torch.equal(restore_classes(take_classes(maps, order), order, 9), maps)
    kept = best_classes(volume, 5)
    assert torch.equal(kept, order[:, :5].sort(dim=1).values)
    limited = restore_classes(take_classes(maps, kept), kept, 9)
    assert ((limited == -100).all(dim=(2, 3)).sum(dim=1) == 4).all()
    assert torch.equal(take_classes(limited, kept), take_classes(maps, kept))


def test_cost_volume_is_a_cosine_for_every_prompt():
    features, prompts = torch.randn(2, 64, 3, 4), torch.randn(2, 5, 3, 64)
    volume = cost_volume(features, prompts)
    assert volume.shape == (2, 3, 5, 3, 4)
    expected = F.cosine_similarity(features[1, :, 2, 3], prompts[1, 4, 2], dim=0)
    torch.testing.assert_close(volume[1, 2, 4, 2, 3], expected)


def test_fod_terms_are_collected(small):
    terms: list[torch.Tensor] = []
    small(images(1), text(3), fod_terms=terms)
    assert len(terms) == 2 * SMALL_EVA.layers
    assert all(0 <= term <= 1 for term in terms)


@pytest.mark.parametrize(("grid", "window"), [((24, 24), 12), ((12, 12), 6), ((12, 24), 12), ((12, 12), 12)])
def test_windows_and_mask(grid, window):
    x = torch.arange(2 * grid[0] * grid[1]).reshape(2, *grid, 1)
    assert torch.equal(from_windows(to_windows(x, window), window, grid), x)
    mask = shifted_window_mask(grid, window, window // 2)
    shift = window // 2
    place = torch.stack(torch.meshgrid(*map(torch.arange, grid), indexing="ij"), dim=-1)
    rolled = to_windows(place.roll((-shift, -shift), dims=(0, 1))[None], window)[0]
    local = place[:window, :window].reshape(-1, 2)
    unbroken = ((rolled[:, :, None] - rolled[:, None]) == (local[:, None] - local[None])).all(dim=-1)
    assert torch.equal(mask == 0, unbroken)
    assert set(mask.unique().tolist()) <= {0.0, -100.0}


def test_positions_of_the_pretraining_grid_are_unchanged():
    table = torch.randn(1 + 49, 8)
    assert resize_position_embedding(table, (7, 7)) is table
    assert resize_position_embedding(table, (4, 9)).shape == (37, 8)


def test_rotary_table_against_its_formula():
    table = rotary_table((24, 12), 64)
    sines, cosines = table[:, :64], table[:, 64:]
    row, column, pair = 7, 5, 11
    position = row * 12 + column
    for channel, angle in (
        (2 * pair, row * 16 / 24 * 10000 ** (-2 * pair / 32)),
        (32 + 2 * pair + 1, column * 16 / 12 * 10000 ** (-2 * pair / 32)),
    ):
        assert sines[position, channel].item() == pytest.approx(np.sin(angle), abs=1e-6)
        assert cosines[position, channel].item() == pytest.approx(np.cos(angle), abs=1e-6)


@pytest.mark.parametrize("name", [name for name in presets() if name != "tiny"])
def test_towers_are_those_of_open_clip(name):
    """Same parameter shapes as open_clip's own configuration of that model."""
    import open_clip

    from pcaseg.model.network import PCASeg

    their_name = {
        "eva-b-384": "EVA02-B-16",
        "eva-l-336": "EVA02-L-14-336",
        "openai-b-384": "ViT-B-16-quickgelu",
        "openai-l-336": "ViT-L-14-336-quickgelu",
    }[name]
    with torch.device("meta"):
        ours = PCASeg(get_preset(name), aggregation="parallel", dense_mode="csa")
        theirs = open_clip.create_model(their_name, pretrained=None, device="meta")
    shapes = {n: tuple(t.shape) for n, t in theirs.state_dict().items() if n != "logit_scale"}
    mine = {}
    for key, t in ours.state_dict().items():
        if key.startswith("image_tower."):
            prefix = "visual.trunk." if name.startswith("eva") else "visual."
            mine[key.replace("image_tower.trunk.", prefix)] = tuple(t.shape)
        elif key.startswith("text_tower."):
            mine[key.replace("text_tower.transformer.", "text." if name.startswith("eva") else "")] = tuple(t.shape)
    assert mine == shapes


def test_text_tower_agrees_with_open_clip_pooling(small):
    from open_clip.tokenizer import tokenize

    tokens = tokenize(["a cat", "a very long name of a class"])
    expected = F.normalize(small.text_tower.transformer(tokens), dim=-1)
    torch.testing.assert_close(small.text_tower(tokens), expected)


@pytest.mark.parametrize("strategy", ["single", "sliding"])
@pytest.mark.parametrize("size", [(1, 1), (30, 200), (96, 96), (161, 77)])
def test_whole_images_of_any_size(small, strategy, size):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    scores = small.segment(image, text(3), strategy=strategy)
    assert scores.shape == (3, *size)
    assert ((scores >= 0) & (scores <= 1)).all()


def test_large_image(small):
    image = np.zeros((6000, 8000, 3), dtype=np.uint8)
    image[:, 4000:] = 255
    assert small.segment(image, text(2), strategy="single").shape == (2, 6000, 8000)


def test_kinds_of_images(small, tmp_path):
    """Each kind gives what its RGB pixels give."""
    rgb = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    grey = rgb[:, :, 0]
    rotated = Image.Exif()
    rotated[0x0112] = 6  # turn a quarter clockwise to see it upright
    kinds = {
        "alpha": (Image.fromarray(np.dstack([rgb, grey])), rgb),
        "grey": (Image.fromarray(grey), np.dstack([grey] * 3)),
        "16-bit": (Image.fromarray(grey.astype(np.uint16) * 257), np.dstack([grey] * 3)),
        "palette": (Image.fromarray(grey // 64 * 64).convert("P"), np.dstack([grey // 64 * 64] * 3)),
        "rotated": (Image.fromarray(rgb), np.rot90(rgb, -1)),
    }
    for name, (picture, pixels) in kinds.items():
        path = tmp_path / f"{name}.png"
        picture.save(path, exif=rotated if name == "rotated" else Image.Exif())
        expected = small.segment(np.ascontiguousarray(pixels), text(2), strategy="single")
        torch.testing.assert_close(small.segment(path, text(2), strategy="single"), expected, msg=name)
        if name != "rotated" and name != "palette":
            array = np.asarray(picture)
            torch.testing.assert_close(small.segment(array, text(2), strategy="single"), expected, msg=name)
    floats = torch.from_numpy(rgb).float()
    assert torch.equal(
        small.segment(floats, text(2), strategy="single"), small.segment(rgb, text(2), strategy="single")
    )


def test_segment_refuses_what_is_no_image(small, tmp_path):
    for image in (np.zeros((4, 4)), np.zeros((4, 4, 5), dtype=np.uint8), torch.zeros(3, 4, 4), tmp_path / "none.png"):
        with pytest.raises(ImageError):
            small.segment(image, text(2))
    with pytest.raises(PcasegError, match="choose one of single, sliding"):
        small.segment(np.zeros((4, 4, 3), dtype=np.uint8), text(2), strategy="tiled")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "give at least one"),
        (["cat", " Cat"], "keep one"),
        (["cat", ""], "blank"),
        (["x" * 10_000], "10000 characters"),
        ("cat", "expected a list"),
        ([3], "not a string"),
    ],
)
def test_bad_class_names(small, names, message):
    with pytest.raises(VocabularyError, match=message):
        small.encode_text(names)


def test_public_api_names():
    assert pcaseg.presets() == ("eva-b-384", "eva-l-336", "openai-b-384", "openai-l-336", "tiny")
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = pcaseg.nothing


@pytest.mark.slow
@pytest.mark.parametrize("name", presets())
@pytest.mark.parametrize("aggregation", ["parallel", "serial"])
def test_every_preset_runs(name, aggregation):
    model = small_model(get_preset(name), aggregation=aggregation)
    preset = model.preset
    logits = model(images(1, preset.image_px, preset.image_px), model.encode_text(["cat", "grass"]))
    side = 4 * preset.grid
    assert logits.shape == (1, 2, side, side) and logits.isfinite().all()
