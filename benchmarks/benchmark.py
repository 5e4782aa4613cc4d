"""The benchmark of a bundle or a preset, from names and paths to rows."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from pcaseg.benchmarks.bench import bench
from pcaseg.benchmarks.device import check_device
from pcaseg.benchmarks.plan import BenchOptions
from pcaseg.benchmarks.rows import BenchRow, append_rows, check_destination
from pcaseg.benchmarks.targets import open_target
from pcaseg.configs import Strategy
from pcaseg.evaluation.labelled_scenes import open_labelled
from pcaseg.runtime.batch import expand_images


def benchmark(
    subject: str | os.PathLike[str],
    *,
    model: str | None = None,
    classes: Sequence[int] = (20,),
    batch: Sequence[int] = (1,),
    strategies: Sequence[Strategy] | None = None,
    precisions: Sequence[str] | None = None,
    threads: Sequence[int] = (),
    streams: Sequence[int] = (1,),
    backends: Sequence[str] | None = None,
    device: str = "cpu",
    photos: Sequence[Path] | None = None,
    image_size: tuple[int, int] | None = None,
    seconds: float = 30.0,
    gate: Mapping[str, float] | None = None,
    labelled: str | None = None,
    cold: bool = True,
    shortlist: int | None = None,
    out: str | os.PathLike[str] | None = None,
    progress: bool = False,
) -> list[BenchRow]:
    """Measures every backend against the eager float32 model; every combination of the sequences is a point.

    Args:
        subject: a bundle's path, or a preset's name, which is exported for the purpose.
        model: the bundle's model file, where it is no longer where the bundle was exported from.
        classes: sizes of the vocabularies, 1 to 847.
        batch: images of one call.
        strategies: `single`, `sliding`; None for the bundle's own, or `single`.
        precisions: `float32`, `float16`, `bfloat16`; None for the bundle's own, or float32.
        threads: CPU threads of one call; empty for all processors that this process may use.
        streams: calls at the same time.
        backends: what is measured; None for all that start quickly.
        device: `cpu` or `cuda`.
        photos: image files and folders, resized to the first one's size; None for the built-in photographs.
        image_size: (height, width) in pixels of all images; None for the bundle's or the first photo's, or 480 x 640.
        seconds: of taking turns at each point.
        gate: thresholds by name, see `pcaseg.evaluation.gates`, that replace the default ones.
        labelled: for mIoU: a folder with `classes.txt`, `images/` and `labels/`, or `scenes` for 200 rendered ones.
        cold: whether to measure cold starts and peak memory too.
        shortlist: classes of each window that all backends aggregate at most; None for the bundle's own, or 256.
        out: file of rows to add to, each as soon as it is measured.
        progress: show a progress bar on standard error.

    Returns:
        A row for each backend at each point, of those that were skipped too.

    Raises:
        OutputError: `out` cannot be written, or holds something else than rows.
        PcasegError: the subclasses name what cannot be used.
    """
    if out is not None:
        check_destination(out)
    check_device(device)
    pictures = expand_images(photos) if photos else None
    rows = []
    with (
        open_labelled(labelled) as folder,
        open_target(
            os.fspath(subject),
            model_path=model,
            precisions=precisions,
            photos=pictures,
            image_size=image_size,
            strategies=strategies,
            shortlist=shortlist,
        ) as (target, wanted, chosen),
    ):
        options = BenchOptions(
            classes=tuple(classes),
            images=tuple(batch),
            strategies=chosen,
            precisions=wanted,
            threads=tuple(threads),
            streams=tuple(streams),
            backends=None if backends is None else tuple(backends),
            device=device,
            seconds=seconds,
            gate=gate or {},
            labelled=folder,
            cold=cold,
        )
        for row in bench(target, options, progress=progress):
            rows.append(row)
            if out is not None:
                append_rows(out, [row])
    return rows
