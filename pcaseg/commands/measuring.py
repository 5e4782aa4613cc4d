"""`pcaseg check`, `bench` and `report`: whether a bundle is right, how fast it is, and what changed."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import get_args

from pcaseg.commands.arguments import EXIT_FAILED, EXIT_OK, add_backend, class_counts, gate, some_path
from pcaseg.commands.models import load_model, say_weights
from pcaseg.configs import Strategy
from pcaseg.errors import OutputError


def add_check(command: argparse.ArgumentParser) -> None:
    command.add_argument("bundle", type=Path)
    command.add_argument("--model", help="model file, if it is no longer where the bundle was exported from")
    command.add_argument("--images", nargs="+", type=Path, help="images or folders (default: built-in photographs)")
    command.add_argument(
        "--classes", type=class_counts, default=(59, 20, 5, 1), help="vocabulary sizes, such as 1,20,300"
    )
    command.add_argument("--strategy", choices=get_args(Strategy), help="default: the bundle's own, or single")
    command.add_argument(
        "--gate",
        type=gate,
        help="thresholds, such as relative_error=1e-3,label_agreement=0.99 (default: by the bundle's precision)",
    )
    command.add_argument("--json", type=some_path, help="write the rows to this file too")
    add_backend(command)
    command.set_defaults(run=run_check)


def run_check(options: argparse.Namespace) -> int:
    from tqdm import tqdm

    from pcaseg.benchmarks.check import (
        cases,
        check,
        is_report,
        photographs,
        table,
        verdict,
        write_report,
    )
    from pcaseg.benchmarks.gates import GATES
    from pcaseg.export.torch_backend import source_model
    from pcaseg.images import read_image
    from pcaseg.runtime.backends import open_backend
    from pcaseg.runtime.batch import expand_images
    from pcaseg.runtime.bundle import Bundle
    from pcaseg.runtime.segmenter import choose_strategy

    if options.json and options.json.exists() and not is_report(options.json):
        raise OutputError(f"{options.json}: exists and is not a report of pcaseg check; choose another name")
    bundle = Bundle(options.bundle)
    strategy = choose_strategy(bundle.manifest, options.strategy)
    bundle.verify()
    if options.images:
        images = {path.name: read_image(path) for path in expand_images(options.images)}
    else:
        images = photographs()
    backend = open_backend(options.backend, bundle, device=options.device, threads=options.threads)
    model = load_model(options.model) if options.model else source_model(bundle)
    gate = GATES[bundle.manifest.precision] | (options.gate or {})
    todo = cases(images, options.classes, strategy, image_size=bundle.manifest.image_size)
    rows = [check(model, backend, case, gate) for case in tqdm(todo, desc="check", unit="case")]
    print(table(rows))
    say_weights(bundle.manifest.weights.kind)
    passed = all(row.passed for row in rows)
    print(verdict(backend, rows, gate))
    if options.json:
        write_report(options.json, bundle, backend, rows)
    return EXIT_OK if passed else EXIT_FAILED
