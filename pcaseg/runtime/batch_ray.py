"""Many images on a cluster: `pcaseg.runtime.batch` by the workers of `pcaseg.runtime.ray_pool`."""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from pcaseg.errors import OutputError
from pcaseg.paths import real_path, status
from pcaseg.runtime.batch import Batch, check_folder, output_stems, segment_item
from pcaseg.runtime.image_places import ImagePlace, RemoteImage, image_place
from pcaseg.runtime.ray_pool import RayPool, Work, died
from pcaseg.runtime.result import output_paths
from pcaseg.runtime.segmenter import Segmenter


def segment_on_ray(
    segmenter: Segmenter,
    images: Sequence[ImagePlace],
    out: str | os.PathLike[str],
    pool: RayPool,
    *,
    progress: bool = False,
) -> Batch:
    """As `pcaseg.runtime.batch.segment_files`, by workers that each open the segmenter anew; `last` stays None.

    Args:
        segmenter: of a bundle, with its vocabulary set. Bundle, images and `out` are where workers find them too.
        images: image files, here or elsewhere.
        out: folder, made if need be.
        pool: where to work.
        progress: show a progress bar on standard error.

    Raises:
        PcasegError: as `segment_files` and `RayPool.run`.
    """
    check_folder(images, out)
    stems = output_stems(images)
    folder = real_path(out, error=OutputError)
    items = [
        {
            "image": str(path if isinstance(path, RemoteImage) else path.absolute()),
            "said": str(path),
            "stem": stem,
            "before": _written(folder, stem),
        }
        for path, stem in stems.items()
    ]
    outcomes: dict[int, Mapping[str, Any]] = {}
    with tqdm(total=len(items), desc="segment", unit="image", disable=not progress) as bar:
        for index, outcome in pool.run(partial(_open, pickle.dumps(segmenter), str(folder)), items):
            outcomes[index] = outcome
            bar.update()
    batch = Batch()
    for index, path in enumerate(stems):
        found = outcomes[index]
        if "died" in found:
            batch.failed.append((path, died(path)))
        elif found["state"] == "failed":
            batch.failed.append((path, found["said"]))
        else:
            (batch.done if found["state"] == "done" else batch.skipped).append(path)
    return batch


def _open(segmenter: bytes, folder: str) -> Work:
    """Opens the driver's segmenter anew in a worker."""
    return partial(_segment, pickle.loads(segmenter), Path(folder))


def _segment(segmenter: Segmenter, folder: Path, item: Mapping[str, Any]) -> dict[str, Any]:
    outcome = segment_item(segmenter, image_place(item["image"]), item["stem"], folder)
    state = outcome.state
    if state == "skipped" and _written(folder, item["stem"]) != item["before"]:
        state = "done"  # by a worker of this run, which died before it could say so
    return {"state": state, "said": outcome.said.replace(item["image"], item["said"])}


def _written(folder: Path, stem: str) -> int | None:
    """Time of an image's summary, of which each run writes its own; None where there is none."""
    found = status(output_paths(folder, stem)["summary"], error=OutputError)
    return None if found is None else found.st_mtime_ns
