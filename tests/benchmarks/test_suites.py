"""The suites of pytest-benchmark run, and can be compared with a former run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent

CODE = """
import sys
import pytest
from support import SMALL_EVA
import pcaseg.configs
pcaseg.configs._PRESETS[SMALL_EVA.name] = SMALL_EVA
sys.exit(pytest.main(sys.argv[1:]))
"""


def suite(tmp_path: Path, *words: str) -> str:
    run = subprocess.run(
        [sys.executable, "-c", CODE, *words, "--target=small-eva", "--classes=2", f"--benchmark-storage={tmp_path}"],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT / "tests"), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


@pytest.mark.slow
def test_stages_run(tmp_path):
    out = suite(tmp_path, "benchmarks/bench_stages.py")
    for stage in ("encoder", "EPL", "decoder"):
        assert f"test_stage[eager-{stage}]" in out and f"test_stage[folded-{stage}]" in out


@pytest.mark.slow
def test_images_run_and_compare(tmp_path):
    out = suite(tmp_path, "benchmarks/bench_images.py", "-k", "onnxruntime-cpu or tensorrt", "--benchmark-save=images")
    assert "test_image[onnxruntime-cpu]" in out and "1 passed, 2 skipped" in out
    out = suite(tmp_path, "benchmarks/bench_images.py", "-k", "onnxruntime-cpu", "--benchmark-compare=*images")
    assert "test_image[onnxruntime-cpu] (0001_images)" in out
