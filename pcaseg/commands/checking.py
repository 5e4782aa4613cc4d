"""The command `pcaseg check`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import get_args

from pcaseg.arguments import EXIT_FAILED, EXIT_OK, class_counts, some_path
from pcaseg.commands.options import LABELLED_HELP, add_backend, add_shortlist, backend_options, gate, say_weights
from pcaseg.configs import Strategy


def add_check(command: argparse.ArgumentParser) -> None:
    command.add_argument("bundle", type=Path)
    command.add_argument("--model", help="model file, if it is no longer where the bundle was exported from")
    command.add_argument("--images", nargs="+", type=Path, help="images or folders (default: built-in photographs)")
    command.add_argument(
        "--classes", type=class_counts, default=(59, 20, 5, 1), help="vocabulary sizes, such as 1,20,300"
    )
    add_shortlist(command)
    command.add_argument("--strategy", choices=get_args(Strategy), help="default: the bundle's own, or single")
    command.add_argument(
        "--gate",
        type=gate,
        help="thresholds, such as relative_error=1e-3,label_agreement=0.99 (default: by the bundle's precision)",
    )
    command.add_argument(
        "--labelled", help=f"{LABELLED_HELP} (default: scenes, for a trained bundle of the preset tiny)"
    )
    command.add_argument("--json", type=some_path, help="write the rows to this file too")
    add_backend(command)
    command.set_defaults(run=run_check)


def run_check(options: argparse.Namespace) -> int:
    from pcaseg.evaluation.check import check_bundle, refuse_foreign_report

    if options.json:
        refuse_foreign_report(options.json)
    report = check_bundle(
        options.bundle,
        model=options.model,
        images=options.images,
        classes=options.classes,
        strategy=options.strategy,
        gate=options.gate,
        labelled=options.labelled,
        backend=options.backend,
        device=options.device,
        threads=options.threads,
        backend_options=backend_options(options),
        shortlist=options.shortlist,
        progress=True,
    )
    print(report.table())
    say_weights(report.weights)
    print(report.verdict())
    if report.labelled:
        print(report.labelled.verdict())
    if options.json:
        report.write(options.json)
    return EXIT_OK if report.passed else EXIT_FAILED
