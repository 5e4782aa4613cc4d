"""Tolerances of kernels against their float64 references: of the largest absolute value of the reference."""

from __future__ import annotations

import torch

RELATIVE = {
    torch.float32: 1e-5,  # sums of some thousand products, in another order
    torch.float16: 2e-3,  # 11 bits; weights, inputs of products and the result are rounded
    torch.bfloat16: 1e-2,  # 8 bits
    torch.float64: 1e-9,  # a reference against the model
}
