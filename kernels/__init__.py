"""Operators with Triton kernels: `NAME.py` has mathematics, reference and operator, `triton/NAME.py` the kernel."""
