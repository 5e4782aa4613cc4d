"""Triton kernels, one file each: PyTorch reference, kernel, operator. Installed as `pcaseg.kernels`."""
