"""The command `pcaseg`: each subcommand is a thin shell over one public function.

Nothing heavy is imported before a subcommand needs it: `pcaseg segment --bundle` starts without torch.
"""

from __future__ import annotations

import argparse
import io
import os
import signal
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import pcaseg
from pcaseg.class_lists import class_list_names
from pcaseg.class_names import check_class_names, split_class_names
from pcaseg.configs import (
    OPSET,
    OPSETS,
    Aggregation,
    DenseMode,
    GraphKind,
    LayerNormForm,
    Precision,
    Strategy,
    get_preset,
    presets,
)
from pcaseg.errors import OutputError, PcasegError, install_hint

if TYPE_CHECKING:
    from pcaseg.model.network import PCASeg
    from pcaseg.runtime.segmenter import Segmenter

EXIT_OK, EXIT_FAILED, EXIT_BAD_INPUT, EXIT_INTERRUPTED = 0, 1, 2, 130

WEIGHTS_NOTES = {
    "seeded": "note: these weights are drawn from a seed, not trained: the labels mean nothing",
    "clip-only": "note: CLIP's weights are real, the aggregator's are drawn from a seed: the labels mean nothing",
}


EXTRA_OF = {"onnxruntime": "onnxruntime", "skimage": "benchmarks"}
"""The pip extra that brings a module; every other optional one comes with `torch`."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code: 0 done, 1 a check failed, 2 input that cannot be used."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that lacks a letter is no reason to fail
    options = build_parser().parse_args(arguments)
    former = signal.signal(signal.SIGTERM, signal.default_int_handler)  # leave nothing half-written then either
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # each command says itself what its weights are
            code = options.run(options)
            sys.stdout.flush()
            return code
    except PcasegError as error:
        print(f"error: {error}", file=sys.stderr)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("pcaseg"):
            raise
        print(
            f"error: {error.name} is not installed; {install_hint(EXTRA_OF.get(error.name or '', 'torch'))}",
            file=sys.stderr,
        )
    except BrokenPipeError:  # whoever read our output has gone; what was written to files is whole
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except MemoryError:
        print("error: out of memory; try fewer classes, a smaller image, or --strategy single", file=sys.stderr)
    except KeyboardInterrupt:
        print("interrupted; finished files are whole, start again to go on", file=sys.stderr)
        return EXIT_INTERRUPTED
    finally:
        signal.signal(signal.SIGTERM, former)
    return EXIT_BAD_INPUT


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = argparse.ArgumentParser(prog="pcaseg", description="Deployment pipeline for PCA-Seg.")
    parser.add_argument("--version", action="version", version=f"pcaseg {pcaseg.__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    commands.add_parser("presets", help="list the model configurations").set_defaults(run=run_presets)
    _add_import(commands.add_parser("import", help="turn a published checkpoint into a model file"))
    _add_export(commands.add_parser("export", help="write a bundle that runs without torch"))
    _add_check(commands.add_parser("check", help="compare a bundle with the eager float32 model"))
    _add_segment(commands.add_parser("segment", help="segment images or folders of images"))
    _add_vocab(commands.add_parser("vocab", help="write a vocabulary file, for use without the text encoder"))
    return parser


def _add_import(command: argparse.ArgumentParser) -> None:
    command.add_argument("checkpoint", help=".pth, .pt or .safetensors of PCA-Seg, CAT-Seg, or CLIP alone")
    command.add_argument("--preset", required=True, help=f"one of {', '.join(presets())}")
    command.add_argument("--aggregation", choices=get_args(Aggregation), help="left out: as the names say")
    command.add_argument("--dense-mode", choices=get_args(DenseMode), default="csa")
    command.add_argument("--seed", type=natural, default=0, help="for the aggregator of a checkpoint of CLIP alone")
    command.add_argument("--out", required=True, type=some_path, help="model file to write, .safetensors")
    command.set_defaults(run=run_import)


def _add_export(command: argparse.ArgumentParser) -> None:
    command.add_argument("model", help="model file of `pcaseg import`, or a preset's name for seeded weights")
    command.add_argument("--out", required=True, type=some_path, help="bundle to write, NAME.pcaseg or NAME.pcaseg.zip")
    command.add_argument(
        "--graph", choices=get_args(GraphKind), default="logits", help="labels: whole images, all steps in the graph"
    )
    command.add_argument(
        "--strategy", choices=get_args(Strategy), help="of a graph of labels: single (default), or sliding: 5 passes"
    )
    command.add_argument(
        "--image-size", type=image_size, metavar="HEIGHTxWIDTH", help="fixes a graph of labels to it, such as 720x1280"
    )
    command.add_argument(
        "--precision",
        choices=get_args(Precision),
        default="float32",
        help="of weights and tensors; float16 keeps its delicate sums in float32",
    )
    command.add_argument("--opset", type=natural, default=OPSET, help=f"{OPSETS[0]} to {OPSETS[-1]} (default: {OPSET})")
    command.add_argument(
        "--layer-norm",
        choices=get_args(LayerNormForm),
        default="operator",
        help="decomposed: for parsers without LayerNormalization, such as TensorRT 8.5 with --opset 17",
    )
    command.add_argument("--overwrite", action="store_true", help="replace a bundle that stands there")
    command.set_defaults(run=run_export)


def _add_check(command: argparse.ArgumentParser) -> None:
    command.add_argument("bundle", type=Path)
    command.add_argument("--model", help="model file, if it is no longer where the bundle was exported from")
    command.add_argument("--images", nargs="+", type=Path, help="images or folders (default: built-in photographs)")
    command.add_argument(
        "--classes", type=class_counts, default=(59, 20, 5, 1), help="vocabulary sizes, such as 1,20,300"
    )
    command.add_argument("--strategy", choices=get_args(Strategy), help="default: the bundle's own, or single")
    command.add_argument(
        "--max-relative-error", type=float, default=1e-4, help="of logits; of a graph of labels, of confidence (0..1)"
    )
    command.add_argument("--min-label-agreement", type=float, default=0.999)
    command.add_argument("--json", type=some_path, help="write the rows to this file too")
    _add_backend(command)
    command.set_defaults(run=run_check)


def _add_segment(command: argparse.ArgumentParser) -> None:
    command.add_argument("images", nargs="+", metavar="IMAGE", help="image file or folder")
    _add_network(command)
    _add_vocabulary(command)
    command.add_argument(
        "--out", type=some_path, default=Path("segmented"), help="folder to write (default: segmented)"
    )
    command.add_argument(
        "--strategy", choices=get_args(Strategy), help="sliding: 5 passes, finer (default: the bundle's own, or single)"
    )
    _add_backend(command)
    command.set_defaults(run=run_segment)


def _add_vocab(command: argparse.ArgumentParser) -> None:
    _add_network(command)
    _add_vocabulary(command)
    command.add_argument("--out", required=True, type=some_path, help="vocabulary to write, .safetensors")
    _add_backend(command)
    command.set_defaults(run=run_vocab, strategy=None)


def _add_network(command: argparse.ArgumentParser) -> None:
    group = command.add_mutually_exclusive_group(required=True)
    group.add_argument("--bundle", type=Path, help="bundle of `pcaseg export`")
    group.add_argument("--model", help="model file of `pcaseg import`, or a preset's name for seeded weights; eager")


def _add_vocabulary(command: argparse.ArgumentParser) -> None:
    group = command.add_mutually_exclusive_group(required=True)
    group.add_argument("--classes", help='names: "cat, grass"; with synonyms "cat; tv monitor, television"')
    group.add_argument(
        "--vocabulary", help=f".safetensors or .txt file, or a class list: {', '.join(class_list_names())}"
    )


def _add_backend(command: argparse.ArgumentParser) -> None:
    command.add_argument("--backend", default="onnxruntime", help="what runs a bundle: onnxruntime (default) or torch")
    command.add_argument("--device", help="cpu (default), cuda or cuda:N")
    command.add_argument("--threads", type=natural, help="CPU threads")


def run_presets(options: argparse.Namespace) -> int:
    print(f"{'preset':14} {'image tower':12} {'input px':>8} {'grid':>7} {'embedding':>9}")
    for name in presets():
        p = get_preset(name)
        tower = f"{p.family} {p.vision_blocks} x {p.vision_width}"
        print(f"{name:14} {tower:12} {p.image_px:8} {f'{p.grid} x {p.grid}':>7} {p.embed_dim:9}")
    return EXIT_OK


def run_import(options: argparse.Namespace) -> int:
    from pcaseg.model.checkpoint import load_model, save_model
    from pcaseg.model.checkpoint_file import read_checkpoint, read_metadata
    from pcaseg.model.checkpoint_fit import stored_aggregation

    get_preset(options.preset)
    if options.out.suffix != ".safetensors":
        raise PcasegError(f"{options.out}: a model file ends in .safetensors; rename it")
    if options.out.exists() and Path(options.checkpoint).exists() and options.out.samefile(options.checkpoint):
        raise PcasegError(f"{options.out}: is the checkpoint itself; choose another name")
    if options.out.exists() and (options.out.is_dir() or read_metadata(options.out) is None):
        raise OutputError(f"{options.out}: exists and is not a model file of pcaseg; choose another name")
    aggregation = options.aggregation or stored_aggregation(read_checkpoint(options.checkpoint)) or "parallel"
    model = load_model(
        options.preset,
        options.checkpoint,
        aggregation=aggregation,
        dense_mode=options.dense_mode,
        seed=options.seed,
    )
    save_model(model, options.out)
    count = sum(parameter.numel() for parameter in model.parameters())
    print(f"{options.out}: {options.preset}, {aggregation}, {count / 1e6:.1f} million parameters")
    _say_weights(model.source.kind)
    return EXIT_OK


def run_export(options: argparse.Namespace) -> int:
    from pcaseg.export.bundle import check_destination, write_bundle
    from pcaseg.export.options import ExportOptions

    wanted = ExportOptions(
        graph=options.graph,
        strategy=options.strategy,
        image_size=options.image_size,
        precision=options.precision,
        opset=options.opset,
        layer_norm=options.layer_norm,
    )
    check_destination(options.out, overwrite=options.overwrite)
    model = _load_model(options.model)
    manifest = write_bundle(model, options.out, options=wanted, overwrite=options.overwrite, progress=True)
    size = sum(entry.bytes for entry in manifest.files.values())
    graph = f"{manifest.graph} ({manifest.strategy})" if manifest.strategy else manifest.graph
    print(
        f"{options.out}: {manifest.preset}, {manifest.aggregation}, {graph}, {manifest.precision}, "
        f"{size / 2**20:.0f} MiB"
    )
    _say_weights(manifest.weights.kind)
    return EXIT_OK


def run_check(options: argparse.Namespace) -> int:
    from tqdm import tqdm

    from pcaseg.benchmarks.check import (
        DEFAULTS,
        Thresholds,
        cases,
        check,
        is_report,
        photographs,
        table,
        verdict,
        write_report,
    )
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
    model = _load_model(options.model) if options.model else source_model(bundle)
    default = DEFAULTS[bundle.manifest.precision]
    thresholds = Thresholds(
        default.relative_error if options.max_relative_error is None else options.max_relative_error,
        default.label_agreement if options.min_label_agreement is None else options.min_label_agreement,
    )
    todo = cases(images, options.classes, strategy, image_size=bundle.manifest.image_size)
    rows = [check(model, backend, case, thresholds) for case in tqdm(todo, desc="check", unit="case")]
    print(table(rows))
    _say_weights(bundle.manifest.weights.kind)
    passed = all(row.passed for row in rows)
    print(verdict(backend, rows, thresholds))
    if options.json:
        write_report(options.json, bundle, backend, rows)
    return EXIT_OK if passed else EXIT_FAILED


def run_segment(options: argparse.Namespace) -> int:
    from pcaseg.runtime.batch import expand_images, segment_files

    images = expand_images(options.images)
    segmenter = _open_segmenter(options)
    _make_folder(options.out)
    batch = segment_files(segmenter, images, options.out, progress=len(images) > 1)
    if batch.last is not None and len(images) == 1:
        result, paths = batch.last
        for name, pixels in sorted(zip(result.classes, result.class_pixels(), strict=True), key=lambda x: -x[1])[:10]:
            print(f"{pixels / result.labels.size:7.1%}  {name}")
        print(f"overlay: {paths['overlay']}\nlabels:  {paths['labels']}\nsummary: {paths['summary']}")
        print(f"{result.backend}, {result.timings_ms['total']:.0f} ms")
    else:
        done, skipped = len(batch.done), len(batch.skipped)
        print(f"{options.out}: {done} segmented, {skipped} done before and skipped, {len(batch.failed)} failed")
    if batch.done:
        _say_weights(segmenter.backend.manifest.weights.kind)
    for _, message in batch.failed:
        print(f"error: {message}", file=sys.stderr)
    return EXIT_BAD_INPUT if batch.failed else EXIT_OK


def run_vocab(options: argparse.Namespace) -> int:
    from pcaseg.runtime.vocabulary import Vocabulary

    if options.out.suffix != ".safetensors":
        raise PcasegError(f"{options.out}: a vocabulary file ends in .safetensors; rename it")
    if options.out.exists():
        Vocabulary.load(options.out)  # refuses a file of another kind
    segmenter = _open_segmenter(options)
    assert segmenter.vocabulary is not None  # _open_segmenter sets it
    segmenter.vocabulary.save(options.out)
    print(f"{options.out}: {len(segmenter.vocabulary.names)} classes")
    _say_weights(segmenter.backend.manifest.weights.kind)
    return EXIT_OK


def _open_segmenter(options: argparse.Namespace) -> Segmenter:
    """The segmenter and vocabulary that the options name; class names are checked before anything is loaded."""
    from pcaseg.runtime.segmenter import Segmenter

    vocabulary = options.vocabulary
    if options.classes is not None:
        vocabulary = check_class_names(split_class_names(options.classes), source="--classes")
    if options.model:
        from pcaseg.export.torch_backend import TorchBackend

        backend = TorchBackend(_load_model(options.model), device=options.device, threads=options.threads)
        segmenter = Segmenter(backend, strategy=options.strategy)
    else:
        segmenter = Segmenter(
            options.bundle, options.backend, device=options.device, threads=options.threads, strategy=options.strategy
        )
    segmenter.set_vocabulary(vocabulary)
    return segmenter


def _load_model(model: str) -> PCASeg:
    """A preset's name gives seeded weights; anything else is a model file."""
    from pcaseg.model.checkpoint import load_model, load_saved_model

    return load_model(model) if model in presets() else load_saved_model(model)


