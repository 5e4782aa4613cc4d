"""TensorRT engines, built, checked and timed: `python -m pcaseg.benchmarks.gpu.engines --out DIR`.

`--python` names what runs a Python that has TensorRT, such as 3.10 for TensorRT 8.5; this script needs neither TensorRT
nor PyTorch itself. Bundles and references are those of the prepare step.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from pcaseg.arguments import some_path
from pcaseg.benchmarks.gpu import steps
from pcaseg.benchmarks.gpu.prepare import PRECISIONS, bundle_path, model_name
from pcaseg.benchmarks.gpu.steps import MeasuringStep, module


def plan(
    models: Sequence[str], out: Path, python: Sequence[str], plugins: str, library: Path | None
) -> list[MeasuringStep]:
    """For each bundle its build, and its points."""
    kinds = ("logits", "labels") if plugins == "none" else ("logits", "labels", "plugins")
    found = []
    for model in models:
        for kind in kinds:
            halves_alone = kind == "plugins" and plugins == "inside"  # float32 needs more shared memory than they get
            for precision in PRECISIONS[1:] if halves_alone else PRECISIONS:
                bundle, name = bundle_path(out, model, precision, kind), f"{model_name(model)}-{precision}-{kind}"
                own = () if library is None or kind != "plugins" else ("--plugin-library", library)
                with_plugins = ("--plugins", plugins, *own) if kind == "plugins" else ()
                found.append(
                    MeasuringStep(f"build-{name}", module("pcaseg", "build", bundle, *with_plugins, python=python))
                )
                references = out / steps.REFERENCES / model_name(model)
                words = ("--references", references, "--rows", out / steps.ROWS / f"engines-{name}.jsonl")
                points = module("pcaseg.benchmarks.gpu.points", bundle, *words, *own, python=python)
                found.append(MeasuringStep(f"points-{name}", points))
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the steps."""
    parser = steps.parser("engines", __doc__)
    parser.add_argument("--models", nargs="+", default=["eva-b-384"], help="as in the prepare step")
    parser.add_argument("--python", type=shlex.split, default=list(steps.PYTHON), help="words that run it")
    parser.add_argument("--plugins", choices=("none", "inside", "library"), default="none", help="as pcaseg build")
    parser.add_argument("--plugin-library", type=some_path, help="for --plugins library")
    options = parser.parse_args(arguments)
    if (options.plugins == "library") != (options.plugin_library is not None):
        parser.error("--plugins library and --plugin-library belong together")
    planned = plan(options.models, options.out, options.python, options.plugins, options.plugin_library)
    return steps.run_script(planned, options)


if __name__ == "__main__":
    sys.exit(main())
