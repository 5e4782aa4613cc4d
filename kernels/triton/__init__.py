"""Triton kernels and their launches, one file for each of `pcaseg.kernels`; importing this package needs Triton.

Arguments of a kernel: pointers to inputs, named `..._ptr`, int32 scalars, pointers to outputs, then constexprs in
capitals, which alone are annotated. Scalars are not specialised, so that one compilation serves every shape. The
mathematics stand in the file of the same name one folder up, with the reference and the operator.
"""

from __future__ import annotations

from pcaseg.errors import MissingDependencyError, install_hint

try:
    import triton
except ImportError as error:
    raise MissingDependencyError(f"this needs the package triton; {install_hint('triton')}") from error


def interpreted() -> bool:
    """True where TRITON_INTERPRET was set before Triton was imported: kernels then run on the CPU, uncompiled."""
    return bool(triton.knobs.runtime.interpret)
