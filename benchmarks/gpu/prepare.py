"""Bundles and eager references: `python -m pcaseg.benchmarks.gpu.prepare --out DIR`; needs PyTorch.

Exports each model in float32 and float16 as logits and as sliding-window labels of 640 x 640 frames, in opset 17 with
decomposed LayerNorm, which TensorRT 8.5 reads, and as logits with plugin nodes; then stores what the eager float32
model makes of the inputs of all points.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from pcaseg.benchmarks.gpu import steps
from pcaseg.benchmarks.gpu.references import FRAME_PX
from pcaseg.benchmarks.gpu.steps import MeasuringStep, module

KINDS: dict[str, tuple[str, ...]] = {
    "logits": ("--graph=logits", "--opset=17", "--layer-norm=decomposed"),
    "labels": (
        *("--graph=labels", "--strategy=sliding", f"--image-size={FRAME_PX}x{FRAME_PX}"),
        *("--opset=17", "--layer-norm=decomposed"),
    ),
    "plugins": ("--graph=logits", "--opset=17", "--layer-norm=decomposed", "--plugins"),
}
"""Kinds of bundles, and the options of `pcaseg export` that make them."""

PRECISIONS = ("float32", "float16")


def model_name(model: str) -> str:
    """Name of a model's files: a preset's name, or a model file's without its ending."""
    return Path(model).name.removesuffix(".safetensors")


def bundle_path(out: Path, model: str, precision: str, kind: str) -> Path:
    """Path of a bundle."""
    return out / steps.BUNDLES / f"{model_name(model)}-{precision}-{kind}.pcaseg"


def plan(models: Sequence[str], out: Path, device: str) -> list[MeasuringStep]:
    """All steps."""
    found = []
    for model in models:
        name = model_name(model)
        for kind, words in KINDS.items():
            for precision in PRECISIONS:
                bundle = bundle_path(out, model, precision, kind)
                command = module(
                    "pcaseg", "export", model, *words, "--precision", precision, "--out", bundle, "--overwrite"
                )
                found.append(MeasuringStep(f"export-{name}-{precision}-{kind}", command))
        folder, bundle = out / steps.REFERENCES / name, bundle_path(out, model, "float32", "logits")
        command = module("pcaseg.benchmarks.gpu.references", bundle, "--out", folder, "--device", device)
        found.append(MeasuringStep(f"references-{name}", command))
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the steps."""
    parser = steps.parser("prepare", __doc__)
    parser.add_argument("--models", nargs="+", default=["eva-b-384"], help="presets or model files (eva-b-384)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda", help="of the references")
    options = parser.parse_args(arguments)
    return steps.run_script(plan(options.models, options.out, options.device), options)


if __name__ == "__main__":
    sys.exit(main())
