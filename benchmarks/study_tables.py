"""Markdown tables of the studies, from their stored rows."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pcaseg.benchmarks.intervals import mean_interval
from pcaseg.benchmarks.stored import stored_reports
from pcaseg.text_tables import markdown_table

StoredRow = dict[str, Any]

FOLDING = ("eager", "folded", "onnxruntime")
BACKENDS = {"eager": "eager", "folded": "folded PyTorch", "onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}
PRODUCTS = {
    *("MatMul", "FusedMatMul", "Gemm", "Conv", "ConvTranspose", "FusedConv"),
    *("aten::addmm", "aten::mm", "aten::bmm", "aten::mkldnn_convolution", "aten::_convolution"),
    *("aten::slow_conv_transpose2d", "aten::_scaled_dot_product_flash_attention_for_cpu"),
}
"""Operators whose multiply-adds are counted in GMAC; PyTorch's fused attention is among them, its softmax included."""


def folding_table(results: Path) -> str:
    """Folded against eager, from the rows of `pcaseg.benchmarks.studies.folding`: medians of the rounds."""
    headers = [
        *("part", "classes", "GMAC eager", "GMAC folded", "eager s", "folded PyTorch s"),
        *("ONNX Runtime s", "bound s", "folded x", "ONNX Runtime x"),
    ]
    tables = []
    for report in stored_reports(results, "folding_*.json"):
        rows = {(row["part"], row["classes"], row["backend"]): row for row in report["rows"]}
        matmul = rows["matmul", 0, "torch"]
        rate = matmul["gmac"] / min(matmul["seconds"])
        versions = report["environment"]["versions"]
        setting = (
            f"{report['preset']}, float32, {report['threads']} threads of {report['environment']['cpu']}, "
            f"PyTorch {versions['torch']}, ONNX Runtime {versions['onnxruntime']}; "
            f"a product of two matrices of 2048 x 2048 reaches {2 * rate:.0f} GFLOP/s here."
        )
        cells = [
            _folding_cells(*(rows[part, classes, name] for name in FOLDING), rate=rate)
            for part, classes, backend in rows
            if backend == "eager"
        ]
        tables.append(f"{setting}\n\n{markdown_table(headers, cells, align='lr')}")
    return "\n\n".join(tables)


def _folding_cells(eager: StoredRow, folded: StoredRow, graph: StoredRow, *, rate: float) -> list[str]:
    eager_s, folded_s, graph_s = (statistics.median(row["seconds"]) for row in (eager, folded, graph))
    counted = eager["gmac"] is not None
    return [
        *(eager["part"], str(eager["classes"])),
        f"{eager['gmac']:.0f}" if counted else "",
        f"{folded['gmac']:.1f}" if counted else "",
        *(f"{eager_s:.2f}", f"{folded_s:.2f}", f"{graph_s:.2f}"),
        f"{folded['gmac'] / rate:.2f}" if counted else "",
        *(f"{eager_s / folded_s:.1f}", f"{eager_s / graph_s:.1f}"),
    ]


OPERATORS = ("s", "in products", "GFLOP/s there", "the largest of the rest")


def _operator_cells(seconds: dict[str, float], gmac: float) -> list[str]:
    """Cells of a profiled call, of `OPERATORS`."""
    total = sum(seconds.values())
    rest = sorted((-time, name) for name, time in seconds.items() if name not in PRODUCTS)
    products = total + sum(time for time, _ in rest)
    named = ", ".join(f"{name.removeprefix('aten::')} {-time / total:.0%}" for time, name in rest[:4])
    return [f"{total:.2f}", f"{products / total:.0%}", f"{2 * gmac / products:.0f}", named]


def operators_table(results: Path) -> str:
    """Time by operator, from the rows of `pcaseg.benchmarks.studies.operators`."""
    headers = ["backend", "classes", *OPERATORS]
    cells = []
    for report in stored_reports(results, "operators_*.json"):
        for row in report["rows"]:
            cells.append([row["backend"], row["classes"], *_operator_cells(row["seconds"], row["gmac"])])
    return markdown_table(headers, cells, align="lrrrrl")


