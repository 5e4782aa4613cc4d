"""Imports of the kernels, the record of paths, checks of inputs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pcaseg.errors import PcasegError
from pcaseg.kernels import registry
from pcaseg.kernels.aot import KERNELS


def test_triton_is_first_imported_by_a_call_of_a_kernel():
    """Importing torch may import it; the kernels add nothing to that, run on a CPU without, and say what is missing."""
    code = (
        "import sys, torch; before = 'triton' in sys.modules\n"
        + "".join(f"import pcaseg.kernels.{name}\n" for name in KERNELS)
        + "assert before or 'triton' not in sys.modules; sys.modules['triton'] = None\n"
        "from pcaseg.kernels.cost_volume import _compute, cost_volume\n"
        "given = torch.rand(1, 4, 4, 8), torch.rand(2, 1, 8), torch.rand(16, 1, 7, 7), torch.rand(16)\n"
        "cost_volume(*given); print('computed'); _compute(*given)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.stdout == "computed\n", run.stderr
    assert "MissingDependencyError: this needs the package triton" in run.stderr, run.stderr
    assert 'pip install ".[triton]"' in run.stderr


def test_triton_is_imported_by_kernels_and_their_compiler_alone():
    root = Path(__file__).parents[2]
    found = {
        str(path.relative_to(root))
        for folder in ("pcaseg", "kernels", "export", "benchmarks")
        for path in (root / folder).rglob("*.py")
        if re.search(r"^ *(import|from) triton\b", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    files = {"triton/__init__.py", "aot.py", *(f"triton/{name}.py" for name in KERNELS)}
    assert found == {f"kernels/{name}" for name in files}


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
