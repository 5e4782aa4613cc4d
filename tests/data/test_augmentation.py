"""The published augmentation against plain arithmetic, the standard library's HSV and what each step may do."""

from __future__ import annotations

import colorsys

import numpy as np
import pytest

from pcaseg.data import augmentation
from pcaseg.data.augmentation import augmented, resized, ssd_colours

DRAWS = 400
SHARE = 0.1
"""Largest distance of a share of the draws from a half: four standard deviations."""

NEUTRAL = {"BRIGHTNESS": 0.0, "CONTRAST": (1.0, 1.0), "SATURATION": (1.0, 1.0), "HUE": 0.0}


def only(monkeypatch, **ranges):
    """Leaves the given ranges and makes the other steps do nothing."""
    for name, value in (NEUTRAL | ranges).items():
        monkeypatch.setattr(augmentation, name, value)


def photo(height=12, width=16):
    return np.random.default_rng(5).integers(0, 256, (height, width, 3), dtype=np.uint8)


def draws(image, count=DRAWS):
    """The image changed `count` times, each time with other random numbers."""
    return [ssd_colours(image, np.random.default_rng([7, index])) for index in range(count)]


def changed(image, results):
    """Those of the results that are not the image."""
    return [result for result in results if not np.array_equal(result, image)]


def bytes_of(values):
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def hsv(image):
    """Hue, saturation and value in 0..1 by the standard library."""
    return np.array([colorsys.rgb_to_hsv(*pixel) for pixel in image.reshape(-1, 3) / 255.0])


def turned(image, saturation=1.0, hue=0.0):
    """Saturation times a factor and hue turned, by the standard library, in exact numbers."""
    pixels = [colorsys.hsv_to_rgb((h + hue) % 1, min(1.0, s * saturation), v) for h, s, v in hsv(image)]
    return np.array(pixels).reshape(image.shape) * 255


@pytest.mark.parametrize("factor", [0.5, 1.25, 1.5])
def test_contrast_multiplies(monkeypatch, factor):
    only(monkeypatch, CONTRAST=(factor, factor))
    image = photo()
    results = changed(image, draws(image))
    assert all(np.array_equal(result, bytes_of(image * factor)) for result in results)
    assert abs(len(results) / DRAWS - 0.5) < SHARE


def test_brightness_adds_one_number_to_all_channels(monkeypatch):
    only(monkeypatch, BRIGHTNESS=augmentation.BRIGHTNESS)
    image = np.full((2, 2, 3), (60, 128, 190), np.uint8)
    results = changed(image, draws(image))
    added = [result.astype(int) - image for result in results]
    assert all((one == one[0, 0, 0]).all() for one in added)
    assert abs(len(results) / DRAWS - 0.5) < SHARE


def test_brightness_stays_within_a_byte(monkeypatch):
    """As published, it is cut off before contrast multiplies: white that grew brighter is white all the same."""
    only(monkeypatch, BRIGHTNESS=augmentation.BRIGHTNESS, CONTRAST=(0.5, 0.5))
    white = np.full((1, 1, 3), 255, np.uint8)
    assert max(int(result.max()) for result in draws(white) if result.max() < 200) == 128


@pytest.mark.parametrize("factor", [0.5, 0.8, 1.5])
def test_saturation(monkeypatch, factor):
    """Within what rounding of hue and saturation to bytes can do, two levels on the way and one in the end."""
    only(monkeypatch, SATURATION=(factor, factor))
    image = photo()
    results = changed(image, draws(image))
    expected = turned(image, saturation=factor)
    assert all(np.abs(result - expected).max() <= 6 for result in results)
    assert all(np.abs(result - expected).mean() < 1 for result in results)
    assert abs(len(results) / DRAWS - 0.5) < SHARE


def test_hue(monkeypatch):
    """The turn that fits a result best explains it within rounding, and turns go both ways."""
    only(monkeypatch, HUE=augmentation.HUE)
    image = photo(6, 8)
    results = changed(image, draws(image, 80))
    turns = [index / 256 for index in range(-32, 33)]
    expected = np.array([turned(image, hue=turn) for turn in turns])
    found = []
    for result in results:
        errors = np.abs(expected - result).mean(axis=(1, 2, 3))
        assert errors.min() < 2
        found.append(turns[int(errors.argmin())])
    assert max(found) <= 0.1 + 1 / 256 and min(found) >= -0.1 - 1 / 256
    assert max(found) > 0.07 and min(found) < -0.07


def test_half_of_the_images_keep_their_hue(monkeypatch):
    only(monkeypatch, HUE=augmentation.HUE)
    image = photo()
    assert abs(len(changed(image, draws(image))) / DRAWS - 0.5) < SHARE


@pytest.mark.parametrize(
    ("name", "pixel", "measure", "low", "high"),
    [
        ("BRIGHTNESS", (128, 128, 128), lambda pixel: pixel[0] - 128.0, -32, 32),
        ("CONTRAST", (100, 100, 100), lambda pixel: pixel[0] / 100, 0.5, 1.5),
        ("SATURATION", (200, 100, 100), lambda pixel: (pixel.max() - pixel.min()) / pixel.max() * 2, 0.5, 1.5),
    ],
)
def test_ranges_are_filled_and_never_left(monkeypatch, name, pixel, measure, low, high):
    only(monkeypatch, **{name: getattr(augmentation, name)})
    image = np.array([[pixel]], np.uint8)
    found = [measure(result[0, 0].astype(float)) for result in draws(image)]
    rounding = 0.02 * (high - low)
    assert low - rounding <= min(found) <= low + 0.05 * (high - low)
    assert high + rounding >= max(found) >= high - 0.05 * (high - low)