def mixed_precision_table(results: Path) -> str:
    """Errors of float16 inside norms, softmax and sums, from `pcaseg.benchmarks.studies.mixed_precision`."""
    headers = ["float32 region", "runs", "error with it", "error without it", "largest value inside"]
    cells = []
    for report in stored_reports(results, "islands_*.json"):
        for row in report["rows"]:
            errors = [f"{row['error']:.1e}", f"{row['error_without']:.1e}"]
            cells.append([row["island"], row["places"], *errors, f"{row['largest']:.0f}"])
    return markdown_table(headers, cells, align="lr")


def shortlist_table(results: Path) -> str:
    """Accuracy, recall and time by length, from the rows of `pcaseg.benchmarks.studies.shortlist`."""
    headers = ["pairs", "scenes", "names", "shortlist", "mIoU", "difference", "class kept", "ms", "times as fast"]
    cells = []
    for report in stored_reports(results, "shortlist_tiny*.json"):
        whole = {(row["suite"], row["names"]): row for row in report["rows"] if row["shortlist"] is None}
        for row in report["rows"]:
            base, gap = whole[row["suite"], row["names"]], row["difference"]
            points = [f"{100 * gap[name]:+.2f}" for name in ("value", "low", "high")] if gap else []
            cells.append(
                [
                    *(
                        row["suite"].replace("_all", "").replace("_", " "),
                        row["scenes"],
                        row["names"],
                        row["shortlist"] or "all",
                    ),
                    f"{100 * row['miou']:.2f}",
                    "{} ({} to {})".format(*points) if points else "",
                    f"{row['recall']:.2%}",
                    f"{1e3 * statistics.median(row['seconds']):.1f}",
                    _times_as_fast(base["seconds"], row["seconds"]) if gap else "",
                ]
            )
    return markdown_table(headers, cells, align="lr")


def _times_as_fast(slow_s: Sequence[float], fast_s: Sequence[float], *, digits: int = 2) -> str:
    """Gain of calls that took turns, with its interval by Student's t on the logarithms of the rounds' ratios."""
    found = mean_interval(np.log(np.array(slow_s) / np.array(fast_s)))
    value, low, high = (f"{math.exp(one):.{digits}f}" for one in (found.value, found.low, found.high))
    return f"{value} ({low} to {high})"


def shortlist_speed_table(results: Path) -> str:
    """Whole vocabulary against shortlist, from the rows of `pcaseg.benchmarks.studies.shortlist_speed`."""
    tables = []
    for report in stored_reports(results, "shortlist_speed_*.json"):
        rates = {
            row["backend"].removeprefix("matmul"): row["gmac"] / statistics.median(row["seconds"])
            for row in report["rows"]
            if row["classes"] == 0
        }
        rows = {(row["classes"], row["backend"]): row for row in report["rows"] if row["classes"]}
        cells, profiles = [], []
        for (classes, name), row in rows.items():
            eager, runtime = rows[classes, "eager"], name.partition("-")[0]
            seconds = f"{statistics.median(row['seconds']):.2f}"
            if name == "eager":
                cells.append([f"{classes:,}", BACKENDS[name], "float32", seconds, "", "", ""])
                continue
            gain = _times_as_fast(eager["seconds"], row["seconds"], digits=1)
            precision, error = name.partition("-")[2] or "float32", f"{row['relative_error']:.1e}"
            same = f"{row.get('kept', 1):.0%}"  # rows before it was stored are of float32, where it must be all
            cells.append(["", BACKENDS[runtime], precision, seconds, gain, error, same])
            if row["operators"]:
                bound = f"{row['gmac'] / rates['']:.2f}"
                profiles.append([f"{classes:,}", bound, *_operator_cells(row["operators"], row["gmac"])])
        headers = ["classes", "backend", "precision", "s", "times as fast", "error", "same list"]
        reached = " and ".join(f"{2 * rate:.0f} in {name[1:] or 'float32'}" for name, rate in rates.items())
        setting = (
            f"{report['preset']}, shortlist {report['shortlist']}, {report['threads']} threads of "
            f"{_processor(report)}. A product of two square matrices reaches this many GFLOP/s: {reached}."
        )
        tables.append(f"{setting}\n\n{markdown_table(headers, cells, align='rllr')}")
        profiled = markdown_table(["classes", "products s", *OPERATORS], profiles, align="rrrrrl")
        tables.append(
            "One call of ONNX Runtime, by operator; the first time is what the products alone would take at the rate "
            f"of square ones:\n\n{profiled}"
        )
    return "\n\n".join(tables)


