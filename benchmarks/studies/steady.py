"""Labels that flicker, with and without averaging: `python -m pcaseg.benchmarks.studies.steady --out rows.json`.

Rendered scenes of `tiny` in motion go through `Segmenter.stream(..., smooth=...)`. A pixel flickers where its label
changes from one frame to the next although what it truly shows does not.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from tqdm import tqdm

from pcaseg.arguments import Parser, rows_file, up_to
from pcaseg.data.scene_names import BACKGROUNDS, OBJECTS
from pcaseg.data.scene_sequence import SPEED, render_sequence
from pcaseg.deploy.folded import fold
from pcaseg.environment import write_rows
from pcaseg.errors import reported
from pcaseg.evaluation.confusion import Confusion
from pcaseg.export.torch_backend import TorchBackend
from pcaseg.model.checkpoint import open_model
from pcaseg.runtime.segmenter import Segmenter

PRESET, NAMES = "tiny", (*OBJECTS, *BACKGROUNDS)
WEIGHTS = (0.0, 0.3, 0.5, 0.7, 0.8, 0.9)
SPEEDS = (0.0, SPEED, 2 * SPEED)


@dataclass(frozen=True)
class SteadyRow:
    """One weight of the past at one speed.

    Attributes:
        speed: largest way of an object from frame to frame, of the scene's side.
        smooth: weight of the past.
        frames: labelled, of all sequences.
        flicker: share of the pixels that flicker.
        miou: over all frames, 0 to 1.
        ms: of the whole stream, per frame.
    """

    speed: float
    smooth: float
    frames: int
    flicker: float
    miou: float
    ms: float


def measure(segmenter: Segmenter, *, speed: float, smooth: float, sequences: int, frames: int) -> SteadyRow:
    """Labels the sequences and scores them."""
    confusion = Confusion(len(NAMES))
    changed = still = 0
    seconds = 0.0
    for index in range(sequences):
        scenes = list(render_sequence(index, frames=frames, speed=speed))
        start = time.perf_counter()
        with segmenter.stream([scene.image for scene in scenes], NAMES, smooth=smooth) as stream:
            found = [item.result.labels for item in stream if item.result is not None]
        seconds += time.perf_counter() - start
        truth = [scene.labels(NAMES) for scene in scenes]
        for labels, true in zip(found, truth, strict=True):
            confusion.add(labels, true)
        for pair, shown in zip(pairwise(found), pairwise(truth), strict=True):
            same = (shown[0] == shown[1]) & (shown[0] >= 0)
            still += int(same.sum())
            changed += int(((pair[0] != pair[1]) & same).sum())
    count = sequences * frames
    return SteadyRow(speed, smooth, count, changed / still, confusion.scores().miou / 100, 1e3 * seconds / count)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and writes the rows; returns 0."""
    parser = Parser(prog="python -m pcaseg.benchmarks.studies.steady", description=__doc__)
    parser.add_argument("--out", type=rows_file, required=True, help="JSON file of rows")
    parser.add_argument("--sequences", type=up_to(1000), default=6)
    parser.add_argument("--frames", type=up_to(1000, least=2), default=24)
    options = parser.parse_args(arguments)
    rows = []
    with Segmenter(TorchBackend(fold(open_model(PRESET)))) as segmenter:
        for speed, smooth in tqdm([(speed, weight) for speed in SPEEDS for weight in WEIGHTS], unit="row"):
            rows.append(
                measure(segmenter, speed=speed, smooth=smooth, sequences=options.sequences, frames=options.frames)
            )
    write_rows(options.out, rows, preset=PRESET)
    for row in rows:
        print(f"speed {row.speed:.3f} smooth {row.smooth:.1f}: flicker {row.flicker:.2%}, mIoU {row.miou:.3f}")
    print(f"{options.out}: {len(rows)} rows")
    return 0


if __name__ == "__main__":
    sys.exit(reported(main))
