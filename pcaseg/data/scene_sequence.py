"""Rendered scenes in motion: the same objects, a little further in each frame, under noise that is new each time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from pcaseg.data.scene_layout import draw_layout
from pcaseg.data.scenes import SCENE_PX, Scene, Split, render_layout, scene_random

SPEED = 0.012
"""Largest way of an object from frame to frame, of the scene's side."""

NOISE = 6.0
"""Standard deviation of what is new in each frame, of 255."""


def render_sequence(
    index: int,
    *,
    frames: int,
    seed: int = 0,
    split: Split = "evaluation",
    speed: float = SPEED,
    noise: float = NOISE,
    side: int = SCENE_PX,
) -> Iterator[Scene]:
    """Frames of sequence `index`; the first shows the scene that `render_scene` gives, but for the noise.

    Args:
        index, seed, split, side: as `render_scene`.
        frames: how many.
        speed: largest way of an object from frame to frame, of the scene's side.
        noise: standard deviation of the noise of each frame, of 255.
    """
    random = scene_random(index, seed=seed, split=split)
    layout = draw_layout(random)
    state = random.bit_generator.state
    own = np.random.default_rng(np.random.SeedSequence([seed, index, 1]))
    ways = own.uniform(-speed, speed, (len(layout.objects), 2)) * (1, 0.4)  # across more than up and down
    for number in range(frames):
        random.bit_generator.state = state  # the same shapes, texture and light in every frame
        moved = [
            replace(one, centre=(one.centre[0] + number * x, one.centre[1] + number * y))
            for one, (x, y) in zip(layout.objects, ways.tolist(), strict=True)
        ]
        scene = render_layout(replace(layout, objects=tuple(moved)), random, side=side)
        shaken = scene.image + own.normal(0, noise, scene.image.shape)
        yield replace(scene, image=np.clip(np.rint(shaken), 0, 255).astype(np.uint8))
