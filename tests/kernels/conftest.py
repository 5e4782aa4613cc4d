"""Fixtures of the kernels' tests: by Triton's interpreter on the CPU, compiled where there is a GPU."""

from __future__ import annotations

import importlib.util
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from kernel_support import DEVICE

collect_ignore_glob = [] if importlib.util.find_spec("triton") else ["test_*.py"]  # triton is for Linux alone


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks tests that run a kernel with `gpu` where there is one; the interpreter needs a NumPy that it knows."""
    for item in items:
        here = item.path.is_relative_to(Path(__file__).parent)
        if here and "dtype" in getattr(item, "fixturenames", ()):
            if DEVICE == "cuda":
                item.add_marker(pytest.mark.gpu)
            elif not interpreter_works():
                item.add_marker(pytest.mark.skip(reason="Triton before 3.8 interprets with NumPy before 2.4 alone"))


def interpreter_works() -> bool:
    """Older interpreters turn arrays of one element into numbers, which NumPy 2.4 ended."""
    triton, numpy = (tuple(map(int, version(name).split(".")[:2])) for name in ("triton", "numpy"))
    return triton >= (3, 8) or numpy < (2, 4)


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
