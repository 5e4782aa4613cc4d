"""Markdown tables of how fast whole images are, from the stored rows of `pcaseg bench`."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

from pcaseg.benchmarks.rows import BenchRow, read_rows
from pcaseg.paths import entries
from pcaseg.text_tables import markdown_table

HEADERS = (
    *("backend", "classes", "engine ms", "end to end ms", "x eager", "interval"),
    *("same label", "relative error", "cold start s", "peak MiB"),
)


def bench_rows(results: Path) -> list[BenchRow]:
    """All stored rows of `pcaseg bench`."""
    return read_rows(entries(results, "bench_*.jsonl"))


def bench_table(results: Path) -> str:
    """Every run by backend and vocabulary, each under a line that says what it was measured on."""
    return "\n\n".join(_run_table(rows) for rows in _runs(results))


def summary_table(results: Path) -> str:
    """The run with cold starts alone: the same vocabulary for every backend."""
    return next(_run_table(rows) for rows in _runs(results) if any(row.cold for row in rows))


def _runs(results: Path) -> list[list[BenchRow]]:
    groups = itertools.groupby(bench_rows(results), key=lambda row: (row.run, row.preset))
    return [[row for row in group if row.engine and row.end_to_end and row.accuracy] for _, group in groups]


def _run_table(rows: Sequence[BenchRow]) -> str:
    first = rows[0]
    setting = (
        f"{first.preset}, {first.point.strategy}, images of {first.point.width} x {first.point.height} pixels, "
        f"{first.weights} weights, {first.point.threads} threads of {first.environment['cpu']}, "
        f"PyTorch {first.environment['torch']}, ONNX Runtime {first.environment['onnxruntime']}:"
    )
    return f"{setting}\n\n{markdown_table(HEADERS, [_cells(row) for row in rows], align='lr')}"


def _cells(row: BenchRow) -> list[str]:
    assert row.engine and row.end_to_end and row.accuracy  # by the caller's choice
    ratio = row.engine.ratio
    noisy = " (noisy)" if row.noise else ""
    return [
        row.backend if row.precision == "float32" else f"{row.backend}, {row.precision}",
        str(row.point.classes),
        f"{row.engine.latency.p50_ms:.0f}",
        f"{row.end_to_end.latency.p50_ms:.0f}",
        f"{ratio.value:.1f}{noisy}" if ratio else "",
        f"{ratio.low:.1f} to {ratio.high:.1f}" if ratio else "",
        f"{row.accuracy.label_agreement:.3%}",
        f"{row.accuracy.relative_error:.1e}",
        f"{row.cold.total_s:.1f}" if row.cold else "",
        f"{row.cold.peak_host_mib:.0f}" if row.cold else "",
    ]
