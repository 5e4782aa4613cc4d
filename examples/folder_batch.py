"""Batch over a folder: every image segmented, a run that was cut off gone on with, and a table of what was found.

    python examples/folder_batch.py --out batch
    python examples/folder_batch.py photos --bundle scene.pcaseg --vocabulary voc_20 --out batch

Started again, it skips what is done. An image that cannot be read is named and does not stop the run.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from PIL import Image
from tiny_bundle import tiny_bundle

import pcaseg
from pcaseg.data.scenes import SHOWN_PX, render_scene
from pcaseg.errors import reported
from pcaseg.files import atomic_path
from pcaseg.runtime.batch import expand_images, segment_files

NAMES = ["car", "house", "tree", "boat", "ball", "mug", "sky", "grass", "water", "road", "sand"]
SCENES = 4


def rendered(folder: Path) -> Path:
    """A folder of scenes that `tiny` knows."""
    for number in range(SCENES):
        scene = render_scene(number, split="evaluation", side=SHOWN_PX)
        with atomic_path(folder / f"scene_{number}.png") as temporary:
            Image.fromarray(scene.image).save(temporary, format="PNG")
    return folder


def main() -> int:
    """Segments a folder, and prints the share of each class over all of its images."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, help="folder of images (default: rendered scenes)")
    parser.add_argument("--bundle", type=Path, help="bundle of pcaseg export (default: tiny)")
    parser.add_argument("--vocabulary", help="class list or file (default: objects and backgrounds of the scenes)")
    parser.add_argument("--out", type=Path, default=Path("batch"))
    options = parser.parse_args()

    segmenter = pcaseg.Segmenter(options.bundle or tiny_bundle(options.out / "tiny.pcaseg"))
    segmenter.set_vocabulary(options.vocabulary or NAMES)
    images = expand_images([options.folder or rendered(options.out / "images")])
    labelled = options.out / "labelled"
    batch = segment_files(segmenter, images, labelled, progress=True)

    pixels: dict[str, int] = {}
    for summary in sorted(labelled.glob("*.json")):
        for entry in json.loads(summary.read_text(encoding="utf-8"))["classes"]:
            pixels[entry["name"]] = pixels.get(entry["name"], 0) + entry["pixels"]
    for name, count in sorted(pixels.items(), key=lambda item: -item[1]):
        if count:
            print(f"{count / sum(pixels.values()):6.1%}  {name}")
    print(f"{len(batch.done)} segmented, {len(batch.skipped)} done before, {len(batch.failed)} could not be read")
    for _, message in batch.failed:
        print(message, file=sys.stderr)
    return 1 if batch.failed else 0


if __name__ == "__main__":
    sys.exit(reported(main))
