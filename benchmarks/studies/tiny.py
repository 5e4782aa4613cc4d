"""Accuracy of the trained preset `tiny` on fresh scenes: `python -m pcaseg.benchmarks.studies.tiny RUN`.

RUN is the folder of `pcaseg train --preset tiny`. Its weights are evaluated and become those that the package ships,
with their record: command, commit, recipe, log, and these results. Tables and curve of the docs are made from it.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from PIL import Image

from pcaseg.arguments import Parser, some_path, up_to
from pcaseg.benchmarks.charts import ChartAxis, ChartMark, ChartSeries, MarksChart
from pcaseg.data.scene_names import BACKGROUNDS, PAIRS, PART_NAMES
from pcaseg.data.scenes import SHOWN_PX, render_scene
from pcaseg.environment import flat_environment
from pcaseg.errors import PcasegError, reported
from pcaseg.evaluation.scene_suites import SCENES, SEED, SUITES, SuiteName, evaluate_scenes, model_segment
from pcaseg.export.torch_backend import TorchBackend
from pcaseg.files import atomic_path
from pcaseg.model.checkpoint import SHIPPED, open_model
from pcaseg.model.network import PCASeg
from pcaseg.paths import is_file, size_of
from pcaseg.runtime.segmenter import Segmenter
from pcaseg.text_tables import markdown_table
from pcaseg.training.loop import MODEL
from pcaseg.training.record import RECORD

RESULTS = Path(__file__).parent.parent / "results"
LARGEST_BYTES = 8_000_000
WEIGHTS, SHIPPED_RECORD = SHIPPED / "tiny.safetensors", SHIPPED / "tiny.json"

TARGETS: dict[SuiteName, float] = {"seen": 0.85, "held_out": 0.60, "parts": 0.65}
TITLES: dict[SuiteName, str] = {
    "seen": "colour and object, as in training",
    "held_out": "colour and object, pairs never trained",
    "parts": "parts, all names at once",
    "plain": "objects, all names at once",
    "seen_all": "as in training, all pairs at once",
    "held_out_all": "never trained, all pairs at once",
}
CURVE, PICTURE = "tiny_loss.svg", "tiny_scene.png"
CURVE_POINTS = 40
PICTURED = 3
"""Number of the scene of the picture."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Evaluates and ships; returns 0."""
    parser = Parser(prog="python -m pcaseg.benchmarks.studies.tiny", description=__doc__)
    parser.add_argument("run_folder", metavar="RUN", type=some_path)
    parser.add_argument("--scenes", type=up_to(100_000), default=SCENES, help="evaluated per suite")
    options = parser.parse_args(arguments)
    ship(options.run_folder, scenes=options.scenes)
    print(f"{WEIGHTS}\n{SHIPPED_RECORD}\n\n{scenes_table(read_record())}")
    return 0


def ship(run: Path, *, scenes: int = SCENES) -> None:
    """Evaluates the weights of a training and puts them, with their record, into the package.

    Raises:
        PcasegError: no such training, another preset's, or weights that are too large.
    """
    weights, record = run / MODEL, run / RECORD
    if not (is_file(weights) and is_file(record)):
        raise PcasegError(f"{run}: no finished training; give the --out folder of pcaseg train --preset tiny")
    model = open_model(weights)
    if model.preset.name != "tiny":
        raise PcasegError(f"{run}: a training of {model.preset.name}; only tiny's weights are shipped")
    if size_of(weights) > LARGEST_BYTES:
        raise PcasegError(f"{weights}: has {size_of(weights)} bytes; at most {LARGEST_BYTES} are shipped")
    found = evaluate_scenes(model_segment(model), scenes=scenes, progress=True)
    results = {suite: asdict(scores) for suite, scores in found.items()}
    content = json.loads(record.read_text(encoding="utf-8")) | {
        "results": results,
        "results_environment": flat_environment(),
    }
    with atomic_path(WEIGHTS) as temporary:
        shutil.copyfile(weights, temporary)
    with atomic_path(SHIPPED_RECORD) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    with atomic_path(RESULTS / PICTURE) as temporary:
        picture(model).save(temporary, format="PNG")


