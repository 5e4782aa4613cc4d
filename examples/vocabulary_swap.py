"""Vocabulary swap: one image, several lists of names, no new export; one list is kept as a file for a robot.

    python examples/vocabulary_swap.py --out swap

A robot that loads the vocabulary file never loads the text encoder.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tiny_bundle import tiny_bundle

import pcaseg
from pcaseg.data.scenes import SHOWN_PX, render_scene
from pcaseg.errors import reported

LISTS = {
    "objects": ["car", "house", "tree", "boat", "ball", "mug", "sky", "grass", "water", "road", "sand"],
    "colours": ["red thing", "blue thing", "green thing", "white thing", "sky", "grass", "water", "road", "sand"],
    "parts": ["car wheel", "car window", "house roof", "house door", "mug handle", "sky", "grass", "road"],
}


def main() -> int:
    """Writes one overlay for each list, and the last list as a vocabulary file, which is used once more."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, help="bundle of pcaseg export (default: tiny)")
    parser.add_argument("--out", type=Path, default=Path("swap"))
    options = parser.parse_args()

    bundle = options.bundle or tiny_bundle(options.out / "tiny.pcaseg")
    segmenter = pcaseg.Segmenter(bundle)
    image = render_scene(3, split="evaluation", side=SHOWN_PX).image
    for title, names in LISTS.items():
        segmenter.set_vocabulary(names)
        result = segmenter(image)
        paths = result.save(options.out, title)
        print(f"{title}: {sum(count > 0 for count in result.class_pixels())} of {len(names)} names, {paths['overlay']}")

    vocabulary = segmenter.vocabulary
    assert vocabulary is not None  # it was set above
    kept = options.out / "parts.safetensors"
    vocabulary.save(kept)
    robot = pcaseg.Segmenter(bundle)
    robot.set_vocabulary(str(kept))
    same = bool((robot(image).labels == result.labels).all())
    print(f"{kept}: {'the same labels' if same else 'other labels'}")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(reported(main))
