"""`pcaseg datasets`: what there is, converting it, and whether it is whole."""

from __future__ import annotations

import argparse
from pathlib import Path

from pcaseg.arguments import EXIT_BAD_INPUT, EXIT_FAILED, EXIT_OK, natural, some_path
from pcaseg.errors import OutputError, PcasegError, print_error
from pcaseg.paths import exists

_SHOWN = 20


def add_datasets(command: argparse.ArgumentParser) -> None:
    actions = command.add_subparsers(metavar="ACTION", required=True)
    actions.add_parser("list", help="names, sizes and layouts").set_defaults(run=run_list)
    prepare = actions.add_parser("prepare", help="convert the published raw layout; goes on where it stopped")
    check = actions.add_parser("check", help="say what is missing or malformed in a prepared data set")
    for action, run in ((prepare, run_prepare), (check, run_check)):
        action.add_argument("name", metavar="NAME", help="of `pcaseg datasets list`")
        action.add_argument("--root", type=Path, required=True, help="folder of all data sets")
        action.add_argument("--split", choices=("train", "val"), help="left out: all that the data set has")
        action.set_defaults(run=run)
    scenes = actions.add_parser("scenes", help="render scenes with labels, which `tiny` is trained for")
    scenes.add_argument("--out", type=some_path, required=True, help="folder to write: classes.txt, images, labels")
    scenes.add_argument("--images", type=natural, default=12, help="how many (default: 12)")
    scenes.add_argument("--size", type=natural, help="pixels per side (default: 384)")
    scenes.set_defaults(run=run_scenes)


def run_list(options: argparse.Namespace) -> int:
    from pcaseg.data.specs import DATA_SETS

    print(f"{'data set':20} {'classes':>7} {'split':6} {'images':>7}  labels, under the root")
    for name, spec in DATA_SETS.items():
        for split, part in spec.splits.items():
            print(f"{name:20} {len(spec.names):7} {split:6} {part.count:7}  {part.labels}/*{spec.suffix}")
    return EXIT_OK


def run_prepare(options: argparse.Namespace) -> int:
    from pcaseg.data.prepare import prepare

    splits = (options.split,) if options.split else None
    result = prepare(options.name, options.root, splits=splits, progress=True)
    counts = f"{len(result.done)} converted, {len(result.skipped)} done before and skipped"
    if result.empty:
        counts += f", {len(result.empty)} left out without a labelled pixel"
    print(f"{options.name}: {counts}, {len(result.failed)} failed")
    _show([message for _, message in result.failed])
    return EXIT_BAD_INPUT if result.failed else EXIT_OK


def run_check(options: argparse.Namespace) -> int:
    from pcaseg.data.checking import check_prepared

    splits = (options.split,) if options.split else None
    found = check_prepared(options.name, options.root, splits=splits, progress=True)
    for one in found:
        print(f"{options.name}, {one.split}: {one.images} of {one.published} images are right")
        _show(one.problems)
    return EXIT_FAILED if any(one.problems for one in found) else EXIT_OK


def run_scenes(options: argparse.Namespace) -> int:
    from pcaseg.data.scenes import LARGEST_PX, MOST_SCENES, SCENE_PX, SHOWN_PX
    from pcaseg.evaluation.labelled_scenes import write_scenes
    from pcaseg.files import atomic_path

    if exists(options.out, error=OutputError):
        raise OutputError(f"{options.out}: exists; choose another folder")
    if not 1 <= options.images <= MOST_SCENES:
        raise PcasegError(f"--images {options.images}: give 1 to {MOST_SCENES}")
    side = SHOWN_PX if options.size is None else options.size
    if not SCENE_PX <= side <= LARGEST_PX:
        raise PcasegError(f"--size {side}: give {SCENE_PX} to {LARGEST_PX} pixels")
    with atomic_path(options.out, folder=True) as temporary:
        write_scenes(temporary, count=options.images, side=side, progress=True)
    print(f"{options.out}: {options.images} scenes, classes.txt, images and labels")
    return EXIT_OK


def _show(messages: list[str] | tuple[str, ...]) -> None:
    for message in messages[:_SHOWN]:
        print_error(message)
    if len(messages) > _SHOWN:
        print_error(f"{len(messages) - _SHOWN} more of the kind")