def _make_folder(out: Path) -> None:
    """Makes the output folder before the work, not after it."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{out}: no folder can be made there ({error.strerror}); choose another") from error


def _say_weights(kind: str) -> None:
    if kind in WEIGHTS_NOTES:
        print(WEIGHTS_NOTES[kind])


def natural(text: str) -> int:
    """A whole number from 0, for argparse."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r}: give a whole number from 0")
    return int(text)


def image_size(text: str) -> tuple[int, int]:
    """(height, width) from `720x1280`, for argparse; their range is checked by what uses them."""
    sides = text.split("x")
    if len(sides) != 2 or not all(side.isdecimal() and side.isascii() for side in sides):
        raise argparse.ArgumentTypeError(f"{text!r}: give height x width in pixels, such as 720x1280")
    return int(sides[0]), int(sides[1])


def some_path(text: str) -> Path:
    """A path that is not empty, for argparse."""
    if not text.strip():
        raise argparse.ArgumentTypeError("the path is empty; name a place")
    return Path(text)


def class_counts(text: str) -> tuple[int, ...]:
    """Vocabulary sizes with commas between, for argparse."""
    parts = text.split(",")
    if not all(part.strip().isdecimal() and 1 <= int(part) <= 847 for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r}: give sizes from 1 to 847, such as 1,20,300")
    return tuple(int(part) for part in parts)


if __name__ == "__main__":
    sys.exit(main())
