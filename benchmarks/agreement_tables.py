"""Markdown tables of how right bundles are, from the stored files of `pcaseg check`."""

from __future__ import annotations

from pathlib import Path

from pcaseg.benchmarks.stored import stored_reports
from pcaseg.text_tables import markdown_table


def check_table(results: Path) -> str:
    """Agreement of ONNX Runtime with the eager model, from the files of `pcaseg check --json`."""
    headers = ["bundle", "image", "classes", "strategy", "relative error of logits", "same label", "worst class, IoU"]
    rows = []
    for report in stored_reports(results, "check_*.json"):
        bundle = ", ".join([report["preset"], *([report["precision"]] if "precision" in report else [])])
        for row in report["rows"]:
            worst = f"{row['worst_class'].split(',')[0].strip()}, {row['worst_iou']:.4f}"
            agreement = [f"{row['relative_error']:.1e}", f"{row['label_agreement']:.3%}", worst]
            rows.append([bundle, row["case"], row["classes"], row["strategy"], *agreement])
    return markdown_table(headers, rows, align="llrlrrl")


def labelled_table(results: Path) -> str:
    """mIoU of the eager model and of bundles on the same labelled images, from the files of `pcaseg check --json`."""
    headers = [
        *("bundle", "backend", "images", "classes"),
        *("mIoU eager", "mIoU bundle", "difference, points", "gate"),
    ]
    rows = []
    for report in stored_reports(results, "check_*.json"):
        if row := report.get("labelled"):
            eager, bundle = row["eager_miou"], row["bundle_miou"]
            subject = [f"{report['preset']}, {report['precision']}", report["backend"], row["images"], row["classes"]]
            rows.append([*subject, f"{eager:.2f} %", f"{bundle:.2f} %", f"{bundle - eager:+.3f}", row["gate"]])
    return markdown_table(headers, rows, align="llr")
