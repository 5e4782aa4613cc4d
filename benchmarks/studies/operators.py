"""Time of the folded aggregator by operator: `python -m pcaseg.benchmarks.studies.operators --out rows.json`.

Profiles one call per vocabulary size and backend, after one that warms up, and sums the time of each operator.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from torch.profiler import ProfilerActivity, profile

from pcaseg.arguments import CORES, Parser, rows_file, up_to
from pcaseg.benchmarks.flops import folded_macs
from pcaseg.benchmarks.studies.folding import CLASS_COUNTS, FoldingBackends
from pcaseg.environment import write_rows
from pcaseg.errors import reported


@dataclass(frozen=True)
class OperatorRow:
    """One call.

    Attributes:
        gmac: 10^9 multiply-adds of the call.
        seconds: by operator, its own time.
    """

    backend: str
    classes: int
    gmac: float
    seconds: dict[str, float]


@torch.no_grad()
def profile_folded(backends: FoldingBackends, T: int) -> dict[str, float]:
    """Seconds by operator of the folded model in PyTorch."""
    call = backends.calls("aggregator", T)["folded"]
    call()
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        call()
    return {event.key: event.self_cpu_time_total / 1e6 for event in profiler.key_averages()}


def profile_graph(backends: FoldingBackends, T: int) -> dict[str, float]:
    """Seconds by operator of the folded graph in ONNX Runtime."""
    return operator_seconds(backends.session("aggregator", profile=True), backends.feeds("aggregator", T))


def operator_seconds(session: onnxruntime.InferenceSession, feeds: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Seconds by operator of the second of two calls of a session that was opened to be profiled; ends its profile."""
    for _ in range(2):
        session.run(None, feeds)
    events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    runs = [event for event in events if event["name"] == "model_run"]
    totals: Counter[str] = Counter()
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time") and event["ts"] >= runs[-1]["ts"]:
            totals[event["args"]["op_name"]] += event["dur"] / 1e6
    return dict(totals)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and writes the rows."""
    parser = Parser(prog="python -m pcaseg.benchmarks.studies.operators", description=__doc__)
    parser.add_argument("--out", type=rows_file, required=True, help="JSON file to write")
    parser.add_argument("--preset", default="eva-b-384")
    parser.add_argument("--threads", type=up_to(CORES), default=2)
    options = parser.parse_args(arguments)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        backends = FoldingBackends(options.preset, Path(folder), threads=options.threads)
        for T in CLASS_COUNTS["aggregator"]:
            gmac = folded_macs(backends.preset, T) / 1e9
            rows.append(OperatorRow("folded", T, gmac, profile_folded(backends, T)))
            rows.append(OperatorRow("onnxruntime", T, gmac, profile_graph(backends, T)))
    write_rows(options.out, rows, preset=options.preset, weights="seeded", threads=options.threads)
    return 0


if __name__ == "__main__":
    sys.exit(reported(main))
