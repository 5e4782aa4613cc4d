"""Camera loop: frames through a stream, with a vocabulary that changes while they flow.

    python examples/camera_loop.py --frames 20 --out camera

Frames are rendered here; put your camera in `frames`. Where frames come faster than they are labelled, `--mode latest`
drops the older ones and counts them.
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
from pcaseg.runtime import Frame

VOCABULARIES = (["car", "house", "tree", "sky", "grass", "road"], ["red thing", "blue thing", "sky", "grass"])


def frames(count: int) -> Iterator[Frame]:
    """Frames (96, 96, 3) uint8 RGB, 30 a second by their timestamps."""
    for number in range(count):
        yield Frame(render_scene(number, split="evaluation").image, timestamp=number / 30)


def main() -> int:
    """Says what each frame mostly shows, and how long it was under way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, help="bundle of pcaseg export (default: tiny)")
    parser.add_argument("--frames", type=int, default=20)
    parser.add_argument("--mode", choices=("every", "latest"), default="every")
    parser.add_argument("--out", type=Path, default=Path("camera"))
    options = parser.parse_args()
    if options.frames < 1:
        raise PcasegError(f"--frames {options.frames}: give 1 or more")

    segmenter = pcaseg.Segmenter(options.bundle or tiny_bundle(options.out / "tiny.pcaseg"))
    took_ms = []
    with segmenter.stream(frames(options.frames), VOCABULARIES[0], mode=options.mode) as stream:
        for item in stream:
            if item.result is None:  # a broken frame; the next ones come all the same
                print(f"{item.timestamp:.3f} s: {item.error}")
                continue
            took_ms.append(item.latency_ms)
            largest = item.result.classes[int(item.result.class_pixels().argmax())]
            print(f"{item.timestamp:.3f} s: mostly {largest}, {took_ms[-1]:.1f} ms, {item.dropped} dropped before it")
            if len(took_ms) == options.frames // 2:
                first = stream.set_vocabulary(VOCABULARIES[1])
                print(f"from frame {first} on: {', '.join(VOCABULARIES[1])}")
    if took_ms:
        print(f"median {np.median(took_ms):.1f} ms of {len(took_ms)} frames")
    return 0


if __name__ == "__main__":
    sys.exit(reported(main))
