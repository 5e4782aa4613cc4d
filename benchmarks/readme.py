"""Writes the README's tables and plots from the rows in `benchmarks/results/`: `python -m pcaseg.benchmarks.readme`.

Each table stands between `<!-- table: NAME -->` and `<!-- end -->`. `--check` changes nothing and fails if a table
or plot is not what its rows say.
"""

from __future__ import annotations

import argparse
import itertools
import json
import re
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pcaseg.benchmarks.charts import Chart
from pcaseg.benchmarks.evaluate_table import evaluation_table
from pcaseg.benchmarks.plots import pictures_match, plots, write_pictures
from pcaseg.benchmarks.rows import BenchRow, read_rows
from pcaseg.benchmarks.studies import tiny
from pcaseg.files import atomic_path

RESULTS = Path(__file__).parent / "results"
README = Path(__file__).resolve().parent.parent / "README.md"

StoredRow = dict[str, Any]

_BLOCK = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def check_table() -> str:
    """Agreement of ONNX Runtime with the eager model, from the files of `pcaseg check --json`."""
    lines = [
        "| bundle | image | classes | strategy | relative error of logits | same label | worst class, IoU |",
        "|---|---|---|---|---|---|---|",
    ]
    for path in sorted(RESULTS.glob("check_*.json")):
        report = json.loads(path.read_text(encoding="utf-8"))
        bundle = ", ".join([report["preset"], *([report["precision"]] if "precision" in report else [])])
        for row in report["rows"]:
            worst = f"{row['worst_class'].split(',')[0].strip()}, {row['worst_iou']:.4f}"
            lines.append(
                f"| {bundle} | {row['case']} | {row['classes']} | {row['strategy']} "
                f"| {row['relative_error']:.1e} | {row['label_agreement']:.3%} | {worst} |"
            )
    return "\n".join(lines) + "\n"


