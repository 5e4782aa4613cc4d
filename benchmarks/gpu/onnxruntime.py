"""ONNX Runtime on the GPU beside eager: `python -m pcaseg.benchmarks.gpu.onnxruntime --out DIR`."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence

from pcaseg.benchmarks.gpu import steps
from pcaseg.benchmarks.gpu.kernels import bench_steps


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the steps."""
    parser = steps.parser("onnxruntime", __doc__)
    parser.add_argument("--models", nargs="+", default=["eva-b-384"], help="as in the prepare step")
    parser.add_argument("--python", type=shlex.split, default=list(steps.PYTHON), help="one with onnxruntime-gpu")
    options = parser.parse_args(arguments)
    backends = ("eager", "onnxruntime-cuda")
    planned = bench_steps("onnxruntime", options.models, options.out, backends, python=options.python)
    return steps.run_script(planned, options)


if __name__ == "__main__":
    sys.exit(main())
