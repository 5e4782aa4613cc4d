"""Choice of the tuning point for this GPU: `python -m pcaseg.benchmarks.studies.tune_kernels`; needs one.

Measures every named point of every kernel at the shapes of `eva-b-384` with 150 classes, and writes the fastest into
the user's tuning file, from where all later processes take it. Nothing is tuned at any other time.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

import torch

from pcaseg.arguments import Parser, up_to
from pcaseg.benchmarks.bench_kernels import CASES, CUDA, DEVICE, DTYPE, KernelCase, seconds
from pcaseg.errors import reported
from pcaseg.kernels.registry import DTYPES, architecture
from pcaseg.kernels.tuning import choose, forced, tuning_points, user_file


def measure_points(
    kernel: str, case: KernelCase, measure: Callable[[Callable[[], object]], float] = seconds
) -> dict[str, float]:
    """Seconds of a call at each of a kernel's points; those that the device has no room for are left out."""
    found = {}
    for name, point in tuning_points(kernel).items():
        with forced(kernel, point), torch.no_grad():
            try:
                found[name] = measure(lambda: case.kernel(*case.arguments))
            except Exception as error:
                if type(error).__name__ != "OutOfResources":
                    raise
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and writes; 2 where there is no GPU."""
    parser = Parser(prog="python -m pcaseg.benchmarks.studies.tune_kernels", description=__doc__)
    parser.add_argument("--images", type=up_to(64), default=1, help="B (default: %(default)s)")
    parser.add_argument("--classes", type=up_to(847), default=150, help="T (default: %(default)s)")
    options = parser.parse_args(arguments)
    if not CUDA:
        print("pcaseg: no CUDA device to tune for", file=sys.stderr)
        return 2
    arch = architecture(torch.empty(0, device=DEVICE))
    dtype = next(name for name, value in DTYPES.items() if value == DTYPE)
    for kernel, make in CASES.items():
        times = measure_points(kernel, make(options.images, options.classes))
        best = min(times, key=times.__getitem__)
        choose(kernel, arch, dtype, best)
        print(f"{kernel}: {best}; " + ", ".join(f"{name} {1e3 * time_s:.3f} ms" for name, time_s in times.items()))
    print(user_file())
    return 0


if __name__ == "__main__":
    sys.exit(reported(main))