def covered_lines_table(results: Path) -> str:
    """Share of lines that the tests run, from the rows of `pcaseg.benchmarks.studies.covered_lines`."""
    (report,) = stored_reports(results, "covered_lines.json")
    counts = [(row["folder"], row["lines"], row["run"]) for row in report["rows"]]
    counts.append(("**all**", sum(lines for _, lines, _ in counts), sum(run for *_, run in counts)))
    cells = [[folder, lines, f"{100 * run / lines:.0f}"] for folder, lines, run in counts]
    return markdown_table(["folder", "lines", "run by tests, percent"], cells, align="lr")


def cpu_precisions_table(results: Path) -> str:
    """Accuracy and time by precision on a CPU, from the rows of `pcaseg.benchmarks.studies.cpu_precisions`."""
    headers = ["backend", "precision", "mIoU", "difference, points", "gate", "same label", "ms", "times as fast"]
    tables = []
    for report in stored_reports(results, "cpu_precisions_*.json"):
        eager, *others = report["rows"]
        cells = []
        for row in (eager, *others):
            known, ms = row["miou"] is not None, f"{1e3 * statistics.median(row['seconds']):.0f}"
            accuracy = [f"{row['miou']:.2f} %" if known else "", "", ""]
            if known and row is not eager:
                accuracy[1:] = [f"{row['miou'] - eager['miou']:+.3f}", f"{row['gate']:g}"]
            gain = "" if row is eager else _times_as_fast(eager["seconds"], row["seconds"])
            cells.append([BACKENDS[row["backend"]], row["precision"], *accuracy, f"{row['same_label']:.2%}", ms, gain])
        size = " x ".join(map(str, report["image"]))
        setting = (
            f"{report['preset']}, {report['classes']} classes, an image of {size}, {report['threads']} threads of "
        )
        scored = f"; mIoU on {report['scenes']} scenes" if report["scenes"] else "; weights never trained"
        tables.append(f"{setting}{_processor(report)}{scored}:\n\n{markdown_table(headers, cells, align='llr')}")
    return "\n\n".join(tables)


def _processor(report: StoredRow) -> str:
    """The processor of a report, with its instruction sets where they were stored."""
    environment = report["environment"]
    sets = environment.get("instruction_sets")
    return environment["cpu"] + (f" ({sets})" if sets else "")


def native_table(results: Path) -> str:
    """C++ beside Python, from the rows of `pcaseg.benchmarks.studies.native`: medians in milliseconds."""
    cells = []
    for report in stored_reports(results, "native_*.json"):
        rows = {row["runtime"]: row for row in report["rows"]}
        for stage in ("prepare", "network", "labels", "total"):
            cpp, python = (np.array(rows[name]["times_ms"][stage]) for name in ("c++", "python"))
            middle = [f"{np.median(times):.1f}" for times in (cpp, python)]
            cells.append([rows["c++"]["preset"], stage, len(cpp), *middle])
    return markdown_table(["bundle", "stage", "frames", "C++ ms", "Python ms"], cells, align="lr")


def serving_table(results: Path) -> str:
    """Throughput and latency by way to ask, from the rows of `pcaseg.benchmarks.studies.serving`."""
    headers = ["asked", "callers", "vocabularies", "requests", "wrong", "a second", "p50 ms", "p95 ms", "p99 ms", "MiB"]
    cells = []
    for report in stored_reports(results, "serving_*.json"):
        for row in report["rows"]:
            times = [f"{row[name]:.0f}" for name in ("p50_ms", "p95_ms", "p99_ms")]
            counts = [row[name] for name in ("case", "callers", "vocabularies", "requests", "wrong")]
            mib = "" if row["mib"] is None else f"{row['mib']:.0f}"
            cells.append([*counts, f"{row['per_second']:.1f}", *times, mib])
    return markdown_table(headers, cells, align="lr")


