"""The kernels' benchmarks run without a GPU, and their tables say what the rows say."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pcaseg.benchmarks.bench_kernels import CASES, CUDA
from pcaseg.benchmarks.studies.roofline import floors, roofline_table
from pcaseg.benchmarks.studies.tune_kernels import measure_points
from pcaseg.kernels.tuning import tuning_point, tuning_points

ROOT = Path(__file__).parents[2]


@pytest.mark.long
@pytest.mark.skipif(CUDA, reason="takes minutes there and is run by hand")
def test_suite_runs_on_a_cpu(tmp_path):
    out = tmp_path / "rows.json"
    command = [sys.executable, "-m", "pytest", "-q", str(ROOT / "benchmarks/bench_kernels.py"), "--benchmark-json", out]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout
    report = json.loads(out.read_text())
    rows = [row["extra_info"] for row in report["benchmarks"]]
    assert {row["kernel"] for row in rows} == set(CASES)
    assert all(row["copy_bytes_per_s"] > 1e8 and row["operations"] > 0 and row["bytes"] > 0 for row in rows)
    assert len(roofline_table(report).splitlines()) == 2 + len(rows)


def test_roofline():
    """A kernel that takes twice the time of its copies and four times that of its products."""
    row = {"kernel": "k", "B": 1, "T": 2, "dtype": "bfloat16", "path": "kernel", "launches": 10}
    row |= {"bytes": 10**9, "copy_bytes_per_s": 10**12, "operations": 10**9, "matmul_operations_per_s": 2 * 10**12}
    assert floors(row) == pytest.approx((1e-3, 0.5e-3))
    rows = [
        {"extra_info": row | {"path": path}, "stats": {"median": median}}
        for path, median in (("reference", 0.1), ("kernel", 0.02))
    ]
    table = roofline_table({"benchmarks": rows}).splitlines()
    assert table[3] == "| k | 1 | 2 | bfloat16 | kernel | 2.000 | 5.0 | 1.000 | 50% | 25% |"


def test_every_point_is_measured():
    seen = []

    def measure(call) -> float:
        seen.append(tuning_point("cost_volume", "sm_90", "bf16").name)
        call()
        return float(len(seen))

    case = CASES["cost_volume"](1, 2)
    assert measure_points("cost_volume", case, measure) == {"narrow": 1, "medium": 2, "wide": 3}
    assert seen == list(tuning_points("cost_volume"))
