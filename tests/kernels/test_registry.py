"""What the kernels share: imports, the record of paths, checks."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from pcaseg.errors import PcasegError
from pcaseg.kernels import registry
from pcaseg.kernels.aot import KERNELS


def test_kernels_import_and_run_on_a_cpu_without_triton():
    code = (
        "import sys; sys.modules['triton'] = None\n"
        + "".join(f"import pcaseg.kernels.{name}\n" for name in KERNELS)
        + "import torch; from pcaseg.kernels.cost_volume import _compute, cost_volume\n"
        "given = torch.rand(1, 4, 4, 8), torch.rand(2, 1, 8), torch.rand(16, 1, 7, 7), torch.rand(16)\n"
        "cost_volume(*given); _compute(*given)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "MissingDependencyError: this needs the package triton" in run.stderr, run.stderr
    assert 'pip install ".[triton]"' in run.stderr


def test_importing_kernels_does_not_import_triton():
    """Importing torch may; the kernels add nothing to it."""
    code = (
        "import sys, torch; before = 'triton' in sys.modules\n"
        + "".join(f"import pcaseg.kernels.{name}\n" for name in KERNELS)
        + "assert before or 'triton' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_recordings_nest():
    with registry.recording() as outer:
        registry.record("a", "triton")
        with registry.recording() as inner:
            registry.record("b", "reference")
    registry.record("a", "reference")
    assert outer == [("a", "triton"), ("b", "reference")]
    assert inner == [("b", "reference")]
    assert registry.last_path("a") == "reference"
    assert registry.last_path("never ran") is None


def test_dtypes_and_architectures():
    assert registry.dtype_name(torch.zeros(1, dtype=torch.bfloat16)) == "bf16"
    assert registry.architecture(torch.zeros(1)) == "default"
    with pytest.raises(PcasegError, match="torch.int32: the kernels take float32"):
        registry.dtype_name(torch.zeros(1, dtype=torch.int32))
