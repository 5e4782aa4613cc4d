"""`pcaseg evaluate`: how well a network segments a labelled data set."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import get_args

from pcaseg.arguments import EXIT_BAD_INPUT, EXIT_OK, MOST_PROCESSES, natural, some_path, up_to
from pcaseg.commands.options import (
    add_backend,
    add_ray,
    add_shortlist,
    backend_options,
    ray_pool,
    refuse_backend_options,
)
from pcaseg.configs import Strategy
from pcaseg.errors import print_error


def add_evaluate(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--data", required=True, help="of `pcaseg datasets list`, or a folder with classes.txt, images/ and labels/"
    )
    command.add_argument("--root", type=Path, help="folder of all data sets")
    command.add_argument("--split", choices=("train", "val"), default="val")
    command.add_argument("--model", help="model file of `pcaseg import`, or a preset's name; eager")
    command.add_argument("--bundle", type=Path, help="bundle of `pcaseg export`; with --model too, both side by side")
    add_backend(command)
    add_shortlist(command)
    command.add_argument(
        "--strategy", choices=get_args(Strategy), help="default: the bundle's own, or sliding, the published protocol"
    )
    command.add_argument("--images", type=natural, help="so many images, spread over the data set (default: all)")
    command.add_argument(
        "--processes", type=up_to(MOST_PROCESSES), default=1, help="that share this machine (default: 1)"
    )
    add_ray(command)
    command.add_argument("--shard", type=shard, default=(1, 1), metavar="I/N", help="the I-th of N parts alone")
    command.add_argument("--out", required=True, type=some_path, help="folder for counts, results.json and results.md")
    command.set_defaults(run=run_evaluate)


def run_evaluate(options: argparse.Namespace) -> int:
    from pcaseg.evaluation.evaluate import evaluate
    from pcaseg.evaluation.results import markdown

    pool = ray_pool(options, processes=options.processes > 1, model=options.model is not None)
    if not options.bundle:
        refuse_backend_options(options)
    found = evaluate(
        options.data,
        out=options.out,
        model=options.model or None,
        bundle=options.bundle,
        root=options.root,
        split=options.split,
        strategy=options.strategy,
        images=options.images,
        shard=options.shard,
        processes=options.processes,
        backend=options.backend,
        device=options.device,
        threads=options.threads,
        backend_options=backend_options(options),
        shortlist=options.shortlist,
        ray=pool,
        progress=True,
    )
    if found.failed:
        print(
            f"{found.out}: {found.images - found.missing} of {found.images} images evaluated, {len(found.failed)} "
            "failed; results need all of them: mend these and start again"
        )
        for message in found.failed:
            print_error(message)
        return EXIT_BAD_INPUT
    if found.results is None:
        print(
            f"{found.out}: {found.missing} of {found.images} images are in other shards; run them into this folder too"
        )
        return EXIT_OK
    print(markdown(found.results).partition("\n| class")[0].rstrip())
    print(f"\nresults: {found.paths[0]}\ntables:  {found.paths[1]}")
    return EXIT_OK


def shard(text: str) -> tuple[int, int]:
    """(i, n) from `i/n`, for argparse."""
    first, _, of = text.partition("/")
    if not (first.isdecimal() and of.isdecimal() and 1 <= int(first) <= int(of)):
        raise argparse.ArgumentTypeError(f"{text!r}: give i/n with i from 1 to n, such as 1/4")
    return int(first), int(of)