def labelled_table() -> str:
    """mIoU of the eager model and of bundles on the same labelled images, from the files of `pcaseg check --json`."""
    lines = [
        "| bundle | backend | images | classes | mIoU eager | mIoU bundle | difference, points | gate |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for path in sorted(RESULTS.glob("check_*.json")):
        report = json.loads(path.read_text(encoding="utf-8"))
        if row := report.get("labelled"):
            difference = row["bundle_miou"] - row["eager_miou"]
            lines.append(
                f"| {report['preset']}, {report['precision']} | {report['backend']} | {row['images']} "
                f"| {row['classes']} | {row['eager_miou']:.2f} % | {row['bundle_miou']:.2f} % | {difference:+.3f} "
                f"| {row['gate']} |"
            )
    return "\n".join(lines) + "\n"


def speed_table() -> str:
    """Folded against eager, from the rows of `pcaseg.benchmarks.studies.folding`: medians of the rounds."""
    lines = []
    for path in sorted(RESULTS.glob("folding_*.json")):
        report = json.loads(path.read_text(encoding="utf-8"))
        rows = {(row["part"], row["classes"], row["backend"]): row for row in report["rows"]}
        matmul = rows["matmul", 0, "torch"]
        rate = matmul["gmac"] / min(matmul["seconds"])
        environment = report["environment"]
        lines += [
            f"{report['preset']}, float32, {report['threads']} threads of {environment['cpu']}, "
            f"PyTorch {environment['versions']['torch']}, ONNX Runtime {environment['versions']['onnxruntime']}; "
            f"a product of two matrices of 2048 x 2048 reaches {2 * rate:.0f} GFLOP/s here.",
            "",
            "| part | classes | GMAC eager | GMAC folded | eager s | folded PyTorch s | ONNX Runtime s "
            "| bound s | folded x | ONNX Runtime x |",
            "|---|---|---|---|---|---|---|---|---|---|",
        ]
        for part, classes, backend in rows:
            if backend == "eager":
                lines.append(_speed_line(*(rows[part, classes, name] for name in BACKENDS), rate=rate))
        lines.append("")
    return "\n".join(lines[:-1]) + "\n"


BACKENDS = ("eager", "folded", "onnxruntime")


def _speed_line(eager: StoredRow, folded: StoredRow, graph: StoredRow, *, rate: float) -> str:
    eager_s, folded_s, graph_s = (statistics.median(row["seconds"]) for row in (eager, folded, graph))
    work = "| | " if eager["gmac"] is None else f"| {eager['gmac']:.0f} | {folded['gmac']:.1f} "
    bound = "" if eager["gmac"] is None else f"{folded['gmac'] / rate:.2f}"
    return (
        f"| {eager['part']} | {eager['classes']} {work}| {eager_s:.2f} | {folded_s:.2f} | {graph_s:.2f} "
        f"| {bound} | {eager_s / folded_s:.1f} | {eager_s / graph_s:.1f} |"
    )


PRODUCTS = {
    *("MatMul", "FusedMatMul", "Gemm", "Conv", "ConvTranspose", "FusedConv"),
    *("aten::addmm", "aten::mm", "aten::bmm", "aten::mkldnn_convolution", "aten::_convolution"),
    *("aten::slow_conv_transpose2d", "aten::_scaled_dot_product_flash_attention_for_cpu"),
}
"""Operators whose multiply-adds are counted in GMAC; PyTorch's fused attention is among them, its softmax included."""


def operators_table() -> str:
    """Time by operator, from the rows of `pcaseg.benchmarks.studies.operators`."""
    lines = [
        "| backend | classes | s | in products | GFLOP/s there | the largest of the rest |",
        "|---|---|---|---|---|---|",
    ]
    for path in sorted(RESULTS.glob("operators_*.json")):
        for row in json.loads(path.read_text(encoding="utf-8"))["rows"]:
            total = sum(row["seconds"].values())
            rest = sorted((-seconds, name) for name, seconds in row["seconds"].items() if name not in PRODUCTS)
            products = total + sum(seconds for seconds, _ in rest)
            named = ", ".join(f"{name.removeprefix('aten::')} {-seconds / total:.0%}" for seconds, name in rest[:4])
            lines.append(
                f"| {row['backend']} | {row['classes']} | {total:.2f} | {products / total:.0%} "
                f"| {2 * row['gmac'] / products:.0f} | {named} |"
            )
    return "\n".join(lines) + "\n"


def mixed_precision_table() -> str:
    """Errors of float16 inside norms, softmax and sums, from `pcaseg.benchmarks.studies.mixed_precision`."""
    lines = [
        "| float32 region | runs | error with it | error without it | largest value inside |",
        "|---|---|---|---|---|",
    ]
    for path in sorted(RESULTS.glob("islands_*.json")):
        for row in json.loads(path.read_text(encoding="utf-8"))["rows"]:
            lines.append(
                f"| {row['island']} | {row['places']} | {row['error']:.1e} | {row['error_without']:.1e} "
                f"| {row['largest']:.0f} |"
            )
    return "\n".join(lines) + "\n"


def bench_table() -> str:
    """Whole images by backend and vocabulary, with the plots, from the rows of `pcaseg bench`."""
    rows = bench_rows()
    sweeps = [(key, list(group)) for key, group in itertools.groupby(rows, key=lambda row: (row.run, row.preset))]
    lines = []
    for _, members in sweeps:
        first = members[0]
        lines += [
            f"{first.preset}, {first.point.strategy}, images of {first.point.width} x {first.point.height} pixels, "
            f"{first.weights} weights, {first.point.threads} threads of {first.environment['cpu']}, "
            f"PyTorch {first.environment['torch']}, ONNX Runtime {first.environment['onnxruntime']}:",
            "",
            "| backend | classes | engine ms | end to end ms | x eager | interval | same label | relative error "
            "| cold start s | peak MiB |",
            "|---|---|---|---|---|---|---|---|---|---|",
            *(_bench_line(row) for row in members if row.engine and row.end_to_end and row.accuracy),
            "",
        ]
    pictures = [
        "![Latency against vocabulary size](benchmarks/results/latency.svg)",
        "![How many times as fast as the published computation](benchmarks/results/speedup.svg)",
    ]
    return "\n".join([*lines, *pictures]) + "\n"


def bench_rows() -> list[BenchRow]:
    """All stored rows of `pcaseg bench`."""
    return read_rows(sorted(RESULTS.glob("bench_*.jsonl")))


def _bench_line(row: BenchRow) -> str:
    assert row.engine and row.end_to_end and row.accuracy  # by the caller's choice
    ratio = row.engine.ratio
    noisy = " (noisy)" if row.noise else ""
    times = f"{ratio.value:.1f}{noisy} | {ratio.low:.1f} to {ratio.high:.1f}" if ratio else " | "
    start = f"{row.cold.total_s:.1f} | {row.cold.peak_host_mib:.0f}" if row.cold else " | "
    name = row.backend if row.precision == "float32" else f"{row.backend}, {row.precision}"
    return (
        f"| {name} | {row.point.classes} | {row.engine.latency.p50_ms:.0f} | {row.end_to_end.latency.p50_ms:.0f} "
        f"| {times} | {row.accuracy.label_agreement:.3%} | {row.accuracy.relative_error:.1e} | {start} |"
    )


def kernels_table() -> str:
    """Registers, spilled bytes and shared memory, from the rows of `pcaseg.benchmarks.studies.kernels_aot`."""
    report = json.loads((RESULTS / "kernels_aot.json").read_text(encoding="utf-8"))
    archs = list(dict.fromkeys(row["arch"] for row in report["rows"]))
    cells = {(row["name"], row["arch"]): _kernel_cell(row) for row in report["rows"]}
    lines = [
        f"Triton {report['environment']['versions']['triton']}: registers / spilled bytes / shared KiB.",
        "",
        "| kernel | " + " | ".join(archs) + " |",
        "|---" * (1 + len(archs)) + "|",
    ]
    for name in dict.fromkeys(row["name"] for row in report["rows"]):
        lines.append(f"| {name} | " + " | ".join(cells[name, arch] for arch in archs) + " |")
    return "\n".join(lines) + "\n"


def _kernel_cell(row: StoredRow) -> str:
    shared = f"{row['shared_bytes'] / 1024:.0f}"
    return f"PTX / {shared}" if row["cubin"] is None else f"{row['registers']} / {row['spill_bytes']} / {shared}"


TABLES: dict[str, Callable[[], str]] = {
    "bench": bench_table,
    "check": check_table,
    "labelled": labelled_table,
    "speed": speed_table,
    "operators": operators_table,
    "mixed_precision": mixed_precision_table,
    "kernels": kernels_table,
    "evaluation": lambda: evaluation_table(RESULTS),
    "tiny": lambda: tiny.scenes_table(tiny.read_record()),
    "ablation": lambda: tiny.ablation_table(
        [json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.glob("ablation_tiny_*.json"))]
    ),
}


def pictures() -> dict[str, Chart]:
    """The README's plots by file name."""
    return plots(bench_rows()) | {tiny.CURVE: tiny.curve(tiny.read_record())}


def fill(text: str) -> str:
    """`text` with every table made anew from its rows."""
    return _BLOCK.sub(lambda block: block[1] + TABLES[block[2]]() + block[3], text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes the tables, or with `--check` returns 1 if they are not up to date."""
    parser = argparse.ArgumentParser(prog="python -m pcaseg.benchmarks.readme", description=__doc__)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args(arguments)
    text = README.read_text(encoding="utf-8")
    filled = fill(text)
    if options.check:
        return int(filled != text or not pictures_match(pictures(), RESULTS))
    write_pictures(pictures(), RESULTS)
    with atomic_path(README) as temporary:
        temporary.write_text(filled, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
