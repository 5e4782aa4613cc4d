"""Ahead-of-time compilation: `python -m pcaseg.kernels compile --arch sm_80,sm_90 --out DIR`; see `aot.py`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from pcaseg.arguments import Parser
from pcaseg.errors import reported
from pcaseg.kernels.aot import ARCHITECTURES, KERNELS, compile_all
from pcaseg.kernels.registry import DTYPES


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; 0 done, 2 input that cannot be used."""
    parser = Parser(prog="python -m pcaseg.kernels", description="Triton kernels of pcaseg.")
    command = parser.add_subparsers(required=True).add_parser(
        "compile", help="write PTX, machine code and a manifest; needs Triton, no GPU"
    )
    command.add_argument("--arch", default=",".join(ARCHITECTURES), help="comma-separated (default: %(default)s)")
    command.add_argument("--kernels", default=",".join(KERNELS), help="comma-separated (default: %(default)s)")
    command.add_argument("--dtypes", default=",".join(DTYPES), help="comma-separated (default: %(default)s)")
    command.add_argument("--out", required=True, help="folder")
    options = parser.parse_args(arguments)
    archs, kernels, dtypes = (names.split(",") for names in (options.arch, options.kernels, options.dtypes))
    entries = compile_all(archs, options.out, kernels, dtypes=dtypes)
    alone = sorted({entry.arch for entry in entries if entry.cubin is None})
    print(f"{options.out}: {len(entries)} kernels" + (f"; PTX alone for {', '.join(alone)}" if alone else ""))
    return 0


if __name__ == "__main__":
    sys.exit(reported(main))
