"""Keeps what was measured: `python -m pcaseg.benchmarks.gpu.collect --out DIR --results benchmarks/results`.

Adds the rows to the results, and writes a table of the targets against them. A target that no row speaks of, or only
rows of another GPU, is "not measured".
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pcaseg.arguments import Parser, some_path
from pcaseg.benchmarks.gpu import steps
from pcaseg.benchmarks.gpu.references import FRAME_PX
from pcaseg.benchmarks.rows import BenchRow, append_rows, read_rows
from pcaseg.configs import Strategy
from pcaseg.errors import PcasegError, reported
from pcaseg.files import atomic_path
from pcaseg.paths import entries, exists

PRESET, GPU = "eva-b-384", "H200"
"""Preset and GPU of the targets."""

Verdict = Literal["met", "missed", "not measured"]


@dataclass(frozen=True)
class TargetOutcome:
    """A target and what was measured.

    Attributes:
        target: in words.
        measured: in words; empty where nothing was.
        on: the GPU.
    """

    target: str
    verdict: Verdict
    measured: str = ""
    on: str = ""


def outcomes(rows: Sequence[BenchRow]) -> list[TargetOutcome]:
    """All targets against the rows."""
    rows = [row for row in rows if row.preset == PRESET]
    return [
        _faster(rows, "eager-autocast", 12),
        _faster(rows, "eager-compiled", 3),
        _image(rows, 25),
        _single(rows, 4),
        _agreement(rows, "float16", 0.999),
        _agreement(rows, "float32", 0.9999),
    ]


def _engines(rows: Sequence[BenchRow], classes: int, strategy: Strategy) -> list[BenchRow]:
    """Rows of float16 engines at one image a call that ran and are right."""
    right = [row for row in rows if row.backend == "tensorrt" and row.status == "ok" and row.precision == "float16"]
    return [row for row in right if _at(row, classes, strategy)]


def _at(row: BenchRow, classes: int, strategy: Strategy) -> bool:
    point = row.point
    return (point.classes, point.strategy, point.images, point.streams) == (classes, strategy, 1, 1)


def _gpu(row: BenchRow) -> str:
    return row.environment.get("gpu", "")


def _judged(target: str, value: tuple[str, bool, str] | None) -> TargetOutcome:
    """The outcome from what was measured in words, whether it suffices, and on which GPU."""
    if value is None:
        return TargetOutcome(target, "not measured")
    measured, enough, gpu = value
    if GPU not in gpu:
        return TargetOutcome(target, "not measured", f"{measured} on another GPU", gpu)
    return TargetOutcome(target, "met" if enough else "missed", measured, gpu)


def _faster(rows: Sequence[BenchRow], backend: str, least: float) -> TargetOutcome:
    """Speed of the five windows as a multiple of another way's on the same GPU: medians of the engine."""
    target = f"five windows of 150 classes in float16: {least:g} x {backend}"
    others = [row for row in rows if row.backend == backend and _at(row, 150, "sliding")]
    ours, theirs = _fastest(_engines(rows, 150, "sliding")), _fastest(others)
    found = [(GPU in gpu, theirs[gpu] / ms, gpu) for gpu, ms in ours.items() if gpu in theirs]
    if not found:
        return _judged(target, None)
    _, ratio, gpu = max(found)
    return _judged(target, (f"{ratio:.2f} x", ratio >= least, gpu))


def _fastest(rows: Sequence[BenchRow]) -> dict[str, float]:
    """The least median of the engine, in ms, on each GPU."""
    times = [(_gpu(row), row.engine.latency.p50_ms) for row in rows if row.engine]
    return {gpu: min(ms for name, ms in times if name == gpu) for gpu, _ in times}


