"""Rendered scenes in motion."""

from __future__ import annotations

import numpy as np

from pcaseg.data.scene_names import BACKGROUNDS, OBJECTS
from pcaseg.data.scene_sequence import render_sequence
from pcaseg.data.scenes import render_scene

NAMES = (*OBJECTS, *BACKGROUNDS)


def test_the_first_frame_is_the_scene():
    for index in range(3):
        (first,) = render_sequence(index, frames=1, noise=0)
        np.testing.assert_array_equal(first.image, render_scene(index, split="evaluation").image)
        np.testing.assert_array_equal(first.labels(NAMES), render_scene(index, split="evaluation").labels(NAMES))


def test_noise_is_new_and_labels_are_not_where_nothing_moves():
    still = list(render_sequence(1, frames=3, speed=0))
    assert all((one.labels(NAMES) == still[0].labels(NAMES)).all() for one in still)
    assert all((one.image != still[0].image).mean() > 0.5 for one in still[1:])


def test_objects_move_and_the_ground_stays():
    moved = list(render_sequence(1, frames=8, speed=0.03, noise=0))
    change = [(one.labels(NAMES) != moved[0].labels(NAMES)).mean() for one in moved]
    assert change[0] == 0 < change[2] < change[7] < 0.6
    ground = np.all([one.labels(BACKGROUNDS) >= 0 for one in moved], axis=0)
    assert ground.mean() > 0.1
    assert (moved[0].image[ground] == moved[7].image[ground]).mean() > 0.9
