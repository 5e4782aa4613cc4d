"""Helpers of the kernels' tests."""

from __future__ import annotations

import pytest
import torch
from tolerances import RELATIVE
from torch import Tensor

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def random(*shape: int, dtype: torch.dtype, scale: float = 1.0) -> Tensor:
    """Normal numbers on the test device, rounded to dtype."""
    return (scale * torch.randn(*shape, device=DEVICE)).to(dtype)


def poisoned(*shape: int, dtype: torch.dtype) -> Tensor:
    """An output buffer full of NaN: what a kernel does not write shows."""
    return torch.full(shape, float("nan"), dtype=dtype, device=DEVICE)


def assert_close(values: Tensor, reference: Tensor) -> None:
    """values against the reference in float64, within the tolerance of values' dtype."""
    assert values.shape == reference.shape and reference.dtype == torch.float64
    error = (values.double() - reference).abs().max() / reference.abs().max().clamp_min(1e-30)
    assert error <= RELATIVE[values.dtype], f"relative error {error:.2e}"


def last_program_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the interpreter run only the last program of each grid, so that tensors may be larger than patience."""
    from triton.runtime.interpreter import InterpretedFunction, interpreter_builder

    launch = InterpretedFunction.__getitem__

    def launch_last(kernel: InterpretedFunction, grid: tuple[int, ...]):
        last = (*(length - 1 for length in grid), 0, 0)[:3]
        monkeypatch.setattr(
            interpreter_builder, "set_grid_idx", lambda *_: setattr(interpreter_builder, "grid_idx", last)
        )
        return launch(kernel, (1, 1, 1))

    monkeypatch.setattr(InterpretedFunction, "__getitem__", launch_last)