def test_contrast_comes_first_or_last(monkeypatch):
    """Both orders occur, in half of the images each; they differ where contrast is cut off at white."""
    only(monkeypatch, CONTRAST=(1.5, 1.5), SATURATION=(0.5, 0.5))
    image = np.array([[(240, 120, 120)]], np.uint8)
    first = turned(bytes_of(image * 1.5), saturation=0.5)
    last = np.clip(turned(image, saturation=0.5) * 1.5, 0, 255)
    assert np.abs(first - last).max() > 30
    alone = (image, bytes_of(image * 1.5), turned(image, saturation=0.5))
    both = [one for one in draws(image, 2 * DRAWS) if min(np.abs(one - other).max() for other in alone) > 3]
    early = sum(np.abs(one - first).max() <= 3 for one in both)
    late = sum(np.abs(one - last).max() <= 3 for one in both)
    assert early + late == len(both) and abs(len(both) / (2 * DRAWS) - 0.25) < SHARE
    assert abs(early / len(both) - 0.5) < 0.15


def test_grey_has_neither_hue_nor_saturation(monkeypatch):
    only(monkeypatch, SATURATION=augmentation.SATURATION, HUE=augmentation.HUE)
    grey = np.full((3, 3, 3), 77, np.uint8)
    assert not changed(grey, draws(grey, 40))


def test_the_given_image_is_left_as_it_is():
    image = photo()
    before = image.copy()
    draws(image, 20)
    assert np.array_equal(image, before)


def test_flips_take_the_labels_along(monkeypatch):
    """The image shows its labels, so each result must too; half of the results are mirrored."""
    only(monkeypatch)
    labels = np.arange(64, dtype=np.int32).reshape(8, 8)
    image = np.repeat(labels[:, :, None].astype(np.uint8), 3, axis=2)
    flipped = 0
    for index in range(DRAWS):
        rng = np.random.default_rng(index)
        new_image, new_labels = augmented(image, labels, rng, short_px=8, crop_px=8, unlabelled=-1)
        assert np.array_equal(new_image[:, :, 0], new_labels)
        assert np.array_equal(new_labels, labels) or np.array_equal(new_labels, labels[:, ::-1])
        flipped += not np.array_equal(new_labels, labels)
    assert abs(flipped / DRAWS - 0.5) < SHARE


def test_crops_lie_anywhere(monkeypatch):
    """Every place of a 6 x 6 crop in 8 x 8 pixels occurs, the same for image and labels."""
    only(monkeypatch)
    labels = np.arange(64, dtype=np.int32).reshape(8, 8)
    image = np.repeat(labels[:, :, None].astype(np.uint8), 3, axis=2)
    corners = set()
    for index in range(200):
        rng = np.random.default_rng(index)
        new_image, new_labels = augmented(image, labels, rng, short_px=8, crop_px=6, unlabelled=-1)
        assert new_image.shape == (6, 6, 3) and np.array_equal(new_image[:, :, 0], new_labels)
        corners.add(int(new_labels.min()))
    assert corners == {8 * top + left for top in range(3) for left in range(3)}


def test_what_an_image_lacks_is_black_and_unlabelled(monkeypatch):
    only(monkeypatch)
    image, labels = np.full((4, 6, 3), 9, np.uint8), np.full((4, 6), 2, np.int32)
    image, labels = augmented(image, labels, np.random.default_rng(0), short_px=4, crop_px=8, unlabelled=-1)
    assert image.shape == (8, 8, 3) and labels.shape == (8, 8)
    assert ((labels == 2).sum(), (labels == -1).sum()) == (24, 40)
    assert (image[labels == 2] == 9).all() and (image[labels == -1] == 0).all()


@pytest.mark.parametrize(("size", "expected"), [((40, 60), (20, 30)), ((60, 40), (30, 20)), ((5, 7), (20, 28))])
def test_the_short_side_after_resizing(size, expected):
    image, labels = resized(np.zeros((*size, 3), np.uint8), np.zeros(size, np.int32), 20)
    assert image.shape == (*expected, 3) and labels.shape == expected
    assert image.dtype == np.uint8 and labels.dtype == np.int32


@pytest.mark.parametrize("short_px", [7, 20, 45])
def test_labels_are_those_of_the_nearest_pixel(short_px):
    """No label between two others appears, nor is one beyond a byte lost."""
    labels = np.random.default_rng(1).choice([-1, 3, 254, 255, 300, 846], (20, 30)).astype(np.int32)
    new = resized(np.zeros((20, 30, 3), np.uint8), labels, short_px)[1]
    rows, columns = (
        np.floor((np.arange(count) + 0.5) * old / count).astype(int)
        for count, old in zip(new.shape, labels.shape, strict=True)
    )
    assert np.array_equal(new, labels[np.ix_(rows, columns)])
