"""First picture: names in, one labelled picture out.

    python examples/first_picture.py --out first
    python examples/first_picture.py --image photo.jpg --bundle scene.pcaseg --classes "cat, grass" --out first

Without `--bundle` it exports `tiny`, and without `--image` it renders a scene that `tiny` knows.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tiny_bundle import tiny_bundle

import pcaseg
from pcaseg.data.scenes import SHOWN_PX, render_scene
from pcaseg.errors import reported


def main() -> int:
    """Writes overlay, labels and summary, and prints the share of each class."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", help="image file (default: a rendered scene)")
    parser.add_argument("--bundle", type=Path, help="bundle of pcaseg export (default: tiny)")
    parser.add_argument("--classes", default="car, house, tree, boat, ball, mug, sky, grass, water, road, sand")
    parser.add_argument("--out", type=Path, default=Path("first"))
    options = parser.parse_args()

    segmenter = pcaseg.Segmenter(options.bundle or tiny_bundle(options.out / "tiny.pcaseg"))
    segmenter.set_vocabulary([name.strip() for name in options.classes.split(",")])
    result = segmenter(options.image or render_scene(3, split="evaluation", side=SHOWN_PX).image)

    pixels = result.class_pixels()
    for name, count in sorted(zip(result.classes, pixels, strict=True), key=lambda pair: -pair[1]):
        if count:
            print(f"{count / pixels.sum():6.1%}  {name}")
    print("\n".join(str(path) for path in result.save(options.out, "picture").values()))
    return 0


if __name__ == "__main__":
    sys.exit(reported(main))