def transport_table(results: Path) -> str:
    """Frames that came through ROS 2's transport, from the rows of `tests/ros/transport.py`."""
    cells = [
        [row["profile"].replace("_", " "), row["qos"], f"{row['rate']:g}", row["sent"], row["received"]]
        for report in stored_reports(results, "transport_*.json")
        for row in report["rows"]
    ]
    return markdown_table(["transport", "qos", "frames per second", "sent", "received"], cells, align="llr")


def clusters_table(results: Path) -> str:
    """Images a second by workers, from the rows of `pcaseg.benchmarks.studies.clusters`."""
    headers = ["by", "workers", "images", "seconds", "of these start", "images a second", "of as many processes"]
    tables = []
    for report in stored_reports(results, "clusters_*.json"):
        rate = {(row["case"], row["workers"]): row["per_second"] for row in report["rows"]}
        cells = [
            [
                *(row["case"], row["workers"], row["images"], f"{row['seconds']:.0f}", f"{row['start_s']:.0f}"),
                f"{row['per_second']:.2f}",
                f"{row['per_second'] / rate['processes', row['workers']]:.0%}",
            ]
            for row in report["rows"]
        ]
        machine = f"{report['environment']['cores']} cores of {report['environment']['cpu']}"
        note = f"; {report['note']}" if report["note"] else ""
        tables.append(f"{report['preset']}, {machine}{note}:\n\n{markdown_table(headers, cells, align='lr')}")
    return "\n\n".join(tables)


def steady_table(results: Path) -> str:
    """Flicker and accuracy by weight of the past, from the rows of `pcaseg.benchmarks.studies.steady`."""
    cells = [
        [f"{row['speed']:.1%}", f"{row['smooth']:g}", f"{row['flicker']:.2%}", f"{100 * row['miou']:.1f}"]
        for report in stored_reports(results, "steady_*.json")
        for row in report["rows"]
    ]
    return markdown_table(["way per frame, at most", "smooth", "flicker", "mIoU"], cells, align="r")


def synonyms_table(results: Path) -> str:
    """Accuracy by way to ask for a class, from the rows of `pcaseg.benchmarks.studies.synonyms`."""
    cells = []
    for report in stored_reports(results, "synonyms_*.json"):
        for row in report["rows"]:
            objects = "" if row["object_miou"] is None else f"{100 * row['object_miou']:.1f}"
            cells.append([row["asked"], row["synonyms"] or "", row["scenes"], f"{100 * row['miou']:.1f}", objects])
    return markdown_table(["asked for by", "synonyms", "scenes", "mIoU", "mIoU of objects"], cells, align="llr")


def soak_table(results: Path) -> str:
    """Long streams, from the rows of `pcaseg.benchmarks.studies.soak`."""
    headers = ["MALLOC_ARENA_MAX", "frames", "wrong", "corrupt", "changes", "exceptions", "p50 ms", "p95 ms", "p99 ms"]
    headers += ["MiB per 1,000 frames", "threads left", "files left"]
    cells = []
    for report in stored_reports(results, "soak_*.json"):
        for row in report["rows"]:
            counts = [f"{row[name]:,}" for name in ("frames", "wrong", "corrupt", "changes", "exceptions")]
            times = [f"{row[name]:.0f}" for name in ("p50_ms", "p95_ms", "p99_ms")]
            growth = f"{row['mib_per_1000']:+.2f} ({row['mib_low']:+.2f} to {row['mib_high']:+.2f})"
            arenas = report.get("malloc_arena_max") or "not set"
            cells.append([arenas, *counts, *times, growth, row["threads"], row["files"]])
    return markdown_table(headers, cells, align="r")


