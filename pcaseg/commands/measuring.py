"""`pcaseg check`, `bench` and `report`: whether a bundle is right, how fast it is, and what changed."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from pcaseg.arguments import (
    CORES,
    EXIT_FAILED,
    EXIT_OK,
    choices,
    class_counts,
    counts,
    image_size,
    seconds,
    share,
    some_path,
)
from pcaseg.commands.models import say_weights
from pcaseg.commands.options import add_backend, backend_options, backends, gate
from pcaseg.configs import TRAINED, Strategy, TorchPrecision
from pcaseg.errors import OutputError, PcasegError
from pcaseg.files import atomic_path

if TYPE_CHECKING:
    from pcaseg.benchmarks.rows import BenchRow
    from pcaseg.runtime.manifest import Manifest

LABELLED_HELP = "for mIoU: a folder with classes.txt, images/ and labels/, or `scenes` for 200 rendered ones"


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
    command.add_argument(
        "--labelled", help=f"{LABELLED_HELP} (default: scenes, for a trained bundle of the preset tiny)"
    )
    command.add_argument("--json", type=some_path, help="write the rows to this file too")
    add_backend(command)
    command.set_defaults(run=run_check)


def run_check(options: argparse.Namespace) -> int:
    from tqdm import tqdm

    from pcaseg.evaluation.agreement import (
        cases,
        check,
        check_labelled,
        is_report,
        labelled_verdict,
        photographs,
        table,
        verdict,
        write_report,
    )
    from pcaseg.evaluation.gates import default_gate, labelled_gate
    from pcaseg.evaluation.labelled_scenes import open_labelled
    from pcaseg.export.torch_backend import source_model
    from pcaseg.images import read_image
    from pcaseg.model.checkpoint import open_model
    from pcaseg.runtime.backends import open_backend
    from pcaseg.runtime.batch import expand_images
    from pcaseg.runtime.bundle import Bundle
    from pcaseg.runtime.engines import EIGHT_BITS
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
    backend = open_backend(
        options.backend, bundle, device=options.device, threads=options.threads, options=backend_options(options)
    )
    model = open_model(options.model) if options.model else source_model(bundle)
    manifest = bundle.manifest
    asked, weights = options.gate or {}, manifest.weights.kind
    precision = options.engine_precision if options.engine_precision in EIGHT_BITS else manifest.precision
    gate = default_gate(precision, weights) | labelled_gate(precision, weights) | asked
    bound = gate.pop("miou_difference", None)
    if not gate:
        raise PcasegError(
            f"{bundle.path}: its weights were never trained, so labels in {precision} prove nothing; give --gate"
        )
    todo = cases(images, options.classes, strategy, image_size=manifest.image_size)
    with open_labelled(_labelled_source(options.labelled, manifest, asked.get("miou_difference"))) as labelled:
        rows = [check(model, backend, case, gate) for case in tqdm(todo, desc="check", unit="case")]
        scored = check_labelled(model, backend, labelled, strategy, bound, progress=True) if labelled else None
    print(table(rows))
    say_weights(manifest.weights.kind)
    print(verdict(backend, rows, gate))
    if scored:
        print(labelled_verdict(scored))
    if options.json:
        write_report(options.json, bundle, backend, rows, scored, precision=precision)
    passed = all(row.passed for row in rows) and (scored is None or scored.passed)
    return EXIT_OK if passed else EXIT_FAILED


def _labelled_source(asked: str | None, manifest: Manifest, bound: float | None) -> str | None:
    """What to measure mIoU on: what was asked for, or the scenes for a bundle that was trained on such."""
    if asked is None and manifest.preset == "tiny" and manifest.weights.kind in TRAINED:
        asked = None if manifest.image_size else "scenes"
    if asked is None and bound is not None:
        raise PcasegError("gate miou_difference: there is no labelled set to measure it on; give --labelled")
    return asked


def add_bench(command: argparse.ArgumentParser) -> None:
    command.add_argument("target", metavar="BUNDLE|PRESET", help="a bundle, or a preset's name for seeded weights")
    command.add_argument("--model", help="model file, if it is no longer where the bundle was exported from")
    command.add_argument("--classes", type=class_counts, default=(20,), help="vocabulary sizes (default: 20)")
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
    from pcaseg.benchmarks.bench import bench
    from pcaseg.benchmarks.bench_table import tables, verdict
    from pcaseg.benchmarks.device import check_device
    from pcaseg.benchmarks.plan import BenchOptions
    from pcaseg.benchmarks.rows import append_rows, check_destination
    from pcaseg.benchmarks.targets import open_target
    from pcaseg.evaluation.labelled_scenes import open_labelled
    from pcaseg.runtime.batch import expand_images

    if options.html:
        _check_report(options.html)
    if options.out:
        if options.html and options.out.resolve() == options.html.resolve():
            raise OutputError(f"{options.out}: rows and report are two files; give two names")
        check_destination(options.out)
    check_device(options.device)
    photos = expand_images(options.photos) if options.photos else None
    with (
        open_labelled(options.labelled) as labelled,
        open_target(
            options.target,
            model_path=options.model,
            precisions=options.precision,
            photos=photos,
            image_size=options.image_size,
            strategies=options.strategy,
        ) as (target, precisions, strategies),
    ):
        plan = BenchOptions(
            classes=options.classes,
            images=options.batch,
            strategies=strategies,
            precisions=precisions,
            threads=options.threads,
            streams=options.streams,
            backends=options.backends,
            device=options.device,
            seconds=options.seconds,
            gate=options.gate or {},
            labelled=labelled,
            cold=not options.no_cold,
        )
        rows = []
        for row in bench(target, plan, progress=True):
            rows.append(row)
            if options.out:
                append_rows(options.out, [row])
    print(tables(rows))
    say_weights(rows[0].weights)
    if all(row.status == "skipped" for row in rows):
        raise PcasegError(
            "nothing was measured: no backend that was asked for runs here; choose others with --backends"
        )
    print(verdict(rows))
    if options.html:
        _write_report(options.html, rows)
    return EXIT_FAILED if any(row.status == "failed" for row in rows) else EXIT_OK


def add_report(command: argparse.ArgumentParser) -> None:
    command.add_argument("rows", nargs="+", type=Path, help="files of pcaseg bench --out; two are compared")
    command.add_argument("--html", type=some_path, help="write one page of all rows instead")
    command.add_argument(
        "--threshold", type=share, default=0.05, help="slower by more is a regression (default: 0.05, which is 5 %%)"
    )
    command.add_argument("--any-machine", action="store_true", help="compare times of different machines too")
    command.set_defaults(run=run_report)


def run_report(options: argparse.Namespace) -> int:
    from pcaseg.benchmarks.bench_table import tables
    from pcaseg.benchmarks.compare import compare, comparison_table
    from pcaseg.benchmarks.rows import read_rows

    if options.html:
        _write_report(options.html, read_rows(options.rows))
        return EXIT_OK
    if len(options.rows) == 1:
        print(tables(read_rows(options.rows)))
        return EXIT_OK
    if len(options.rows) > 2:
        raise PcasegError("rows: two files are compared, or any number written with --html; leave some out")
    before, after = (read_rows([path]) for path in options.rows)
    found = compare(before, after, threshold=options.threshold, allow_different_machines=options.any_machine)
    print(comparison_table(found))
    return EXIT_FAILED if any(one.regressions for one in found) else EXIT_OK


def _check_report(path: Path) -> None:
    """Refuses to write a page over anything but a former one, or where none can be."""
    from pcaseg.benchmarks.report import MARK

    if path.exists() and not (path.is_file() and MARK in path.read_text(encoding="utf-8", errors="replace")[:2000]):
        raise OutputError(f"{path}: exists and is not a report of pcaseg; choose another name")
    with atomic_path(path, keep=False):
        pass


def _write_report(path: Path, rows: Sequence[BenchRow]) -> None:
    from pcaseg.benchmarks.report import html_report

    _check_report(path)
    page = html_report(rows)
    with atomic_path(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    print(f"report: {path}")