def _image(rows: Sequence[BenchRow], most_ms: float) -> TargetOutcome:
    target = f"a {FRAME_PX} x {FRAME_PX} image by sliding windows, 150 classes in float16: {most_ms:g} ms end to end"
    sized = [
        row for row in _engines(rows, 150, "sliding") if (row.point.height, row.point.width) == (FRAME_PX, FRAME_PX)
    ]
    times = [(GPU not in _gpu(row), row.end_to_end.latency.p50_ms, _gpu(row)) for row in sized if row.end_to_end]
    return _within(target, times, most_ms)


def _single(rows: Sequence[BenchRow], most_ms: float) -> TargetOutcome:
    target = f"one window of 20 classes in float16: {most_ms:g} ms of the engine"
    found = _engines(rows, 20, "single")
    times = [(GPU not in _gpu(row), row.engine.latency.p50_ms, _gpu(row)) for row in found if row.engine]
    return _within(target, times, most_ms)


def _within(target: str, times: Sequence[tuple[bool, float, str]], most_ms: float) -> TargetOutcome:
    """The fastest of the rows that are right, on the target's GPU if there is one."""
    if not times:
        return _judged(target, None)
    _, ms, gpu = min(times)
    return _judged(target, (f"{ms:.2f} ms", ms <= most_ms, gpu))


def _agreement(rows: Sequence[BenchRow], precision: str, least: float) -> TargetOutcome:
    """The least agreement of any point, right or not, on whatever GPU."""
    target = f"labels of {precision} engines as eager float32's: {least:.2%} at every point"
    found = [
        (row.accuracy.label_agreement, _gpu(row))
        for row in rows
        if row.backend == "tensorrt" and row.precision == precision and row.accuracy
    ]
    if not found:
        return TargetOutcome(target, "not measured")
    lowest, gpu = min(found)
    return TargetOutcome(target, "met" if lowest >= least else "missed", f"{lowest:.3%} at {len(found)} points", gpu)


def target_table(found: Sequence[TargetOutcome], weights: str) -> str:
    """The targets as Markdown."""
    lines = [
        f"Targets of `{PRESET}` (weights: {weights}) on an {GPU}, agreement on any GPU.",
        "",
        "| target | verdict | measured | GPU |",
        "|---|---|---|---|",
        *(f"| {one.target} | {one.verdict} | {one.measured} | {one.on} |" for one in found),
    ]
    return "\n".join(lines) + "\n"


def collect(out: Path, results: Path) -> str:
    """Adds the rows of an output folder to the results, each once, and gives the table of targets.

    Raises:
        PcasegError: there are no rows, or a file of them is damaged.
    """
    files = entries(out / steps.ROWS, "*.jsonl")
    if not files:
        raise PcasegError(f"{out / steps.ROWS}: holds no rows; run the steps before, see benchmarks/gpu/README.md")
    rows = read_rows(files)
    for preset in sorted({row.preset for row in rows}):
        kept = results / f"gpu_{preset}.jsonl"
        known = read_rows([kept]) if exists(kept) else []
        append_rows(kept, [row for row in rows if row.preset == preset and row not in known])
    for name in ("kernels.json", "aot_launch.json"):
        if exists(out / steps.ROWS / name):
            with atomic_path(results / f"gpu_{name}") as temporary:
                shutil.copyfile(out / steps.ROWS / name, temporary)
    weights = ", ".join(sorted({row.weights for row in rows if row.preset == PRESET})) or "none"
    table = target_table(outcomes(rows), weights)
    with atomic_path(results / "gpu_targets.md") as temporary:
        temporary.write_text(table, encoding="utf-8")
    return table


def main(arguments: Sequence[str] | None = None) -> int:
    """Collects and prints the table."""
    parser = Parser(prog="python -m pcaseg.benchmarks.gpu.collect", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder that the steps wrote to")
    parser.add_argument("--results", type=some_path, required=True, help="folder to keep rows in")
    options = parser.parse_args(arguments)

    def work() -> int:
        print(collect(options.out, options.results), end="")
        return 0

    return reported(work)


if __name__ == "__main__":
    sys.exit(main())
