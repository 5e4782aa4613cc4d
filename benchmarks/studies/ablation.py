"""Ablation of the paper's ideas: `python -m pcaseg.benchmarks.studies.ablation --out FILE`.

Variants of `tiny` are trained alike. The towers are trained once, as CLIP's are before PCA-Seg; every variant then
starts from them, with the same scenes in the same order and the same number of steps. Started again with the same
`--work`, it goes on where it stopped.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from pcaseg.arguments import CORES, Parser, natural, rows_file, some_path, up_to
from pcaseg.configs import Aggregation
from pcaseg.data.scene_stream import TinyStream
from pcaseg.environment import write_rows
from pcaseg.errors import reported
from pcaseg.evaluation.scene_suites import SCENES, SuiteName, evaluate_scenes, model_segment
from pcaseg.model.checkpoint import load_model, open_model
from pcaseg.model.names import to_published
from pcaseg.model.network import PCASeg
from pcaseg.paths import exists
from pcaseg.training.log import read_log
from pcaseg.training.loop import MODEL, RunOptions, train
from pcaseg.training.recipes import TINY, Recipe

PRESET = "tiny"
TOWERS = ("image_tower.", "text_tower.")
SUITES: tuple[SuiteName, ...] = ("seen", "held_out", "parts")


@dataclass(frozen=True)
class AblationVariant:
    """One line of the table."""

    title: str
    aggregation: Aggregation
    fod_weight: float


VARIANTS = (
    AblationVariant("serial", "serial", 0.0),
    AblationVariant("parallel", "added", 0.0),
    AblationVariant("parallel, EPL", "parallel", 0.0),
    AblationVariant("parallel, EPL, FOD", "parallel", TINY.fod_weight),
)


@dataclass(frozen=True)
class AblationRow:
    """Results of one variant.

    Attributes:
        variant: its title.
        parameters: of the aggregator.
        loss: cross-entropy of the logits, mean of the log's rows in the last tenth of the steps.
        fod: squared cosine of the two streams, likewise; None where the aggregation has one stream.
        miou: by suite of scenes, 0 to 1.
    """

    variant: str
    parameters: int
    loss: float
    fod: float | None
    miou: dict[str, float]


def main(arguments: Sequence[str] | None = None) -> int:
    """Trains, evaluates and writes the rows; returns 0."""
    parser = Parser(prog="python -m pcaseg.benchmarks.studies.ablation", description=__doc__)
    parser.add_argument("--out", type=rows_file, required=True, help="JSON file of rows")
    parser.add_argument("--work", type=some_path, default=Path("ablation"), help="folder of the trainings")
    parser.add_argument("--tower-steps", type=up_to(1_000_000), default=1500)
    parser.add_argument("--steps", type=up_to(1_000_000), default=600, help="of each variant")
    parser.add_argument("--scenes", type=up_to(100_000), default=SCENES, help="evaluated per suite")
    parser.add_argument("--seed", type=natural, default=0)
    parser.add_argument("--threads", type=up_to(CORES))
    options = parser.parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    work = options.work / f"seed{options.seed}-towers{options.tower_steps}-steps{options.steps}"
    towers = _towers(work / "towers", options.tower_steps, options.seed)
    rows = []
    for number, variant in enumerate(VARIANTS):
        print(variant.title, file=sys.stderr)
        folder = work / f"variant{number}"
        rows.append(_row(variant, folder, towers, options.steps, options.scenes, options.seed))
    subject = {"tower_steps": options.tower_steps, "steps": options.steps, "scenes": options.scenes}
    write_rows(options.out, rows, preset=PRESET, seed=options.seed, **subject)
    print(f"{options.out}: {len(rows)} variants")
    return 0


def _towers(folder: Path, steps: int, seed: int) -> dict[str, torch.Tensor]:
    """The trained towers, with the published names."""
    recipe = replace(TINY, stages=(replace(TINY.stages[0], steps=steps),))
    model = _trained(_drawn({}, "parallel", seed), recipe, folder, seed)
    return to_published({n: t for n, t in model.state_dict().items() if n.startswith(TOWERS)}, model.preset)


def _row(
    variant: AblationVariant, folder: Path, towers: dict[str, torch.Tensor], steps: int, scenes: int, seed: int
) -> AblationRow:
    recipe = replace(TINY, stages=(replace(TINY.stages[1], steps=steps),), fod_weight=variant.fod_weight)
    model = _trained(_drawn(towers, variant.aggregation, seed), recipe, folder, seed)
    last = [row for row in read_log(folder) if "whole" in row and row["step"] > 0.9 * steps]
    found = evaluate_scenes(model_segment(model), SUITES, scenes=scenes, progress=True)
    fods = [row["fod"] for row in last if "fod" in row]
    return AblationRow(
        variant=variant.title,
        parameters=sum(parameter.numel() for parameter in model.aggregator.parameters()),
        loss=sum(row["whole"] for row in last) / len(last),
        fod=sum(fods) / len(fods) if fods else None,
        miou={suite: one.miou for suite, one in found.items()},
    )


def _drawn(towers: dict[str, torch.Tensor], aggregation: Aggregation, seed: int) -> PCASeg:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what is drawn is trained next
        return load_model(PRESET, towers, aggregation=aggregation, seed=seed)


def _trained(model: PCASeg, recipe: Recipe, folder: Path, seed: int) -> PCASeg:
    """The model after the recipe; a training that is done is read, one that was stopped goes on."""
    if not exists(folder / MODEL):
        run = RunOptions(resume="if-possible", log_every=max(1, min(10, recipe.steps // 10)), progress=True)
        train(model, recipe, TinyStream(seed), folder, data="scenes", seed=seed, options=run)
    return open_model(folder / MODEL)


if __name__ == "__main__":
    sys.exit(reported(main))
