"""A stream for hours: `python -m pcaseg.benchmarks.studies.soak BUNDLE --frames 20000 --out rows.json`.

Frames of mixed sizes flow through one segmenter. The vocabulary changes while they do, some frames are corrupt, and now
and then the consumer throws an exception, upon which the stream ends and a new one goes on. The labels of every frame
are compared with those of a single call, and its names with those that were chosen for it; memory, threads and open
files are watched.

Each new thread may take a new arena of glibc's malloc, and memory grows with the number of those, not with the frames:
run it with `MALLOC_ARENA_MAX=1` too, and the two rows tell one from the other.
"""

from __future__ import annotations

import gc
import hashlib
import math
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import scipy.stats
from tqdm import tqdm

from pcaseg.arguments import CORES, EXIT_FAILED, EXIT_OK, Parser, rows_file, up_to
from pcaseg.class_lists import first_names
from pcaseg.data.scene_names import BACKGROUNDS, OBJECTS, PAIRS
from pcaseg.data.scenes import render_scene
from pcaseg.environment import resident_mib, write_rows
from pcaseg.errors import PcasegError, reported
from pcaseg.runtime.segmenter import Segmenter
from pcaseg.runtime.stream import Frame, StreamItem

SIZES = ((96, 96), (72, 128), (128, 72), (96, 160), (33, 50))
VOCABULARIES: tuple[tuple[str, ...], ...] = (
    (*OBJECTS, *BACKGROUNDS),
    tuple(PAIRS[:9]),
    tuple(first_names(31)),
    ("car: wheel, window", "house: roof", "sky", "grass"),
)
PICTURES = 2
"""Of each size; with every vocabulary each has a single right answer, which is computed once."""

CORRUPT_EVERY, CHANGE_EVERY, THROW_EVERY, SAMPLE_EVERY = 41, 37, 997, 20
WARM = 0.2
"""Share of the frames after which memory is watched: by then buffers of every size are made."""


@dataclass(frozen=True)
class SoakRow:
    """One run.

    Attributes:
        frames: that were read, the corrupt ones too.
        wrong: results with other labels or names than a single call's, corrupt frames without an error, and frames
            that never came out.
        corrupt: frames with an error, as they must have.
        changes: of the vocabulary.
        exceptions: that the consumer threw.
        seconds: of the run.
        p50_ms, p95_ms, p99_ms: from a frame's reading to its taking.
        mib_per_1000: growth of memory after the first fifth, MiB per 1,000 frames, by least squares.
        mib_low, mib_high: its 95 % interval.
        threads, files: more at the end than before.
    """

    frames: int
    wrong: int
    corrupt: int
    changes: int
    exceptions: int
    seconds: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    mib_per_1000: float
    mib_low: float
    mib_high: float
    threads: int
    files: int

    @property
    def passed(self) -> bool:
        """No wrong answer, nothing left behind, no growth that the interval tells from none and from 1 MiB."""
        return not self.wrong and self.threads <= 0 and self.files <= 0 and (self.mib_low <= 0 or self.mib_high < 1)


class _ConsumerError(Exception):
    """The exception that a consumer throws."""


@dataclass
class _Watch:
    """Counts of a run, and of each frame its latency and the memory then, NaN where none was taken; made at their full
    length, lest the watch itself grows."""

    wrong: int = 0
    corrupt: int = 0
    changes: int = 0
    exceptions: int = 0
    latencies_ms: np.ndarray = field(default_factory=lambda: np.empty(0))
    resident_mib: np.ndarray = field(default_factory=lambda: np.empty(0))


