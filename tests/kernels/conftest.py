"""Where and in what the kernels are tested: by Triton's interpreter on the CPU, and compiled where there is a GPU."""

from __future__ import annotations

import pytest
import torch
from kernel_support import DEVICE


@pytest.fixture(
    params=[
        torch.float32,
        torch.float16,
        # the interpreter's bfloat16 products are wrong
        pytest.param(torch.bfloat16, marks=[pytest.mark.gpu, pytest.mark.skipif(DEVICE == "cpu", reason="no GPU")]),
    ],
    ids=["fp32", "fp16", "bf16"],
)
def dtype(request) -> torch.dtype:
    return request.param


@pytest.fixture(autouse=True)
def fresh_inputs() -> None:
    """Other numbers in every run; the seed is printed with a failure."""
    seed = torch.seed() % 2**31
    torch.manual_seed(seed)
    print(f"seed {seed}")
