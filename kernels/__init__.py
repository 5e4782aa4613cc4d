"""Triton kernels, one file each. Installed as `pcaseg.kernels`; holds none yet."""