def soak(segmenter: Segmenter, frames: int, *, progress: bool = False) -> SoakRow:
    """Runs that many frames through streams of one segmenter.

    Raises:
        PcasegError: fewer frames than memory can be judged by.
    """
    if frames < 10 * SAMPLE_EVERY:
        raise PcasegError(f"frames={frames}: give {10 * SAMPLE_EVERY} or more")
    pictures = [_picture(size, index) for index, size in enumerate(SIZES * PICTURES)]
    right = {
        (picture, which): _answer(segmenter(pictures[picture], vocabulary=names).labels)
        for picture in range(len(pictures))
        for which, names in enumerate(VOCABULARIES)
    }
    names = [segmenter.prepare(spec).names for spec in VOCABULARIES]
    watch = _Watch(latencies_ms=np.full(frames, math.nan), resident_mib=np.full(frames, math.nan))
    random = np.random.default_rng(0)
    plan = random.integers(0, len(pictures), frames)
    bar = tqdm(total=frames, desc="soak", unit="frame", disable=not progress)
    before = threading.active_count(), _open_files()  # the bar has a thread of its own
    start, which = 0, 0
    while start < frames:
        begun, chosen = start, [(0, which)]

        def source(begun: int = begun) -> Iterator[Frame]:
            for number in range(begun, frames):
                yield Frame(_source_of(number, pictures[plan[number]]), timestamp=number)

        try:
            with segmenter.stream(source(), VOCABULARIES[which], queue=3) as stream:
                for item in stream:
                    number = begun + item.index
                    watch.wrong += number != item.timestamp or number != start  # order, and none missing
                    start = number + 1
                    in_force = max(one for one in chosen if one[0] <= item.index)[1]
                    _judge(item, number, names[in_force], right[int(plan[number]), in_force], watch)
                    bar.update()
                    if number % SAMPLE_EVERY == 0:
                        watch.resident_mib[number] = resident_mib() or math.nan
                    if number % CHANGE_EVERY == CHANGE_EVERY - 1:
                        which = int(random.integers(len(VOCABULARIES)))
                        chosen.append((stream.set_vocabulary(VOCABULARIES[which]), which))
                        watch.changes += 1
                    if number % THROW_EVERY == THROW_EVERY - 1:
                        raise _ConsumerError
        except _ConsumerError:
            watch.exceptions += 1
    seconds = bar.format_dict["elapsed"]
    bar.close()
    gc.collect()
    return _row(watch, frames, seconds, threading.active_count() - before[0], _open_files() - before[1])


def _judge(item: StreamItem, number: int, names: tuple[str, ...], answer: str, watch: _Watch) -> None:
    if number % CORRUPT_EVERY == 0:
        watch.corrupt += item.error is not None
        watch.wrong += item.error is None
        return
    watch.latencies_ms[number] = item.latency_ms
    watch.wrong += item.result is None or item.result.classes != names or _answer(item.result.labels) != answer


def _source_of(number: int, picture: np.ndarray) -> np.ndarray | Callable[[], np.ndarray]:
    """A picture; of corrupt frames, in turn an array of a wrong kind, one without pixels, and a decoder that fails."""
    if number % CORRUPT_EVERY:
        return picture
    kind = number // CORRUPT_EVERY % 3
    if kind == 2:
        return lambda: np.frombuffer(b"\xff\xd8 no JPEG", np.uint16)
    return picture.astype(np.float64) if kind else picture[:0]


def _row(watch: _Watch, frames: int, seconds: float, threads: int, files: int) -> SoakRow:
    (sampled,) = np.nonzero(~np.isnan(watch.resident_mib))
    late = sampled[sampled >= WARM * frames]
    line = scipy.stats.linregress(late / 1000, watch.resident_mib[late])
    reach = float(scipy.stats.t.ppf(0.975, len(late) - 2) * line.stderr)
    p50, p95, p99 = np.nanpercentile(watch.latencies_ms, (50, 95, 99)).round(1).tolist()
    return SoakRow(
        frames=frames,
        wrong=int(watch.wrong),
        corrupt=watch.corrupt,
        changes=watch.changes,
        exceptions=watch.exceptions,
        seconds=round(seconds, 1),
        p50_ms=p50,
        p95_ms=p95,
        p99_ms=p99,
        mib_per_1000=round(float(line.slope), 3),
        mib_low=round(float(line.slope) - reach, 3),
        mib_high=round(float(line.slope) + reach, 3),
        threads=threads,
        files=files,
    )


def _picture(size: tuple[int, int], index: int) -> np.ndarray:
    image = render_scene(index, split="evaluation").image
    rows, columns = (np.arange(new) * old // new for new, old in zip(size, image.shape, strict=False))
    return np.ascontiguousarray(image[rows[:, None], columns])


def _answer(labels: np.ndarray) -> str:
    return hashlib.sha256(labels.tobytes()).hexdigest()


def _open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs, prints and stores the row; 1 if something was wrong, grew or was left."""
    parser = Parser(prog="python -m pcaseg.benchmarks.studies.soak", description=__doc__)
    parser.add_argument("bundle", type=Path, help="of `pcaseg export tiny`")
    parser.add_argument("--frames", type=up_to(10_000_000), default=20_000)
    parser.add_argument("--threads", type=up_to(CORES), default=2)
    parser.add_argument("--out", type=rows_file, required=True, help="JSON file of rows")
    options = parser.parse_args(arguments)
    with Segmenter(options.bundle, threads=options.threads) as segmenter:
        row = soak(segmenter, options.frames, progress=True)
        arenas = os.environ.get("MALLOC_ARENA_MAX")
        write_rows(options.out, [row], backend=segmenter.backend.name, threads=options.threads, malloc_arena_max=arenas)
    print(row)
    print(f"{options.out}: {'passed' if row.passed else 'failed'}")
    return EXIT_OK if row.passed else EXIT_FAILED


if __name__ == "__main__":
    sys.exit(reported(main))
