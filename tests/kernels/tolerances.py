"""How far a kernel may be from its float64 reference: of the largest absolute value of that reference."""

from __future__ import annotations

import torch

RELATIVE = {
    torch.float32: 1e-5,  # sums of some thousand products, in another order
    torch.float16: 2e-3,  # 11 bits; weights, inputs of products and the result are rounded
    torch.bfloat16: 1e-2,  # 8 bits
    torch.float64: 1e-9,  # a reference against the model
}
