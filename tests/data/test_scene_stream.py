"""Training lists and the training stream: pure functions of seed, step and rank, with exact areas."""

from __future__ import annotations

from collections import Counter
from itertools import chain

import numpy as np
import pytest
import torch

from pcaseg.data.batches import TrainingBatch
from pcaseg.data.scene_lists import TRAINING_NAMES, evaluation_list, neighbours, training_list
from pcaseg.data.scene_names import BACKGROUNDS, HELD_OUT, PART_NAMES, SEEN_PAIRS, THINGS, meaning_of
from pcaseg.data.scene_stream import TinyStream
from pcaseg.data.scenes import render_scene
from pcaseg.errors import PcasegError


def test_batch():
    batch = TinyStream(seed=5).batch(3, size=4)
    assert batch.images.shape == (4, 3, 96, 96) and batch.images.dtype == torch.uint8
    assert batch.areas is not None and len({len(names) for names in batch.names}) == 1
    for index, names in enumerate(batch.names):
        scene = render_scene(12 + index, seed=5)
        assert np.array_equal(batch.images[index].permute(1, 2, 0).numpy(), scene.image)
        assert np.array_equal(batch.areas[index].numpy(), scene.areas(names, 48))
    assert batch.targets(torch.device("cpu")).dtype == torch.float32


def test_pure_function_of_seed_step_and_rank():
    whole = TinyStream(seed=1).batch(9, size=4)
    TinyStream(seed=1).batch(2, size=4)
    halves = [TinyStream(seed=1).batch(9, size=4, rank=rank, world=2) for rank in range(2)]
    assert whole.areas is not None
    assert torch.equal(whole.images, torch.cat([half.images for half in halves]))
    assert whole.names == halves[0].names + halves[1].names
    assert torch.equal(whole.areas, torch.cat([half.areas for half in halves if half.areas is not None]))
    assert not torch.equal(whole.images, TinyStream(seed=2).batch(9, size=4).images)
    with pytest.raises(PcasegError, match="size=3: a batch is shared by 2 processes"):
        TinyStream().batch(0, size=3, rank=0, world=2)


def test_lengths():
    lengths = Counter(TinyStream().list_length(step) for step in range(1000))
    assert set(range(8, 13)) <= set(lengths) <= set(range(8, 13)) | set(range(24, 54))
    assert 30 <= sum(count for length, count in lengths.items() if length > 12) <= 100


def test_training_lists():
    """The promised mix, distinct names, hard negatives, and never a held-out pair."""
    kinds, hard, false = Counter(), 0, 0
    for index in range(400):
        scene = render_scene(index)
        length = 10 if index % 8 else 40
        names = training_list(scene, length, np.random.default_rng(index))
        assert len(names) == len(set(names)) == length and not set(names) & set(HELD_OUT)
        assert set(names) <= set(TRAINING_NAMES)
        if length == 10:
            there = [name for name in names if name in scene.painted]
            assert there
            kind = Counter(
                "pair" if name in SEEN_PAIRS else "part" if name in PART_NAMES else "plain"
                for name in there
                if name not in BACKGROUNDS
            )
            if kind:
                kinds[kind.most_common(1)[0][0]] += 1
            near = set(chain.from_iterable(neighbours(name) for name in there))
            absent = [name for name in names if name not in there]
            hard, false = hard + len(near & set(absent)), false + len(absent)
    shares = {kind: count / kinds.total() for kind, count in kinds.items()}
    assert abs(shares["pair"] - 0.45) < 0.08 and abs(shares["part"] - 0.4) < 0.08
    assert hard / false > 0.6


def test_evaluation_lists_name_all_that_is_there():
    for index in range(30):
        scene = render_scene(index, split="held-out")
        for kind in ("pair", "part"):
            names = evaluation_list(scene, kind, 20, np.random.default_rng(index))
            assert len(names) == len(set(names)) == 20
            assert {*scene.present(kind), *scene.present("background")} <= set(names)


def test_neighbours_differ_in_one_word():
    assert set(neighbours("car window")) == {"car body", "car wheel", "house window"}
    assert "red car" not in neighbours("red car") and len(neighbours("red car")) == 12
    assert set(neighbours("red thing")) == set(THINGS) - {"red thing"}
    for name in SEEN_PAIRS:
        meaning = meaning_of(name)
        for other in map(meaning_of, neighbours(name)):
            assert (other.colour == meaning.colour) != (other.object == meaning.object)


def test_targets_of_labels():
    labels = torch.tensor([[[0, 1], [-1, 2]]])
    targets = TrainingBatch(torch.zeros(1, 3, 2, 2), (("a", "b", "c"),), labels=labels).targets(torch.device("cpu"))
    assert targets.shape == (1, 3, 2, 2)
    assert targets[0, :, 1, 0].tolist() == [0, 0, 0] and targets[0, :, 1, 1].tolist() == [0, 0, 1]
    assert targets.sum() == 3
