"""Shortlists: the K best classes of each image, and the published computation on exactly those."""

from __future__ import annotations

from dataclasses import replace
from unittest.mock import patch

import pytest
import torch
import torch.nn.functional as F
from support import SMALL_EVA, SMALL_OPENAI, small_model
from torch import Tensor

import pcaseg
from pcaseg.configs import get_preset
from pcaseg.deploy import aggregator as folded_aggregator
from pcaseg.errors import PcasegError
from pcaseg.model import aggregator as model_aggregator
from pcaseg.model.cost_volume import best_classes, cost_volume, join_kept, restore_classes
from pcaseg.model.inference import sliding_inputs

K = 6
RELATIVE = 1e-9
PROMPTS = replace(SMALL_EVA, name="small-prompts", prompts=3)
UNPADDED = replace(SMALL_EVA, name="small-unpadded", class_padding=0)
CASES = [
    (SMALL_EVA, "parallel", K + 1),
    (SMALL_OPENAI, "serial", 20),
    (PROMPTS, "serial", 12),
    (UNPADDED, "parallel", 20),
    (UNPADDED, "serial", K),
]


@pytest.fixture(autouse=True)
def no_grad():
    with torch.no_grad():
        yield


def images(B: int, seed: int = 0) -> Tensor:
    return torch.rand(B, 3, 96, 96, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 255


def vocabulary(T: int, P: int = 1, seed: int = 1) -> Tensor:
    return F.normalize(
        torch.randn(T, P, 64, generator=torch.Generator().manual_seed(seed), dtype=torch.float64), dim=-1
    )


def in_float64(preset=SMALL_EVA, aggregation="parallel"):
    return small_model(preset, aggregation=aggregation).double()


def highest(model, pictures: Tensor, text: Tensor, most: int) -> list[list[int]]:
    """The classes of each image with the highest cosine, found anew."""
    features, _ = model.encode_image(pictures)
    found = []
    for one in features:
        cosines = torch.einsum("dhw,tpd->tphw", F.normalize(one, dim=0), F.normalize(text, dim=-1))
        scores = cosines.flatten(1).max(dim=1).values.tolist()
        found.append(sorted(sorted(range(len(text)), key=lambda t: (-scores[t], t))[:most]))
    return found


def assert_is_of_the_subset(model, logits: Tensor, pictures: Tensor, text: Tensor, most: int) -> None:
    """Equal to the model on the names that each image keeps, -100 elsewhere."""
    chosen = highest(model, pictures, text, most)
    for index, kept in enumerate(chosen):
        alone = model(pictures[index : index + 1], text[kept])[0]
        assert (logits[index, kept] - alone).abs().max() <= RELATIVE * alone.abs().max()
        others = sorted(set(range(len(text))) - set(kept))
        assert (logits[index, others] == -100).all()


@pytest.mark.parametrize(("preset", "aggregation", "T"), CASES)
def test_is_the_model_on_the_chosen_names(preset, aggregation, T):
    model = in_float64(preset, aggregation)
    folded, pictures, text = pcaseg.fold(model, shortlist=K), images(2), vocabulary(T, preset.prompts)
    logits = model(pictures, text, shortlist=K)
    assert_is_of_the_subset(model, logits, pictures, text, K)
    for given in (text, folded.prepare_vocabulary(text), text.expand(2, -1, -1, -1)):
        values = folded(pictures, given)
        assert torch.equal(values == -100, logits == -100)
        assert (values - logits).abs().max() <= RELATIVE * logits[logits != -100].abs().max()
    if T == 20:
        assert len({tuple(kept) for kept in highest(model, pictures, text, K)}) == 2  # each image its own


def test_of_a_thousand_names():
    model, text, pictures = in_float64(UNPADDED), vocabulary(1000), images(2)
    logits = model(pictures, text, shortlist=K)
    assert_is_of_the_subset(model, logits, pictures, text, K)
    model.shortlist = K
    assert torch.equal(model(pictures, text), logits)


def test_of_the_trained_tiny():
    """A preset without padding, on names that it knows."""
    trained_tiny = small_model("tiny")
    names = ("red car", "blue car", "sky", "grass", "green tree", "house", "mug", "white boat", "car wheel")
    text = trained_tiny.encode_text(names)
    pictures = images(2).float()
    whole, cut = trained_tiny(pictures, text), trained_tiny(pictures, text, shortlist=4)
    for index, kept in enumerate(highest(trained_tiny, pictures, text, 4)):
        alone = trained_tiny(pictures[index : index + 1], text[kept])[0]
        torch.testing.assert_close(cut[index, kept], alone, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(whole[cut != -100], cut[cut != -100], atol=1e-3)  # fewer names compete


@pytest.mark.parametrize(("preset", "T"), [(UNPADDED, 1), (UNPADDED, K - 1), (UNPADDED, K), (SMALL_EVA, K)])
def test_changes_nothing_up_to_its_length(preset, T):
    model, text, pictures = in_float64(preset), vocabulary(T), images(2)
    assert torch.equal(model(pictures, text, shortlist=K), model(pictures, text))
    assert torch.equal(pcaseg.fold(model, shortlist=K)(pictures, text), pcaseg.fold(model)(pictures, text))
    logits, kept = model.kept_logits(pictures, text, shortlist=K)
    assert kept.tolist() == [list(range(T))] * 2
    torch.testing.assert_close(logits, model(pictures, text), rtol=RELATIVE, atol=0)


def test_of_equal_classes_the_lowest_is_kept():
    """The same embedding many times, in the middle and at the border of the list."""
    model, pictures = in_float64(UNPADDED), images(2)
    text = vocabulary(40)
    text[5:35] = text[5]
    for most in (3, 7):
        logits = model(pictures, text, shortlist=most)
        for one in (logits, pcaseg.fold(model, shortlist=most)(pictures, text)):
            for index, kept in enumerate(highest(model, pictures, text, most)):
                assert (one[index] != -100).all(dim=(1, 2)).nonzero()[:, 0].tolist() == kept
                twins = [t for t in kept if 5 <= t < 35]
                assert twins == list(range(5, 5 + len(twins)))


def test_equal_scores_rank_by_index():
    volume = torch.zeros(2, 1, 300, 2, 2)
    volume[1, :, 250:] = 1
    assert best_classes(volume, 4).tolist() == [[0, 1, 2, 3], [250, 251, 252, 253]]


@pytest.mark.parametrize("strategy", ["single", "sliding"])
@pytest.mark.parametrize("T", [4, 30])
def test_each_window_has_its_own(strategy, T):
    model, text = in_float64(UNPADDED), vocabulary(T)
    image = torch.rand(70, 110, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64) * 255
    scores = model.segment(image, text, strategy=strategy, shortlist=K)
    folded = pcaseg.fold(model, shortlist=K)
    torch.testing.assert_close(folded.segment(image, text, strategy=strategy), scores, rtol=0, atol=1e-9)
    torch.testing.assert_close(
        pcaseg.fold(model).segment(image, text, strategy=strategy, shortlist=K), scores, rtol=0, atol=1e-9
    )
    labels, confidence = folded.label(image, text, strategy=strategy)
    assert torch.equal(labels.long(), scores.argmax(dim=0))
    torch.testing.assert_close(confidence, scores.amax(dim=0), rtol=0, atol=1e-9)
    if T > K and strategy == "sliding":
        windows = sliding_inputs(image.permute(2, 0, 1)[None], 96, model.preset.sliding)
        assert len({tuple(kept) for kept in highest(model, windows, text, K)}) > 1


def test_labels_of_windows_that_keep_other_names_hold_few_maps():
    """The union of what the windows kept, and one map for all others; labels are those of all maps."""
    logits, classes = torch.randn(5, 3, 4, 4), torch.tensor([[0, 2, 9], [1, 2, 3], [2, 3, 9], [0, 1, 2], [0, 1, 3]])
    maps, shared = join_kept(logits, classes, 4096)
    assert shared.tolist() == [0, 1, 2, 3, 4, 9]
    whole = restore_classes(logits, classes, 4096)
    assert torch.equal(maps, whole[:, shared])
    assert torch.equal(shared[maps.argmax(dim=1)], whole.argmax(dim=1))
    low = torch.full((1, 2, 1, 1), -200.0)  # below what a dropped class has: the first of those wins
    maps, shared = join_kept(low, torch.tensor([[0, 2]]), 7)
    assert shared[maps.argmax(dim=1)].flatten().tolist() == [1]
    maps, shared = join_kept(torch.randn(1, 3, 2, 2), torch.tensor([[0, 1, 2]]), 3)
    assert shared.tolist() == [0, 1, 2]


def test_the_volume_is_made_once_and_few_maps_are_embedded():
    model, pictures, text = in_float64(UNPADDED), images(2), vocabulary(50)
    folded = pcaseg.fold(model, shortlist=K)
    for module, network, name in (
        (model_aggregator, lambda: model(pictures, text, shortlist=K), "cost_volume"),
        (folded_aggregator, lambda: folded(pictures, text), "model_cost_volume"),
    ):
        embedded = []
        embedding = (model if name == "cost_volume" else folded).aggregator.cost_embedding
        hook = embedding.register_forward_hook(lambda _, inputs, out, found=embedded: found.append(len(inputs[0])))
        with patch.object(module, name, wraps=cost_volume) as made:
            network()
        hook.remove()
        assert made.call_count == 1
        assert embedded == [2 * K]


@pytest.mark.parametrize("wrong", [0, -1, 257, 1.5, True, "8"])
def test_a_length_that_means_nothing_is_refused(wrong):
    model, text = small_model(), vocabulary(3).float()
    for call in (
        lambda: model(images(1).float(), text, shortlist=wrong),
        lambda: model.segment(torch.rand(20, 20, 3) * 255, text, shortlist=wrong),
        lambda: pcaseg.fold(model, shortlist=wrong),
        lambda: pcaseg.fold(model).label(torch.rand(20, 20, 3) * 255, text, shortlist=wrong),
    ):
        with pytest.raises(PcasegError, match=rf"shortlist={wrong!r}: give 1 to 256 classes, or None for 256$"):
            call()


def test_a_fold_takes_the_models_own():
    model = small_model(get_preset("tiny"))
    model.shortlist = 5
    assert (pcaseg.fold(model).shortlist, pcaseg.fold(model, shortlist=256).shortlist) == (5, 256)
