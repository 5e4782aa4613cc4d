"""Kernels on a GPU, and the ways PyTorch runs the model: `python -m pcaseg.benchmarks.gpu.kernels --out DIR`.

Run it in a source checkout, which has the tests: the kernels' tests, their benchmark and its roofline, the choice of
tuning points, the plugins' PTX launched through the driver, then `pcaseg bench` of the prepared bundles.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from pcaseg.benchmarks.gpu import steps
from pcaseg.benchmarks.gpu.prepare import PRECISIONS, bundle_path, model_name
from pcaseg.benchmarks.gpu.references import FRAME_PX
from pcaseg.benchmarks.gpu.steps import MeasuringStep, module

BACKENDS = ("eager", "eager-autocast", "eager-compiled", "folded", "folded-triton")


def bench_steps(
    name: str, models: Sequence[str], out: Path, backends: Sequence[str], *, python: Sequence[str] = steps.PYTHON
) -> list[MeasuringStep]:
    """`pcaseg bench` of each model, at one strategy and precision a step."""
    found = []
    for model in models:
        for precision in PRECISIONS:
            for strategy in ("single", "sliding"):
                step = f"{name}-{model_name(model)}-{precision}-{strategy}"
                command = module(
                    *("pcaseg", "bench", bundle_path(out, model, precision, "logits"), "--device=cuda"),
                    *("--strategy", strategy, "--precision", precision, "--classes=20,150", "--seconds=20"),
                    *(f"--image-size={FRAME_PX}x{FRAME_PX}", "--backends", ",".join(backends), "--no-cold"),
                    *("--out", out / steps.ROWS / f"{step}.jsonl"),
                    python=python,
                )
                found.append(MeasuringStep(step, command))
    return found


def plan(models: Sequence[str], out: Path) -> list[MeasuringStep]:
    """All steps."""
    measured = out / steps.ROWS / "kernels.json"
    bench = module("pytest", "benchmarks/bench_kernels.py", "-q", "--benchmark-json", measured)
    return [
        MeasuringStep("kernel-tests", module("pytest", "-m", "gpu", "tests/kernels", "-q")),
        MeasuringStep("bench-kernels", bench),
        MeasuringStep("roofline", module("pcaseg.benchmarks.studies.roofline", measured)),
        MeasuringStep("tune-kernels", module("pcaseg.benchmarks.studies.tune_kernels")),
        MeasuringStep(
            "aot-launch", module("pcaseg.benchmarks.gpu.aot_launch", "--rows", out / steps.ROWS / "aot_launch.json")
        ),
        *bench_steps("bench", models, out, BACKENDS),
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the steps."""
    parser = steps.parser("kernels", __doc__)
    parser.add_argument("--models", nargs="+", default=["eva-b-384"], help="as in the prepare step")
    options = parser.parse_args(arguments)
    return steps.run_script(plan(options.models, options.out), options)


if __name__ == "__main__":
    sys.exit(main())
