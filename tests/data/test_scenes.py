"""The project's scenes: the same everywhere, labelled exactly, and without the held-out pairs in training."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from pcaseg.data.scene_layout import draw_layout
from pcaseg.data.scene_light import FIELD, _enlarged
from pcaseg.data.scene_names import (
    BACKGROUNDS,
    COLOURS,
    HELD_OUT,
    OBJECTS,
    PAIRS,
    PART_NAMES,
    SEEN_PAIRS,
    THINGS,
    Meaning,
    meaning_of,
    meanings,
)
from pcaseg.data.scenes import SCENE_PX, render_scene
from pcaseg.errors import VocabularyError

LAYOUTS_SHA256 = "0e5117644c42fd1c7db69adfa869692aa834a0ee7292aec0f3a1eaa5be641fca"


def layouts_sha256() -> str:
    """Of what 50 layouts decide, by NumPy alone."""
    digest = hashlib.sha256()
    for index in range(50):
        layout = draw_layout(np.random.default_rng(np.random.SeedSequence([3, 0, index])))
        for placed in layout.objects:
            numbers = [*placed.centre, *placed.size, placed.turn, placed.mirrored, *placed.rgb]
            digest.update(f"{placed.kind} {placed.colour} {[round(float(n), 6) for n in numbers]}".encode())
        for background in layout.backgrounds:
            digest.update(f"{background.name} {np.round(background.points, 6).tolist()}".encode())
    return digest.hexdigest()


def test_layouts_are_those_of_every_machine():
    assert layouts_sha256() == LAYOUTS_SHA256


def test_scene_depends_on_seed_split_and_index_alone():
    code = (
        "import hashlib; from pcaseg.data.scenes import render_scene; scene = render_scene(7, seed=2)\n"
        "print(hashlib.sha256(scene.image.tobytes() + scene.paints.tobytes()).hexdigest())"
    )
    render_scene(6, seed=2)
    scene = render_scene(7, seed=2)
    here = hashlib.sha256(scene.image.tobytes() + scene.paints.tobytes()).hexdigest()
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == here
    for other in (render_scene(8, seed=2), render_scene(7, seed=3), render_scene(7, seed=2, split="evaluation")):
        assert not np.array_equal(other.image, scene.image)


def test_names():
    assert len(PAIRS) == 48 and len(SEEN_PAIRS) == 40 and len(PART_NAMES) == 15 and len(set(meanings())) == 82
    for word in (*COLOURS, *OBJECTS):
        assert sum(word in pair.split() for pair in SEEN_PAIRS) >= 5, word
    assert {pair.split()[0] for pair in HELD_OUT} == set(COLOURS)
    assert {pair.split()[1] for pair in HELD_OUT} == set(OBJECTS)
    with pytest.raises(VocabularyError, match="'pink car': no name that scenes know"):
        meaning_of("pink car")


@pytest.mark.parametrize("split", ["training", "evaluation"])
def test_held_out_pairs_are_never_rendered(split):
    """The layout decides; 2,000 of them, and what 100 scenes really show."""
    for index in range(2000):
        layout = draw_layout(np.random.default_rng(index))
        assert not {f"{placed.colour} {placed.kind}" for placed in layout.objects} & set(HELD_OUT)
    for index in range(100):
        scene = render_scene(index, split=split)
        shown = {f"{paint.colour} {paint.object}" for paint in scene.meanings if paint.object}
        assert shown and not shown & set(HELD_OUT)


def test_held_out_scenes_show_one_at_least():
    shown = [set(render_scene(index, split="held-out").present("pair")) for index in range(200)]
    assert np.mean([bool(pairs & set(HELD_OUT)) for pairs in shown]) > 0.95  # rarely one is behind others
    assert any(pairs - set(HELD_OUT) for pairs in shown)
    assert set.union(*shown) >= set(HELD_OUT)


def test_every_name_occurs():
    scenes = [render_scene(index) for index in range(300)]
    for kind, names in (("pair", SEEN_PAIRS), ("part", PART_NAMES), ("background", BACKGROUNDS), ("thing", THINGS)):
        shown = [set(scene.present(kind)) for scene in scenes]
        counts = {name: sum(name in some for some in shown) for name in names}
        assert min(counts.values()) >= 2, counts


@pytest.mark.parametrize("grid", [12, 48, 96, 384])
def test_areas_of_exclusive_names_add_up(grid):
    for index in range(5):
        scene = render_scene(index, seed=1)
        for names in ((*SEEN_PAIRS, *BACKGROUNDS), (*OBJECTS, *BACKGROUNDS), (*THINGS, *BACKGROUNDS)):
            areas = scene.areas(names, grid)
            assert areas.shape == (len(names), grid, grid) and areas.dtype == np.float32
            assert np.allclose(areas.sum(axis=0), 1, atol=1e-6)
        assert (scene.areas(PART_NAMES, grid).sum(axis=0) <= 1 + 1e-6).all()


def test_areas_count_what_was_painted():
    scene = render_scene(4, seed=1)
    for name in ("red car", "car", "black thing", "house window", "sky", *scene.present("pair")):
        mask = np.array([meaning_of(name).covers(paint) for paint in scene.meanings])[scene.paints]
        expected = mask.reshape(48, 8, 48, 8).mean(axis=(1, 3))
        assert np.allclose(scene.areas([name], 48)[0], expected, atol=1e-6), name


def test_meaning_covers():
    wheel = Meaning("car", "red", "wheel")
    for name in ("red car", "car", "red thing", "car wheel"):
        assert meaning_of(name).covers(wheel), name
    for name in ("blue car", "mug", "blue thing", "car window", "road", "house window"):
        assert not meaning_of(name).covers(wheel), name
    assert meaning_of("road").covers(Meaning(background="road"))
    assert not any(meaning_of(name).covers(Meaning(background="road")) for name in ("sky", "car", "red thing"))


def test_nearer_objects_hide_farther_ones():
    """Two objects overlap somewhere; there the later paints stand, the earlier ones do not."""
    hidden = 0
    for index in range(60):
        scene = render_scene(index)
        layout = draw_layout(np.random.default_rng(np.random.SeedSequence([0, 0, index])))
        bottoms = [placed.centre[1] + placed.size[1] / 2 for placed in layout.objects]
        assert bottoms == sorted(bottoms)
        kinds = [(placed.kind, placed.colour) for placed in layout.objects]
        painted = [(paint.object, paint.colour) for paint in scene.meanings if paint.object]
        assert list(dict.fromkeys(painted)) == list(dict.fromkeys(kinds))
        for far, near in zip(layout.objects, layout.objects[1:], strict=False):
            centre = (np.array(near.centre) * 384).astype(int)
            if (centre >= 0).all() and (centre < 384).all() and near.kind in ("car", "house", "ball"):
                paint = scene.meanings[scene.paints[centre[1], centre[0]]]
                hidden += (paint.object, paint.colour) == (near.kind, near.colour) != (far.kind, far.colour)
    assert hidden >= 20


def test_labels():
    scene = render_scene(3, seed=1)
    names = (*SEEN_PAIRS, *BACKGROUNDS)
    labels = scene.labels(names)
    areas = scene.areas(names, SCENE_PX)
    assert labels.shape == (96, 96)
    sure = areas.max(axis=0) >= 0.5
    assert (labels[sure] == areas.argmax(axis=0)[sure]).all() and (labels[~sure] == -1).all()
    assert set(names[index] for index in np.unique(labels[sure])) <= {
        *scene.present("pair"), *scene.present("background"),
    }  # fmt: skip
    assert (scene.labels(["purple boat"]) <= 0).all()


def test_image_shows_the_paints():
    """A white object is lighter than a black one, and images have the promised form."""
    light, dark = [], []
    for index in range(80):
        scene = render_scene(index)
        assert scene.image.shape == (96, 96, 3) and scene.image.dtype == np.uint8
        for name, values in (("white thing", light), ("black thing", dark)):
            where = scene.areas([name], 96)[0] == 1
            if where.sum() > 60:
                values.append(np.median(scene.image[where]))
    assert np.percentile(light, 10) > np.percentile(dark, 90) + 30


@pytest.mark.parametrize("side", [100, 384])
def test_a_larger_scene_is_the_same_scene(side):
    """Reduced it looks like the small one, whose noise has a standard deviation of up to 7 and of 16 on grass."""
    names = (*PAIRS, *BACKGROUNDS)
    for index in range(8):
        small, large = (render_scene(index, seed=2, split="held-out", side=one) for one in (SCENE_PX, side))
        assert large.image.shape == (side, side, 3) and large.paints.shape == (4 * side, 4 * side)
        assert large.meanings == small.meanings and large.present("pair") == small.present("pair")
        reduced = Image.fromarray(large.image).resize((SCENE_PX, SCENE_PX), Image.Resampling.BOX)
        assert np.abs(np.asarray(reduced, int) - small.image).mean() < 5
        labels = large.labels(names)
        assert labels.shape == (side, side)
        nearest = ((np.arange(SCENE_PX) + 0.5) * side / SCENE_PX).astype(int)
        assert (labels[nearest[:, None], nearest] == small.labels(names)).mean() > 0.98


def test_at_the_trained_size_random_fields_are_used_as_drawn():
    field = np.random.default_rng(0).standard_normal((FIELD, FIELD, 3), np.float32)
    assert SCENE_PX == FIELD and _enlarged(field, FIELD).tobytes() == field.tobytes()
    assert np.std(_enlarged(field, 384)) == pytest.approx(1, abs=0.2)


def test_speed():
    start = time.process_time()
    for index in range(40):
        render_scene(index).areas(PART_NAMES, 48)
    assert (time.process_time() - start) / 40 < 0.015
