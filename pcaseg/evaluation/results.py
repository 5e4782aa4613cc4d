"""Results of evaluations: JSON with every class, and a Markdown table beside the published results."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pcaseg.data.folders import LabelledFolder
from pcaseg.environment import environment
from pcaseg.errors import OutputError, PcasegError
from pcaseg.evaluation.confusion import Scores, group_miou, harmonic_mean
from pcaseg.evaluation.counts import SCHEMA_VERSION, Evaluated, add_counts, read_counts
from pcaseg.evaluation.published import PUBLISHED
from pcaseg.files import atomic_path, holds_json
from pcaseg.paths import exists, is_folder
from pcaseg.text_tables import markdown_cell

RESULTS = ("results.json", "results.md")

NEVER_TRAINED = {"seeded": "weights never trained", "clip-only": "aggregator never trained"}
"""By kind of weights: why the numbers are no result."""

_MEASURES = (
    ("miou", "mIoU"),
    ("fwiou", "frequency-weighted IoU"),
    ("mean_accuracy", "mean accuracy"),
    ("pixel_accuracy", "pixel accuracy"),
)


def result_paths(out: Path) -> tuple[Path, Path]:
    """Paths that `write_results` writes: `results.json` and `results.md`."""
    return out / RESULTS[0], out / RESULTS[1]


def missing_images(out: Path, evaluated: Evaluated) -> int:
    """Number of images of an evaluation that no shard in the folder holds yet."""
    return evaluated.images - len(read_counts(out, evaluated))


def collect_results(folder: LabelledFolder, out: Path, subjects: Sequence[Evaluated]) -> dict[str, Any]:
    """Everything measured, as JSON, of subjects whose shards are all there.

    Raises:
        PcasegError: the shards disagree, or no pixel is labelled.
    """
    return {
        "schema_version": SCHEMA_VERSION,
        "data": folder.source,
        "images": subjects[0].images,
        "published_images": folder.published,
        "subjects": [_subject(folder, out, one) for one in subjects],
        "published": [
            {"title": one.title, "source": one.source, "miou": one.miou[folder.source]}
            for one in PUBLISHED
            if folder.source in one.miou
        ],
        "environment": environment(),
    }


def _subject(folder: LabelledFolder, out: Path, evaluated: Evaluated) -> dict[str, Any]:
    found = add_counts(read_counts(out, evaluated), evaluated.classes).scores()
    if not found.pixels.sum():
        raise PcasegError(f"{folder.source}: no pixel is labelled in the chosen images; give other images")
    return {
        "subject": evaluated.subject,
        "preset": evaluated.preset,
        "weights": evaluated.weights,
        "weights_sha256": evaluated.weights_sha256,
        "never_trained": NEVER_TRAINED.get(evaluated.weights),
        "precision": evaluated.precision,
        "strategy": evaluated.strategy,
        "shortlist": evaluated.shortlist,
        **{name: _number(getattr(found, name)) for name, _ in _MEASURES},
        "parts": _parts(folder, found),
        "classes": [
            {
                "name": name,
                "iou": _number(found.iou[index]),
                "accuracy": _number(found.accuracy[index]),
                "pixels": int(found.pixels[index]),
            }
            for index, name in enumerate(folder.label_names)
        ],
    }


def _parts(folder: LabelledFolder, found: Scores) -> dict[str, float | None] | None:
    """Scores of parts: mIoU of names seen in training, of the others, and their harmonic mean."""
    if folder.seen is None:
        return None
    members = [name in folder.seen for name in folder.label_names]
    seen, unseen = group_miou(found, members), group_miou(found, [not member for member in members])
    return {"seen": _number(seen), "unseen": _number(unseen), "harmonic_mean": _number(harmonic_mean(seen, unseen))}


def markdown(found: Mapping[str, Any]) -> str:
    """The report as tables: the measures beside the published results, then every class."""
    subjects = found["subjects"]
    names = [_title(one) for one in subjects]
    published = found["published_images"]
    part = f" of {published} as published" if published and published != found["images"] else ""
    lines = [f"# {found['data']}: {found['images']} images{part}", ""]
    never = [(network_title(one), one["never_trained"]) for one in subjects if one["never_trained"]]
    notes = [f"{title}: {reason}, so these numbers are no results." for title, reason in never]
    lines += [*notes, ""] if notes else []
    lines += [*_row("percent", names), "|---" + "|---:" * len(names) + "|", *_measure_lines(subjects)]
    if found["published"] and not part and len(notes) < len(subjects):
        lines += ["", *_row("published", ["mIoU", "source"]), "|---|---:|---|"]
        lines += [f"| {one['title']} | {one['miou']:.1f} | {one['source']} |" for one in found["published"]]
    lines += ["", *_row("class, IoU", [*names, "pixels"]), "|---" + "|---:" * (len(names) + 1) + "|"]
    for rows in zip(*(one["classes"] for one in subjects), strict=True):
        cells = [*(_cell(row["iou"]) for row in rows), str(rows[0]["pixels"])]
        lines += _row(rows[0]["name"].split(",")[0], cells)
    return "\n".join(lines) + "\n"


def _measure_lines(subjects: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = [line for key, name in _MEASURES for line in _row(name, [_cell(one[key]) for one in subjects])]
    if subjects[0]["parts"]:
        for key, name in (("seen", "mIoU seen"), ("unseen", "mIoU unseen"), ("harmonic_mean", "harmonic mean")):
            lines += _row(name, [_cell(one["parts"][key]) for one in subjects])
    if len(subjects) == 2:
        first, second = (one["miou"] for one in subjects)
        lines += _row("difference of mIoU", ["", f"{second - first:+.3f}"])
    return lines


def network_title(subject: Mapping[str, Any]) -> str:
    """Title of a subject in tables."""
    cut = f", shortlist {subject['shortlist']}" if subject.get("shortlist") else ""  # older files have none
    return f"{subject['preset']}, {subject['subject']}, {subject['precision']}, {subject['strategy']}{cut}"


def _title(subject: Mapping[str, Any]) -> str:
    return (
        f"{network_title(subject)} ({subject['never_trained']})" if subject["never_trained"] else network_title(subject)
    )


def _row(first: str, cells: Sequence[str]) -> list[str]:
    return ["| " + " | ".join(map(markdown_cell, (first, *cells))) + " |"]


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def check_results(out: Path) -> None:
    """Refuses a folder in which `write_results` would replace what it did not write.

    Raises:
        OutputError: it holds another `results.json`, or a `results.md` alone.
    """
    if exists(out, error=OutputError) and not is_folder(out):
        raise OutputError(f"{out}: is a file; give a folder")
    json_path, markdown_path = result_paths(out)
    if exists(json_path, error=OutputError):
        ours = holds_json(json_path, {"schema_version", "data", "subjects"})
    else:
        ours = not exists(markdown_path, error=OutputError)
    if not ours:
        raise OutputError(f"{out}: holds a {' or '.join(RESULTS)} of something else; choose another folder")


def write_results(out: Path, found: Mapping[str, Any]) -> None:
    """Writes `results.json` and `results.md`.

    Raises:
        OutputError: the folder cannot be written.
    """
    json_path, markdown_path = result_paths(out)
    texts = {json_path: json.dumps(found, indent=1, ensure_ascii=False) + "\n", markdown_path: markdown(found)}
    for path, text in texts.items():
        with atomic_path(path) as temporary:
            temporary.write_text(text, encoding="utf-8", errors="backslashreplace")  # names that are not UTF-8


def _number(value: float) -> float | None:
    """A measure for JSON, which has no NaN."""
    return None if math.isnan(value) else float(value)
