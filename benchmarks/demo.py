"""`make demo`: the whole thread on one machine, from a checkpoint to a checked bundle and a picture.

No trained PCA-Seg weights were published, so the checkpoint is drawn from a seed and written in the published
detectron2 form first. Every other step is a command that a user would type.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

PRESET = "eva-b-384"
CLASSES = "cat, floor, wall, cup, spoon, person, rocket"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the demo; returns the exit code of the first command that fails, or 0."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("demo"))
    parser.add_argument("--preset", default=PRESET)
    options = parser.parse_args(arguments)
    out, preset = options.out, options.preset
    start = time.perf_counter()
    out.mkdir(parents=True, exist_ok=True)
    checkpoint, model, bundle, photo = (out / n for n in ("seeded.pth", "model.safetensors", "demo.pcaseg", "cat.png"))
    write_checkpoint(preset, checkpoint)
    write_photograph(photo)
    commands = [
        ["import", checkpoint, "--preset", preset, "--out", model],
        ["export", model, "--out", bundle, "--overwrite"],
        ["segment", photo, "--bundle", bundle, "--classes", CLASSES, "--out", out / "segmented"],
        ["check", bundle, "--json", out / "check.json"],
    ]
    for command in commands:
        words = [str(word) for word in command]
        print(f"\n$ pcaseg {shlex.join(words)}", flush=True)
        code = subprocess.run([sys.executable, "-m", "pcaseg.cli", *words]).returncode
        if code:
            return code
    print("\nThe weights of this demo are drawn from a seed: its labels mean nothing, its agreement and speed do.")
    print(f"Overlay: {(out / 'segmented' / 'cat_overlay.png').resolve()}")
    print(f"{time.perf_counter() - start:.0f} s")
    return 0


def write_checkpoint(preset: str, path: Path) -> None:
    """A seeded checkpoint with the published names, as detectron2 writes them."""
    import torch

    from pcaseg.model.checkpoint import load_model
    from pcaseg.model.names import SEED_ENTRY, to_published

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = load_model(preset)
    tensors = to_published(model.state_dict(), model.preset) | {SEED_ENTRY: torch.tensor(model.source.seed)}
    torch.save({"model": tensors, "iteration": 0}, path)
    print(f"{path}: seeded weights in the published form (no trained PCA-Seg weights were published)")


def write_photograph(path: Path) -> None:
    """A real photograph that scikit-image ships: a cat."""
    from PIL import Image

    from pcaseg.benchmarks.check import photographs

    Image.fromarray(photographs()["chelsea"]).save(path)


if __name__ == "__main__":
    sys.exit(main())
