"""The table of accuracy: published results, and those of `pcaseg evaluate` that are stored."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pcaseg.benchmarks.stored import stored_reports
from pcaseg.data.specs import data_set
from pcaseg.evaluation.published import ORDER, PUBLISHED
from pcaseg.evaluation.results import network_title
from pcaseg.text_tables import markdown_table


def evaluation_table(results: Path) -> str:
    """mIoU by network and data set, from the files `evaluate_*.json`, which are `results.json` of whole evaluations.

    What was never trained, or saw a part of the images, is left out: it is no result to compare.
    """
    rows: dict[str, dict[str, float]] = {f"{one.title} ({one.source})": dict(one.miou) for one in PUBLISHED}
    parts = []
    for found in stored_reports(results, "evaluate_*.json"):
        if found["images"] != found["published_images"]:
            continue
        for subject in found["subjects"]:
            if subject["never_trained"]:
                continue
            if found["data"] in ORDER:
                rows.setdefault(_title(subject), {})[found["data"]] = subject["miou"]
            elif subject["parts"]:
                parts.append(_parts_cells(found["data"], subject))
    cells = [
        [title, *(f"{values[name]:.1f}" if name in values else "" for name in ORDER)] for title, values in rows.items()
    ]
    tables = [markdown_table(["mIoU, percent", *(data_set(name).title for name in ORDER)], cells, align="lr")]
    if parts:
        headers = ["parts", "data set", "mIoU", "seen", "unseen", "harmonic mean"]
        tables.append(markdown_table(headers, parts, align="llr"))
    return "\n\n".join(tables)


def _title(subject: Mapping[str, Any]) -> str:
    preset, _, rest = network_title(subject).partition(", ")
    return f"{preset}, {subject['weights_sha256'][:8]}, {rest}"


def _parts_cells(data: str, subject: Mapping[str, Any]) -> list[str]:
    values = [subject["miou"], *(subject["parts"][key] for key in ("seen", "unseen", "harmonic_mean"))]
    return [_title(subject), data_set(data).title, *("" if value is None else f"{value:.1f}" for value in values)]
