"""The README's table of accuracy: published results, and those of `pcaseg evaluate` that are stored."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pcaseg.data.specs import data_set
from pcaseg.evaluation.published import ORDER, PUBLISHED
from pcaseg.evaluation.results import network_title


def evaluation_table(results: Path) -> str:
    """mIoU by network and data set, from the files `evaluate_*.json`, which are `results.json` of whole evaluations.

    What was never trained, or saw a part of the images, is left out: it is no result to compare.
    """
    rows: dict[str, dict[str, float]] = {f"{one.title} ({one.source})": dict(one.miou) for one in PUBLISHED}
    parts = []
    for path in sorted(results.glob("evaluate_*.json")):
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["images"] != found["published_images"]:
            continue
        for subject in found["subjects"]:
            if subject["never_trained"]:
                continue
            if found["data"] in ORDER:
                rows.setdefault(_title(subject), {})[found["data"]] = subject["miou"]
            elif subject["parts"]:
                parts.append(_parts_line(found["data"], subject))
    lines = [_line("mIoU, percent", [data_set(name).title for name in ORDER]), "|---" + "|---:" * len(ORDER) + "|"]
    for title, values in rows.items():
        lines.append(_line(title, [f"{values[name]:.1f}" if name in values else "" for name in ORDER]))
    if parts:
        lines += [
            "",
            _line("parts", ["data set", "mIoU", "seen", "unseen", "harmonic mean"]),
            "|---|---" + "|---:" * 4 + "|",
        ]
    return "\n".join([*lines, *parts]) + "\n"


def _title(subject: Mapping[str, Any]) -> str:
    preset, _, rest = network_title(subject).partition(", ")
    return f"{preset}, {subject['weights_sha256'][:8]}, {rest}"


def _parts_line(data: str, subject: Mapping[str, Any]) -> str:
    values = [subject["miou"], *(subject["parts"][key] for key in ("seen", "unseen", "harmonic_mean"))]
    cells = ["" if value is None else f"{value:.1f}" for value in values]
    return _line(_title(subject), [data_set(data).title, *cells])


def _line(first: str, cells: Sequence[str]) -> str:
    return "| " + " | ".join([first, *cells]) + " |"
