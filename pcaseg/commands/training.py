"""The command `pcaseg train`."""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, get_args

from pcaseg.arguments import CORES, EXIT_OK, MOST_PROCESSES, natural, some_path, up_to, weight
from pcaseg.configs import Aggregation, get_preset, presets
from pcaseg.errors import PcasegError

if TYPE_CHECKING:
    from pcaseg.data.batches import TrainingStream
    from pcaseg.training.loop import Evaluation

TRAINING_DATA = "coco_stuff_171"
EVALUATED_SCENES = 60
"""Scenes per suite in the evaluations on the way."""


def add_train(command: argparse.ArgumentParser) -> None:
    command.add_argument("--preset", required=True, help=f"one of {', '.join(presets())}")
    command.add_argument("--out", type=some_path, required=True, help="folder for checkpoint, log and weights")
    command.add_argument("--data", type=some_path, metavar="ROOT", help="folder of the data sets; tiny needs none")
    command.add_argument("--clip", type=some_path, metavar="CHECKPOINT", help="CLIP's weights; tiny needs none")
    command.add_argument("--resume", action="store_true", help="go on from the checkpoint in --out, if there is one")
    command.add_argument("--steps", type=natural, help="shrink or stretch the recipe to so many")
    command.add_argument("--seed", type=natural, default=0, help="of drawn weights and data (default: 0)")
    command.add_argument(
        "--aggregation",
        choices=get_args(Aggregation),
        default="parallel",
        help="parallel (PCA-Seg, default), serial (CAT-Seg), or added: parallel without EPL",
    )
    command.add_argument("--fod-weight", type=weight, help="of the FOD term (default: 0.001); 0 turns it off")
    command.add_argument("--precision", choices=("float32", "float16", "bfloat16"), help="default: as the device likes")
    command.add_argument("--device", help="cpu, cuda or cuda:N; default: a GPU where there is one")
    command.add_argument("--threads", type=up_to(CORES), help="CPU threads of each process")
    command.add_argument(
        "--workers", type=up_to(MOST_PROCESSES, least=0), help="processes that make batches ahead (default: 4; tiny: 0)"
    )
    command.add_argument(
        "--checkpoint-every", type=natural, metavar="STEPS", help="default: 500, or a tenth of all if that is less"
    )
    command.add_argument("--log-every", type=natural, default=20, metavar="STEPS", help="rows of log.jsonl (20)")
    command.add_argument("--evaluate-every", type=natural, default=0, metavar="STEPS", help="tiny only; default: never")
    command.add_argument("--tensorboard", action="store_true", help="write scalars for TensorBoard too")
    command.set_defaults(run=run_train)


def run_train(options: argparse.Namespace) -> int:
    import torch

    from pcaseg.environment import flat_environment
    from pcaseg.model.checkpoint import load_model
    from pcaseg.training.loop import RunOptions, train
    from pcaseg.training.recipes import recipe_of
    from pcaseg.training.record import is_recorded, write_record

    begin, preset, environment = time.time(), get_preset(options.preset), flat_environment()
    _check(options)
    if options.threads:
        torch.set_num_threads(options.threads)
    recipe = recipe_of(preset)
    recipe = recipe if options.steps is None else recipe.scaled(options.steps)
    recipe = recipe if options.fod_weight is None else replace(recipe, fod_weight=options.fod_weight)
    stream, data = _stream(options)
    model = load_model(preset, options.clip or {}, aggregation=options.aggregation, seed=options.seed)
    if options.clip and model.source.kind != "clip-only":
        raise PcasegError(f"{options.clip}: holds a whole model, not CLIP alone; give CLIP's own checkpoint to --clip")
    tiny = preset.name == "tiny"
    run = RunOptions(
        resume="if-possible" if options.resume else "never",
        device=options.device,
        workers=(0 if tiny else 4) if options.workers is None else options.workers,
        checkpoint_every=options.checkpoint_every or min(500, max(1, recipe.steps // 10)),
        log_every=options.log_every,
        evaluate_every=options.evaluate_every,
        storage="float16" if tiny else "float32",
        tensorboard=options.tensorboard,
        progress=True,
    )
    weights = train(
        model, recipe, stream, options.out, data=data, seed=options.seed, precision=options.precision, options=run,
        evaluate=_scene_evaluation() if tiny else None,
    )  # fmt: skip
    if weights is None:  # the first process writes for all
        return EXIT_OK
    if not is_recorded(weights):  # else it was finished before
        write_record(
            weights,
            command=options.command_line,
            data=data,
            seed=options.seed,
            recipe=asdict(recipe),
            seconds=time.time() - begin,
            environment=environment,
        )
    print(f"{weights}: {preset.name}, {options.aggregation}, {recipe.steps} steps")
    return EXIT_OK


def _check(options: argparse.Namespace) -> None:
    """Refuses options that do not go together before anything is loaded."""
    for name in ("checkpoint_every", "log_every"):
        if getattr(options, name) == 0:
            raise PcasegError(f"--{name.replace('_', '-')}: give 1 or more")
    if options.preset == "tiny":
        for name in ("data", "clip"):
            if getattr(options, name):
                raise PcasegError(f"--{name}: tiny is trained on scenes that the project renders; leave it out")
        return
    if not options.data:
        raise PcasegError("--data: is needed for this preset; give the folder of the data sets")
    if not options.clip:
        raise PcasegError("--clip: is needed for this preset; give CLIP's checkpoint, from which training starts")
    if options.evaluate_every:
        raise PcasegError("--evaluate-every: only tiny is evaluated on the way; leave it out and use pcaseg evaluate")


def _stream(options: argparse.Namespace) -> tuple[TrainingStream, str]:
    if options.preset == "tiny":
        from pcaseg.data.scene_stream import TinyStream

        return TinyStream(options.seed), "scenes"
    from pcaseg.data.crop_stream import CropStream
    from pcaseg.data.folders import open_prepared

    folder = open_prepared(TRAINING_DATA, options.data, split="train")
    return CropStream(folder, options.seed), f"{TRAINING_DATA}, {len(folder)} images"


def _scene_evaluation() -> Evaluation:
    from pcaseg.evaluation.scene_suites import evaluate_scenes, model_segment

    def evaluate(model):
        scores = evaluate_scenes(model_segment(model), scenes=EVALUATED_SCENES)
        return {suite: one.miou for suite, one in scores.items()}

    return evaluate
