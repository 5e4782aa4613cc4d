"""A stream against the plain loop: `python -m pcaseg.benchmarks.studies.streaming BUNDLE --out rows.json`.

JPEG frames, decoded as they come, through the same segmenter: once by `for frame in frames: segmenter(decode(frame))`,
once by `segmenter.stream`, in turn, so that drift hits both alike.
"""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from PIL import Image
from tqdm import tqdm

from pcaseg.arguments import CORES, EXIT_OK, Parser, rows_file, some_path, up_to
from pcaseg.benchmarks.intervals import check_pairs
from pcaseg.class_lists import first_names
from pcaseg.data.scenes import render_scene
from pcaseg.environment import write_rows
from pcaseg.errors import PcasegError, reported
from pcaseg.runtime.segmenter import Segmenter
from pcaseg.runtime.stream import Frame

SIZES = ((96, 96), (480, 640))
"""Height and width of the frames."""

LENGTHS = (8, 32)
"""Of the vocabulary."""


@dataclass(frozen=True)
class StreamingRow:
    """Frames of one size with one vocabulary.

    Attributes:
        height, width: of a frame.
        classes: T.
        frames: of each round.
        loop_s, stream_s: of each round.
    """

    height: int
    width: int
    classes: int
    frames: int
    loop_s: list[float]
    stream_s: list[float]


def measure(
    segmenter: Segmenter, size: tuple[int, int], classes: int, *, frames: int, rounds: int, progress: bool = False
) -> StreamingRow:
    """Times both ways, `rounds` times each.

    Raises:
        PcasegError: fewer than two rounds, of which there is no interval; or the two ways disagree on a frame.
    """
    check_pairs("rounds", rounds)
    height, width = size
    segmenter.set_vocabulary(list(first_names(classes)))
    files = [_jpeg(index, size) for index in range(frames)]
    took: dict[Callable[[Segmenter, Sequence[bytes]], list[np.ndarray]], list[float]] = {by_loop: [], by_stream: []}
    expected = by_loop(segmenter, files)  # warms up too
    for _ in tqdm(range(rounds), desc=f"{height} x {width}, {classes} classes", unit="round", disable=not progress):
        for way, seconds in took.items():
            start = time.perf_counter()
            labels = way(segmenter, files)
            seconds.append(time.perf_counter() - start)
            if not all(np.array_equal(*pair) for pair in zip(labels, expected, strict=True)):
                raise PcasegError(f"{height} x {width}: the stream's labels are not those of single calls")
    return StreamingRow(height, width, classes, frames, took[by_loop], took[by_stream])


def by_loop(segmenter: Segmenter, files: Iterable[bytes]) -> list[np.ndarray]:
    """Labels, one frame after the other."""
    return [segmenter(_decode(file)).labels for file in files]


def by_stream(segmenter: Segmenter, files: Iterable[bytes]) -> list[np.ndarray]:
    """Labels, the frames' parts at the same time."""
    with segmenter.stream(Frame(partial(_decode, file)) for file in files) as stream:
        return [item.result.labels for item in stream if item.result is not None]


def _jpeg(index: int, size: tuple[int, int]) -> bytes:
    scene = Image.fromarray(render_scene(index, split="evaluation").image).resize(size[::-1], Image.Resampling.BICUBIC)
    file = io.BytesIO()
    scene.save(file, "JPEG", quality=90)
    return file.getvalue()


def _decode(file: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(file)))


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and writes the rows; returns 0."""
    parser = Parser(prog="python -m pcaseg.benchmarks.studies.streaming", description=__doc__)
    parser.add_argument("bundle", type=some_path, help="of `pcaseg export tiny`")
    parser.add_argument("--out", type=rows_file, required=True, help="JSON file of rows")
    parser.add_argument("--frames", type=up_to(100_000), default=30, help="of each round")
    parser.add_argument("--rounds", type=up_to(1000, least=2), default=7)
    parser.add_argument("--threads", type=up_to(CORES), help="CPU threads of the network")
    options = parser.parse_args(arguments)
    with Segmenter(options.bundle, threads=options.threads) as segmenter:
        rows = [
            measure(segmenter, size, classes, frames=options.frames, rounds=options.rounds, progress=True)
            for size in SIZES
            for classes in LENGTHS
        ]
    write_rows(options.out, rows, bundle=options.bundle.name, threads=options.threads)
    print(f"{options.out}: {len(rows)} rows")
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(reported(main))
