"""Workers of Ray against processes: `python -m pcaseg.benchmarks.studies.clusters BUNDLE --out rows.json`.

The same evaluation of rendered scenes runs in processes and by workers of Ray on this machine, one CPU thread each. The
time to the first counts is the start; images a second are of the whole run. Results must be the same.
"""

from __future__ import annotations

import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pcaseg.arguments import Parser, rows_file, up_to
from pcaseg.data.folders import open_data
from pcaseg.data.scenes import SHOWN_PX
from pcaseg.environment import write_rows
from pcaseg.errors import PcasegError, reported
from pcaseg.evaluation.evaluate import evaluate
from pcaseg.evaluation.labelled_scenes import write_scenes
from pcaseg.runtime.bundle import Bundle
from pcaseg.runtime.ray_pool import LOCAL, RayPool, check_ray

_POLL_S = 0.05


@dataclass(frozen=True)
class ClusterRow:
    """One way to share images out.

    Attributes:
        case: `processes` or `ray`.
        workers: of it, one CPU thread each.
        images: how many.
        seconds: of all, start and end included.
        per_second: images, over all of it.
        start_s: to the first counts: opening bundles, and Ray itself.
    """

    case: str
    workers: int
    images: int
    seconds: float
    per_second: float
    start_s: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and writes the rows."""
    parser = Parser(prog="python -m pcaseg.benchmarks.studies.clusters", description=__doc__)
    parser.add_argument("bundle", type=Path, metavar="BUNDLE")
    parser.add_argument("--images", type=up_to(10_000, least=16), default=128, help="scenes (default: 128)")
    parser.add_argument("--note", default="", help="on what else the machine did")
    parser.add_argument("--out", type=rows_file, required=True, help="rows to write, .json")
    options = parser.parse_args(arguments)
    check_ray(LOCAL)
    preset = Bundle(options.bundle).manifest.preset
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "scenes").mkdir()
        write_scenes(Path(folder, "scenes"), count=options.images, side=SHOWN_PX)
        rows, miou = [], set()
        for case in ("processes", "ray"):
            for workers in (1, 2):
                row, measured = measure(case, workers, options.bundle, Path(folder), options.images)
                print(f"{case} {workers}: {row.per_second:.2f} images/s, start {row.start_s:.1f} s", flush=True)
                rows.append(row)
                miou.add(measured)
    if len(miou) > 1:
        raise PcasegError(f"{options.bundle}: the ways disagree (mIoU {sorted(miou)}); report this")
    write_rows(options.out, rows, preset=preset, threads=1, note=options.note)
    return 0


def measure(case: str, workers: int, bundle: Path, folder: Path, images: int) -> tuple[ClusterRow, float]:
    """One way: its row, and the mIoU."""
    more: dict[str, Any] = {"processes": workers} if case == "processes" else {"ray": RayPool(LOCAL, workers)}
    out = folder / f"{case}-{workers}"
    start = time.perf_counter()
    with _watched(out) as seen:
        found = evaluate(
            open_data(str(folder / "scenes"), None), out=out, bundle=bundle, strategy="single", threads=1, **more
        )
        seconds = time.perf_counter() - start
    if found.results is None:
        raise PcasegError(f"{bundle}: {found.missing} images have no counts; {'; '.join(found.failed)}")
    row = ClusterRow(case, workers, images, seconds, images / seconds, seen[0] - start)
    return row, float(found.results["subjects"][0]["miou"])


@contextmanager
def _watched(out: Path) -> Iterator[list[float]]:
    """The time at which the first image was counted in a folder."""
    seen: list[float] = []
    ended = threading.Event()

    def watch() -> None:
        while not seen and not ended.wait(_POLL_S):
            if any(path.read_bytes().count(b"\n") > 1 for path in out.glob("*.jsonl")):  # below what is evaluated
                seen.append(time.perf_counter())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield seen
        time.sleep(2 * _POLL_S)  # for the last of them
    finally:
        ended.set()
        watcher.join()


if __name__ == "__main__":
    sys.exit(reported(main))