def streaming_table(results: Path) -> str:
    """Streams beside plain loops, from the rows of `pcaseg.benchmarks.studies.streaming`."""
    cells = []
    for report in stored_reports(results, "streaming_*.json"):
        for row in report["rows"]:
            rates = [row["frames"] / statistics.median(row[name]) for name in ("loop_s", "stream_s")]
            cells.append(
                [
                    f"{row['height']} x {row['width']}",
                    row["classes"],
                    *(f"{rate:.1f}" for rate in rates),
                    _times_as_fast(row["loop_s"], row["stream_s"]),
                ]
            )
    return markdown_table(
        ["frame", "classes", "loop, frames/s", "stream, frames/s", "times as fast"], cells, align="lr"
    )


def kernels_table(results: Path) -> str:
    """Registers, spilled bytes and shared memory, from the rows of `pcaseg.benchmarks.studies.kernels_aot`."""
    (report,) = stored_reports(results, "kernels_aot.json")
    archs = list(dict.fromkeys(row["arch"] for row in report["rows"]))
    found = {(row["name"], row["arch"]): _kernel_cell(row) for row in report["rows"]}
    names = dict.fromkeys(row["name"] for row in report["rows"])
    cells = [[name, *(found[name, arch] for arch in archs)] for name in names]
    legend = f"Triton {report['environment']['versions']['triton']}: registers / spilled bytes / shared KiB."
    return f"{legend}\n\n{markdown_table(['kernel', *archs], cells, align='lr')}"


def _kernel_cell(row: StoredRow) -> str:
    shared = f"{row['shared_bytes'] / 1024:.0f}"
    return f"PTX / {shared}" if row["cubin"] is None else f"{row['registers']} / {row['spill_bytes']} / {shared}"


def rtx_table(results: Path) -> str:
    """Kernels that TensorRT-RTX makes of graphs, from the rows of `pcaseg.benchmarks.studies.rtx_layers`."""
    headers = [
        *(
            "preset",
            "graph",
            "precision",
            "form",
            "ONNX nodes",
            "of them in kernels",
            "kernels",
            "products",
            "fused ones",
            "alone",
        ),
        *("weights MiB", "plan MiB", "build s"),
    ]
    reports = list(stored_reports(results, "rtx_*.json"))
    cells = [_rtx_cells(row) for report in reports for row in report["rows"]]
    built_by = ", ".join(dict.fromkeys(row["built_by"] for report in reports for row in report["rows"]))
    processors = ", ".join(dict.fromkeys(report["environment"]["cpu"] for report in reports))
    return f"{built_by}, one profile, one thread of {processors}:\n\n{markdown_table(headers, cells, align='llllr')}"


def _rtx_cells(row: StoredRow) -> list[str]:
    nodes, kernels = sum(row["nodes"].values()), sum(row["kernels"].values())
    fused = row["kernels"].get("runtime_fusion", 0)
    products = fused + sum(row["kernels"].get(kind, 0) for kind in ("gemm", "correlation", "deconv"))
    return [
        *(row["preset"], row["graph"], row["precision"], _rtx_form(row)),
        *map(str, (nodes, row["kept"], kernels, products, fused, sum(row["alone"].values()))),
        *(f"{row[name] / 2**20:.1f}" for name in ("weights_bytes", "plan_bytes")),
        f"{row['seconds']:.0f}",
    ]


def _rtx_form(row: StoredRow) -> str:
    return f"opset {row['opset']}" + (", means" if row["layer_norm"] == "decomposed" else "")


def rtx_alone_table(results: Path) -> str:
    """Operators of the main graphs and how many of each share no kernel with another, from the same rows."""
    rows = [row for report in stored_reports(results, "rtx_*.json") for row in report["rows"] if row["graph"] == "main"]
    names = [f"{row['preset']}, {row['precision']}, {_rtx_form(row)}" for row in rows]
    operators = sorted(
        {name for row in rows for name in row["alone"]}, key=lambda name: (-rows[0]["alone"].get(name, 0), name)
    )
    cells = [
        [name, *(f"{row['alone'].get(name, 0)} of {row['nodes'].get(name, 0)}" for row in rows)] for name in operators
    ]
    return markdown_table(["operator", *names], cells, align="lr")