def picture(model: PCASeg) -> Image.Image:
    """A fresh scene with a pair that training never showed, and its labels by pairs and by parts, with legends."""
    scene = render_scene(PICTURED, seed=SEED, split="held-out", side=SHOWN_PX).image
    segmenter = Segmenter(TorchBackend(model), strategy="single")
    shown = [Image.fromarray(scene)]
    for names in (PAIRS, PART_NAMES):
        segmenter.set_vocabulary((*names, *BACKGROUNDS))
        shown.append(segmenter(scene).overlay())
    gap = 8
    canvas = Image.new("RGB", (sum(one.width + gap for one in shown) - gap, max(one.height for one in shown)), "white")
    left = 0
    for one in shown:
        canvas.paste(one, (left, 0))
        left += one.width + gap
    return canvas


def read_record() -> dict[str, Any]:
    """The record of the shipped weights."""
    content: dict[str, Any] = json.loads(SHIPPED_RECORD.read_text(encoding="utf-8"))
    return content


def scenes_table(record: Mapping[str, Any]) -> str:
    """mIoU by suite beside what was aimed at, in Markdown."""
    headers = ["names", "scenes", "names in the list", "mIoU", "target", "pixel accuracy"]
    rows = []
    for suite in SUITES:
        one = record["results"][suite]
        target = f"{TARGETS[suite]:.2f}" if suite in TARGETS else ""
        scores = [f"{one['miou']:.3f}", target, f"{one['pixel_accuracy']:.3f}"]
        rows.append([TITLES[suite], one["scenes"], f"{one['list_length']:.0f}", *scores])
    return markdown_table(headers, rows, align="lr")


def ablation_table(reports: Sequence[Mapping[str, Any]]) -> str:
    """Reports of `pcaseg.benchmarks.studies.ablation`, one per seed, in Markdown: all values, with commas between."""
    steps = {(report["tower_steps"], report["steps"], report["scenes"]) for report in reports}
    if len(steps) != 1:
        raise PcasegError(f"the ablations are of unequal steps or scenes: {sorted(steps)}; run them alike")
    ((tower_steps, whole_steps, scenes),) = steps
    seeds = ", ".join(str(report["seed"]) for report in reports)
    setting = (
        f"{tower_steps} steps of the towers, then {whole_steps} of each variant; mIoU on {scenes} scenes per column. "
        f"Seeds: {seeds}."
    )
    headers = ["aggregation", "parameters", "loss", "cosine of the streams", "as in training", "never trained", "parts"]
    lines = []
    for rows in zip(*(report["rows"] for report in reports), strict=True):
        cells = [", ".join(f"{row['loss']:.4f}" for row in rows)]
        cells.append(", ".join("" if row["fod"] is None else f"{row['fod'] ** 0.5:.2f}" for row in rows).strip(", "))
        cells += [", ".join(f"{row['miou'][suite]:.3f}" for row in rows) for suite in ("seen", "held_out", "parts")]
        lines.append([rows[0]["variant"], f"{rows[0]['parameters']:,}", *cells])
    return f"{setting}\n\n{markdown_table(headers, lines, align='lr')}"


def curve(record: Mapping[str, Any]) -> MarksChart:
    """The training's losses: means over some dozens of equal stretches of steps."""
    rows = [row for row in record["log"] if "loss" in row]
    names = {"towers": ("cosines of the towers", "eager"), "whole": ("logits", "folded")}
    stretch = max(row["step"] for row in rows) / CURVE_POINTS
    series = []
    for key, (title, colour) in names.items():
        places: dict[int, list[float]] = {}
        for row in rows:
            if key in row:
                places.setdefault(int((row["step"] - 1) / stretch), []).append(row[key])
        marks = tuple(ChartMark((place + 0.5) * stretch, sum(v) / len(v)) for place, v in sorted(places.items()))
        series.append(ChartSeries(title, colour, marks))
    return MarksChart(
        "Training of tiny",
        "Cross-entropy of the towers' cosines and of the logits, by step.",
        tuple(one for one in series if one.marks),
        ChartAxis("step"),
        ChartAxis("binary cross-entropy", "log"),
    )


if __name__ == "__main__":
    sys.exit(reported(main))
