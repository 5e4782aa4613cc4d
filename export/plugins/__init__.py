"""The Triton kernels as TensorRT plugins: one table of launch rules, and what Python and C++ make of it."""
