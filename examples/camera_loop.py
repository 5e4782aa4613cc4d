"""Camera loop: frames of one size through a graph of labels, with a vocabulary that changes on the way.

    python examples/camera_loop.py --frames 20 --out camera

The graph does everything between a frame and its labels. Frames are rendered here; put your camera in `frames`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tiny_bundle import tiny_bundle

import pcaseg
from pcaseg.data.scenes import render_scene
from pcaseg.errors import PcasegError, reported
from pcaseg.export.options import ExportOptions

VOCABULARIES = (["car", "house", "tree", "sky", "grass", "road"], ["red thing", "blue thing", "sky", "grass"])


def frames(count: int) -> Iterator[np.ndarray]:
    """Frames (96, 96, 3) uint8 RGB."""
    for number in range(count):
        yield render_scene(number, split="evaluation").image


def main() -> int:
    """Labels every frame, and prints how long the network took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path("camera"))
    options = parser.parse_args()
    if options.frames < 1:
        raise PcasegError(f"--frames {options.frames}: give 1 or more")

    graph = ExportOptions(graph="labels", image_size=(96, 96))
    segmenter = pcaseg.Segmenter(tiny_bundle(options.out / "camera.pcaseg", options=graph))
    took_ms = []
    for number, frame in enumerate(frames(options.frames)):
        segmenter.set_vocabulary(VOCABULARIES[number % 2])  # going back to a former list costs nothing
        result = segmenter(frame)
        took_ms.append(result.timings_ms["network"])
        largest = result.classes[int(result.class_pixels().argmax())]
        print(f"frame {number}: mostly {largest}, {took_ms[-1]:.1f} ms")
    print(f"median {np.median(took_ms):.1f} ms of {len(took_ms)} frames")
    return 0


if __name__ == "__main__":
    sys.exit(reported(main))
