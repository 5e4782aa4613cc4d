"""A bundle of the trained preset `tiny`, which the other programs run where they are given none.

python examples/tiny_bundle.py --out tiny.pcaseg
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pcaseg
from pcaseg.errors import reported


def tiny_bundle(path: Path) -> Path:
    """Exports `tiny`, unless a bundle stands there already; returns its path. PyTorch is imported to export alone."""
    if not path.exists():
        from pcaseg.export.bundle import write_bundle

        write_bundle(pcaseg.load_model("tiny"), path)
    return path


def main() -> int:
    """Exports to `--out`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("tiny.pcaseg"))
    print(tiny_bundle(parser.parse_args().out))
    return 0


if __name__ == "__main__":
    sys.exit(reported(main))
