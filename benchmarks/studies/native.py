"""The C++ program beside the Python runtime: `python -m pcaseg.benchmarks.studies.native PROGRAM BUNDLE VOCABULARY`.

PROGRAM is `pcaseg-segment` of a build of `export/cpp`. Both segment the same frames on as many threads, in rounds that
take turns, after frames that warm up; every label of the two is compared, and a difference is an error.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from pcaseg.arguments import CORES, Parser, rows_file, some_path, up_to
from pcaseg.data.scenes import render_scene
from pcaseg.environment import write_rows
from pcaseg.errors import PcasegError, reported
from pcaseg.runtime.segmenter import Segmenter

FRAMES, WARM = 8, 2
"""Rendered scenes of each round, and how many of them are not counted."""

SIZE, SEED = (640, 480), 20
"""Width and height of the frames, and what the scenes are drawn from."""

STAGES = ("prepare", "network", "labels", "total")


@dataclass(frozen=True)
class NativeRow:
    """Times of one runtime, frame by frame.

    Attributes:
        runtime: `c++` or `python`.
        preset: of the bundle.
        classes: T.
        height, width: of the frames, in pixels.
        times_ms: of each stage, a number for each frame in the order of the rounds.
    """

    runtime: str
    preset: str
    classes: int
    height: int
    width: int
    times_ms: dict[str, list[float]]


def run_program(
    program: Path, bundle: Path, vocabulary: Path, frames: np.ndarray, threads: int
) -> tuple[list[np.ndarray], dict[str, list[float]]]:
    """Labels and times of frames `(N, H, W, 3)` uint8 in one process of the program.

    Raises:
        PcasegError: it fails; the sentence is its own.
    """
    height, width = frames.shape[1:3]
    with tempfile.TemporaryDirectory() as folder:
        words = [program, bundle, vocabulary, folder, "--raw", f"{width}x{height}", "--threads", str(threads)]
        done = subprocess.run(list(map(str, words)), input=frames.tobytes(), capture_output=True, check=False)
        if done.returncode != 0:
            raise PcasegError(f"{program}: {done.stderr.decode(errors='replace').strip()}")
        labels = [np.array(Image.open(path)) for path in sorted(Path(folder).iterdir())]
    said = done.stdout.decode()
    return labels, {stage: [float(ms) for ms in re.findall(rf"{stage} ([0-9.]+) ms", said)] for stage in STAGES}


def measure(
    program: Path, bundle: Path, vocabulary: Path, frames: np.ndarray, *, threads: int, rounds: int
) -> list[NativeRow]:
    """Runs both runtimes on the frames in turn.

    Raises:
        PcasegError: the program fails, or a label differs.
    """
    segmenter = Segmenter(bundle, threads=threads)
    segmenter.set_vocabulary(vocabulary)
    assert segmenter.vocabulary is not None
    times: dict[str, dict[str, list[float]]] = {name: {stage: [] for stage in STAGES} for name in ("c++", "python")}
    for _ in range(rounds):
        labels, found = run_program(program, bundle, vocabulary, frames, threads)
        results = [segmenter(frame) for frame in frames]
        if not all((a == b.labels).all() for a, b in zip(labels, results, strict=True)):
            raise PcasegError(f"{program}: other labels than the Python runtime's; build it anew")
        for stage in STAGES:
            times["c++"][stage] += found[stage][WARM:]
            python = [result.timings_ms[stage] for result in results[WARM:] if stage != "total"]
            times["python"][stage] += python
    for laps in times.values():  # without reading, which the two do differently
        laps["total"] = [sum(one) for one in zip(*(laps[stage] for stage in STAGES[:-1]), strict=True)]
    height, width = frames.shape[1:3]
    preset, classes = segmenter.backend.manifest.preset, len(segmenter.vocabulary.names)
    return [NativeRow(name, preset, classes, height, width, laps) for name, laps in times.items()]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and writes the rows; returns 0."""
    parser = Parser(prog="python -m pcaseg.benchmarks.studies.native", description=__doc__)
    parser.add_argument("program", type=some_path, help="pcaseg-segment")
    parser.add_argument("bundle", type=some_path, help="of a graph of logits")
    parser.add_argument("vocabulary", type=some_path, help=".safetensors")
    parser.add_argument("--out", type=rows_file, required=True, help="JSON file of rows")
    parser.add_argument("--rounds", type=up_to(1000, least=2), default=5)
    parser.add_argument("--threads", type=up_to(CORES), default=1)
    options = parser.parse_args(arguments)
    scenes = [Image.fromarray(render_scene(index, seed=SEED).image) for index in range(FRAMES)]
    frames = np.stack([np.array(scene.resize(SIZE)) for scene in scenes])
    rows = measure(
        options.program, options.bundle, options.vocabulary, frames, threads=options.threads, rounds=options.rounds
    )
    write_rows(options.out, rows, threads=options.threads)
    print(f"{options.out}: {len(rows)} rows")
    return 0


if __name__ == "__main__":
    sys.exit(reported(main))
