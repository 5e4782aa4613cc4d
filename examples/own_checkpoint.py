"""Own checkpoint: tensors with the published names, in a file, become a checked bundle.

    python examples/own_checkpoint.py --out own
    python examples/own_checkpoint.py --checkpoint model_final.pth --preset eva-b-384 --out own

Without `--checkpoint` one of `tiny` is written first, drawn from a seed, as a training of yours might leave it. The
bundle is held against the eager model on noise: a bundle that computes something else gives exit code 1.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch

import pcaseg
from pcaseg.errors import reported
from pcaseg.export.bundle import write_bundle
from pcaseg.files import atomic_path
from pcaseg.model.names import to_published

NAMES = ["cat", "grass", "garden wall"]
LARGEST_ERROR = 1e-4


def write_own(path: Path, preset: str) -> Path:
    """A checkpoint in PyTorch's form, seeded."""
    model = pcaseg.load_model(preset, {}, seed=7)
    with atomic_path(path) as temporary:
        torch.save({"model": to_published(model.state_dict(), model.preset)}, temporary)
    return path


def main() -> int:
    """From checkpoint to bundle, and how far its logits are from the eager model's."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, help=".pth, .pt or .safetensors (default: a seeded one)")
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--out", type=Path, default=Path("own"))
    options = parser.parse_args()

    checkpoint = options.checkpoint or write_own(options.out / "model_final.pth", options.preset)
    model = pcaseg.load_model(options.preset, checkpoint)
    bundle = options.out / "own.pcaseg"
    write_bundle(model, bundle, overwrite=True)
    print(f"{bundle}: from {checkpoint}")

    segmenter = pcaseg.Segmenter(bundle)
    side = model.preset.image_px
    image = np.random.default_rng(0).uniform(0, 255, (1, 3, side, side)).astype(np.float32)
    segmenter.set_vocabulary(NAMES)
    assert segmenter.vocabulary is not None  # it was set above
    logits = segmenter.backend.logits(image, segmenter.vocabulary.embeddings)
    with torch.no_grad():
        eager = model(torch.from_numpy(image), model.encode_text(NAMES)).numpy()
    error = float(np.abs(logits - eager).max() / np.abs(eager).max())
    print(f"largest error over the largest logit: {error:.1e}")
    return 0 if error < LARGEST_ERROR else 1


if __name__ == "__main__":
    sys.exit(reported(main))
