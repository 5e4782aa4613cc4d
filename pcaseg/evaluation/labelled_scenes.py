"""The project's own scenes as a labelled set: 200 fixed ones, rendered when they are needed."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from pcaseg.data.folders import LabelledFolder
from pcaseg.data.scene_names import BACKGROUNDS, PAIRS
from pcaseg.data.scenes import SCENE_PX, render_scene
from pcaseg.evaluation.labelled import read_labelled

SOURCE = "scenes"
"""What stands for these scenes where a folder of labelled images may stand."""

COUNT, SEED = 200, 2
NAMES = (*PAIRS, *BACKGROUNDS)
"""The classes: 48 pairs such as "red car", the held-out ones among them, and 5 backgrounds."""


@contextmanager
def open_labelled(source: str | None) -> Iterator[LabelledFolder | None]:
    """A folder of labelled images, or for `scenes` the rendered ones, which go with the block; None for None.

    Raises:
        PcasegError: as `read_labelled`.
    """
    if source is None:
        yield None
    elif source == SOURCE:
        with tempfile.TemporaryDirectory(prefix="pcaseg-scenes-") as temporary:
            yield write_scenes(Path(temporary))
    else:
        yield read_labelled(Path(source))


def write_scenes(folder: Path, *, count: int = COUNT, side: int = SCENE_PX, progress: bool = False) -> LabelledFolder:
    """Renders scenes in the form that `read_labelled` reads: every second one shows a held-out pair.

    Args:
        folder: exists and is empty.
        count: how many.
        side: pixels per side of images and labels; what is measured has 96.
        progress: show a progress bar on standard error.
    """
    for name in ("images", "labels"):
        (folder / name).mkdir()
    (folder / "classes.txt").write_text("\n".join(NAMES) + "\n", encoding="utf-8")
    for index in tqdm(range(count), desc="scenes", unit="scene", disable=not progress):
        scene = render_scene(index, seed=SEED, split="held-out" if index % 2 else "evaluation", side=side)
        labels = scene.labels(NAMES)
        Image.fromarray(scene.image).save(folder / "images" / f"{index:04}.png")
        Image.fromarray(np.where(labels < 0, 255, labels).astype(np.uint8)).save(folder / "labels" / f"{index:04}.png")
    return read_labelled(folder)
