"""The command `pcaseg bench`."""

from __future__ import annotations

import argparse
from pathlib import Path

from pcaseg.arguments import (
    CORES,
    EXIT_FAILED,
    EXIT_OK,
    choices,
    class_counts,
    counts,
    image_size,
    seconds,
    some_path,
)
from pcaseg.commands.options import LABELLED_HELP, add_shortlist, backends, gate, say_weights
from pcaseg.commands.reporting import check_page, write_page
from pcaseg.configs import Strategy, TorchPrecision
from pcaseg.errors import OutputError, PcasegError
from pcaseg.paths import real_path


def add_bench(command: argparse.ArgumentParser) -> None:
    command.add_argument("target", metavar="BUNDLE|PRESET", help="a bundle, or a preset's name for seeded weights")
    command.add_argument("--model", help="model file, if it is no longer where the bundle was exported from")
    command.add_argument("--classes", type=class_counts, default=(20,), help="vocabulary sizes (default: 20)")
    add_shortlist(command)
    command.add_argument("--batch", type=counts(1024), default=(1,), help="images of one call (default: 1)")
    command.add_argument("--strategy", type=choices(Strategy), help="single, sliding or both (default: single)")
    command.add_argument(
        "--precision",
        type=choices(TorchPrecision),
        help="float32, float16, bfloat16, with commas; a preset is exported in each (default: the bundle's)",
    )
    command.add_argument("--threads", type=counts(CORES), default=(), help="CPU threads (default: all)")
    command.add_argument("--streams", type=counts(64), default=(1,), help="calls at the same time (default: 1)")
    command.add_argument("--backends", type=backends, help="with commas, or all (default: those that start quickly)")
    command.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    command.add_argument("--photos", nargs="+", type=Path, help="images or folders, resized to the first one's size")
    command.add_argument(
        "--image-size",
        type=image_size,
        metavar="HEIGHTxWIDTH",
        help="of the images (default: 480x640)",
    )
    command.add_argument("--seconds", type=seconds, default=30.0, help="of taking turns at each point (default: 30)")
    command.add_argument("--gate", type=gate, help="thresholds, such as relative_error=1e-3,label_agreement=0.99")
    command.add_argument("--labelled", help=LABELLED_HELP)
    command.add_argument("--no-cold", action="store_true", help="leave cold starts and peak memory out")
    command.add_argument("--out", type=some_path, help="file of rows to add to, .jsonl")
    command.add_argument("--html", type=some_path, help="report to write, a page that needs no network")
    command.set_defaults(run=run_bench)


def run_bench(options: argparse.Namespace) -> int:
    from pcaseg.benchmarks.bench_table import tables, verdict
    from pcaseg.benchmarks.benchmark import benchmark

    if options.html:
        check_page(options.html)
        if options.out and real_path(options.out) == real_path(options.html):
            raise OutputError(f"{options.out}: rows and report are two files; give two names")
    rows = benchmark(
        options.target,
        model=options.model,
        classes=options.classes,
        batch=options.batch,
        strategies=options.strategy,
        precisions=options.precision,
        threads=options.threads,
        streams=options.streams,
        backends=options.backends,
        device=options.device,
        photos=options.photos,
        image_size=options.image_size,
        seconds=options.seconds,
        gate=options.gate,
        labelled=options.labelled,
        cold=not options.no_cold,
        shortlist=options.shortlist,
        out=options.out,
        progress=True,
    )
    print(tables(rows))
    say_weights(rows[0].weights)
    if all(row.status == "skipped" for row in rows):
        raise PcasegError(
            "nothing was measured: no backend that was asked for runs here; choose others with --backends"
        )
    print(verdict(rows))
    if options.html:
        write_page(options.html, rows)
    return EXIT_FAILED if any(row.status == "failed" for row in rows) else EXIT_OK
