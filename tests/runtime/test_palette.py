"""Colours of names: pure, true to their colour words, and with patterns where a legend shows two that are alike."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import pcaseg
from pcaseg.data.scene_names import BACKGROUNDS, COLOURS, OBJECTS, PAIRS, PART_NAMES, THINGS, pair_name
from pcaseg.runtime.palette import (
    APART,
    PATTERNS,
    class_colours,
    class_patterns,
    line_colours,
    oklab,
    pattern_mask,
)

LISTS = {
    path.stem: tuple(json.loads(path.read_text(encoding="utf-8"))["classes"])
    for path in sorted((Path(pcaseg.__file__).parent / "data" / "class_lists").glob("*.json"))
}
SCENE_NAMES = (*PAIRS, *OBJECTS, *THINGS, *PART_NAMES, *BACKGROUNDS)


def colour(name: str) -> tuple[int, ...]:
    return tuple(class_colours([name])[0].tolist())


def distances(colours: np.ndarray) -> np.ndarray:
    """Between all pairs, `(n, n)`, infinite to itself."""
    points = oklab(colours)
    return np.linalg.norm(points[:, None] - points, axis=2) + np.diag(np.full(len(points), np.inf))


def test_oklab_is_the_published_one() -> None:
    published = {(255, 255, 255): (1, 0, 0), (255, 0, 0): (0.62796, 0.22486, 0.12585), (0, 0, 0): (0, 0, 0)}
    np.testing.assert_allclose(oklab(np.array(list(published), np.uint8)), list(published.values()), atol=1e-4)


def test_a_name_has_one_colour_everywhere() -> None:
    assert len(LISTS) == 9
    for names in (*LISTS.values(), SCENE_NAMES):
        together = class_colours(names)
        assert together.dtype == np.uint8 and together.shape == (len(names), 3)
        np.testing.assert_array_equal(class_colours(names[::-1])[::-1], together)
        assert [tuple(one) for one in together.tolist()] == [colour(name) for name in names]
    sky = LISTS["ade20k_150"].index("sky")
    np.testing.assert_array_equal(class_colours(LISTS["ade20k_150"])[sky], class_colours(BACKGROUNDS)[0])
    assert colour("Sky ") == colour("sky") == colour("sky, heaven")
    assert class_colours([]).shape == (0, 3)


def test_colours_stay_as_they_are() -> None:
    """Pictures of two versions can be laid side by side."""
    assert [colour(name) for name in ("sky", "cat", "blue mug", "\ud800")] == [
        (48, 180, 255),
        (240, 12, 144),
        (0, 132, 255),
        (0, 255, 0),
    ]


@pytest.mark.parametrize(
    ("names", "hues", "lightness", "chroma"),
    [
        ("blue mug|Blue car|blue-green algae|blue", (240, 272), (0.3, 0.8), (0.1, 0.4)),
        ("red car|big red thing", (14, 36), (0.4, 0.7), (0.14, 0.3)),
        ("green ball|dark green tree|the green, lush garden", (132, 158), (0.35, 0.88), (0.1, 0.3)),
        ("yellow house", (88, 115), (0.8, 1), (0.1, 0.3)),
        ("orange boat|orange|orange juice", (44, 75), (0.6, 0.86), (0.1, 0.3)),
        ("purple tree", (298, 322), (0.3, 0.72), (0.1, 0.4)),
        ("white boat|white wine", (0, 360), (0.9, 1), (0, 0.06)),
        ("black ball|black and white cat", (0, 360), (0, 0.3), (0, 0.12)),
        ("grey road|gray wall", (0, 360), (0.35, 0.8), (0, 0.03)),
        ("brown dog", (44, 77), (0.3, 0.58), (0.04, 0.14)),
    ],
)
def test_a_colour_word_is_drawn_in_its_colour(
    names: str, hues: tuple[int, int], lightness: tuple[float, float], chroma: tuple[float, float]
) -> None:
    for name in names.split("|"):
        light, a, b = oklab(class_colours([name]))[0]
        assert lightness[0] <= light <= lightness[1], name
        assert chroma[0] <= np.hypot(a, b) <= chroma[1], name
        assert hues[0] <= np.degrees(np.arctan2(b, a)) % 360 <= hues[1], name


def test_dark_and_light_shades() -> None:
    for word in (*COLOURS, "grey", "brown", "gold"):
        for thing in OBJECTS:
            dark, light = oklab(class_colours([f"dark {word} {thing}", f"light {word} {thing}"]))[:, 0]
            assert dark < light, (word, thing)


def test_a_colour_word_within_a_word_does_not_count() -> None:
    """All such names have palette colours, all of which are far from each other or the same."""
    names = ["goldfish", "redwood", "blackboard", "greenhouse", "whiteboard", "blueberry", "person", "building"]
    between = distances(class_colours(names))
    assert (between[between > 0] > 0.1).all()


def test_objects_of_one_colour_differ() -> None:
    for word in COLOURS:
        shades = class_colours([pair_name(word, thing) for thing in OBJECTS])
        assert distances(shades).min() > 0.04, word
        assert len({tuple(one) for one in shades.tolist()}) == len(OBJECTS)
    backgrounds = class_colours(BACKGROUNDS)
    assert distances(backgrounds).min() > 0.1


@pytest.mark.parametrize("name", [*LISTS, "scenes"])
@pytest.mark.parametrize("count", [2, 8, 20, 40])
def test_a_legend_shows_no_two_alike(name: str, count: int) -> None:
    """Of random parts of every list: the same pattern is shared by colours that are apart."""
    rng, names = np.random.default_rng(0), LISTS.get(name, SCENE_NAMES)
    hatched = []
    for _ in range(10):
        colours = class_colours(list(rng.permutation(names)[:count]))
        patterns = np.array(class_patterns(colours))
        between, same = distances(colours), patterns[:, None] == patterns
        assert between[same].min() >= APART
        assert patterns[0] == 0
        hatched.append(float((patterns > 0).mean()))
    assert np.mean(hatched) <= (0.55 if name == "scenes" else 0.4)


def test_where_patterns_run_out_the_farthest_is_taken() -> None:
    reds = np.array([[200 + index, 0, 0] for index in range(9)], np.uint8)
    patterns = class_patterns(reds)
    assert patterns[:7] == list(range(len(PATTERNS)))
    assert patterns[7:] == [0, 1]
    assert class_patterns(reds[:0]) == []


def test_patterns_look_different() -> None:
    masks = [pattern_mask(pattern, 17, 19, 7) for pattern in range(len(PATTERNS))]
    assert not masks[0].any()
    for index, mask in enumerate(masks):
        assert mask.shape == (17, 19)
        assert index == 0 or 0.1 < mask.mean() < 0.6
        assert all((mask != other).mean() > 0.1 for other in masks[:index])


def test_lines_stand_out_from_every_colour() -> None:
    colours = class_colours((*SCENE_NAMES, *LISTS["ade20k_847"]))
    assert np.abs(oklab(colours)[:, 0] - oklab(line_colours(colours))[:, 0]).min() > 0.35
