"""`make demo`: the whole thread on one machine, from weights to a checked bundle and pictures.

The weights are those that the package has for `tiny`, which is for rendered scenes. Every step is a command that a user
would type.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

from pcaseg.arguments import Parser
from pcaseg.benchmarks.footage import TOPIC, picture_of_clip, picture_of_recording, write_clip, write_recording
from pcaseg.data.scene_names import BACKGROUNDS, OBJECTS, PART_NAMES
from pcaseg.errors import reported
from pcaseg.paths import exists, real_path

PRESET = "tiny"
SCENES = 6
FEW = ("--classes", ", ".join((*OBJECTS, *BACKGROUNDS)))


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the demo; returns the exit code of the first command that fails, or 0."""
    parser = Parser(prog="make demo", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("demo"))
    out = parser.parse_args(arguments).out
    start = time.perf_counter()
    scenes, bundle = out / "scenes", out / "tiny.pcaseg"
    drive, clip = out / "drive", out / "clip.mp4"
    labels, seen = out / "drive_labels.mcap", out / "clip_seen.mp4"
    _make_footage(drive, clip, (labels, seen, seen.with_suffix(".labels.mkv"), seen.with_suffix(".json")))
    pairs = ["--vocabulary", scenes / "classes.txt"]
    commands = [
        *([] if exists(scenes) else [["datasets", "scenes", "--out", scenes, "--images", SCENES]]),
        ["segment", scenes / "images", *pairs, "--out", out / "eager"],
        ["export", PRESET, "--out", bundle, "--overwrite"],
        ["segment", scenes / "images", "--bundle", bundle, *pairs, "--out", out / "pairs"],
        [
            "segment",
            scenes / "images",
            "--bundle",
            bundle,
            "--classes",
            ", ".join((*PART_NAMES, *BACKGROUNDS)),
            "--out",
            out / "parts",
        ],
        ["segment", drive, "--topic", TOPIC, "--bundle", bundle, *FEW, "--out", labels],
        ["segment", clip, "--bundle", bundle, *FEW, "--out", seen],
        ["check", bundle, "--images", scenes / "images", "--classes", "20,5,1", "--json", out / "check.json"],
    ]
    for command in commands:
        words = [str(word) for word in command]
        print(f"\n$ pcaseg {shlex.join(words)}", flush=True)
        code = subprocess.run([sys.executable, "-m", "pcaseg", *words]).returncode
        if code:
            return code
    picture_of_recording(drive, labels, out / "drive.png")
    picture_of_clip(seen, out / "clip.png")
    for folder, shown in (("pairs", "colours and objects"), ("parts", "parts")):
        print(f"\n{shown}: {real_path(out / folder / '0000_overlay.png')}", end="")
    for picture, shown in (("drive.png", "a recording"), ("clip.png", "a clip")):
        print(f"\n{shown}: {real_path(out / picture)}", end="")
    print(f"\n{time.perf_counter() - start:.0f} s")
    return 0


def _make_footage(drive: Path, clip: Path, results: Sequence[Path]) -> None:
    """The recording and the clip, anew, and nothing of what an earlier demo made of them."""
    drive.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(drive, ignore_errors=True)
    for path in (clip, *results):
        path.unlink(missing_ok=True)
    write_recording(drive)
    write_clip(clip)


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

    from pcaseg.evaluation.agreement import photographs

    Image.fromarray(photographs()["chelsea"]).save(path)


if __name__ == "__main__":
    sys.exit(reported(main))
