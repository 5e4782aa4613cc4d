"""The command `pcaseg`: each subcommand is a thin shell over one public function.

Nothing heavy is imported before a subcommand needs it: `pcaseg segment --bundle` starts without torch.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import pcaseg
from pcaseg.class_lists import class_list_names
from pcaseg.class_names import check_class_names, split_class_names
from pcaseg.configs import Aggregation, DenseMode, Strategy, get_preset, presets
from pcaseg.errors import PcasegError

if TYPE_CHECKING:
    from pcaseg.model.network import PCASeg
    from pcaseg.runtime.segmenter import Segmenter

EXIT_OK, EXIT_FAILED, EXIT_BAD_INPUT, EXIT_INTERRUPTED = 0, 1, 2, 130

WEIGHTS_NOTES = {
    "seeded": "note: these weights are drawn from a seed, not trained: the labels mean nothing",
    "clip-only": "note: CLIP's weights are real, the aggregator's are drawn from a seed: the labels mean nothing",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code: 0 done, 1 a check failed, 2 input that cannot be used."""
    options = build_parser().parse_args(arguments)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # each command says itself what its weights are
            return options.run(options)
    except PcasegError as error:
        print(f"error: {error}", file=sys.stderr)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("pcaseg"):
            raise
        print(f'error: {error.name} is not installed; pip install "pcaseg[{options.extra}]"', file=sys.stderr)
    except KeyboardInterrupt:
        print("interrupted; finished files are whole, start again to go on", file=sys.stderr)
        return EXIT_INTERRUPTED
    return EXIT_BAD_INPUT


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = argparse.ArgumentParser(prog="pcaseg", description="Deployment pipeline for PCA-Seg.")
    parser.add_argument("--version", action="version", version=f"pcaseg {pcaseg.__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    command = commands.add_parser("presets", help="list the model configurations")
    command.set_defaults(run=run_presets, extra="runtime")

    command = commands.add_parser("import", help="turn a published checkpoint into a model file")
    command.add_argument("checkpoint", help=".pth, .pt or .safetensors of PCA-Seg, CAT-Seg, or CLIP alone")
    command.add_argument("--preset", required=True, help=f"one of {', '.join(presets())}")
    command.add_argument(
        "--aggregation", choices=get_args(Aggregation), help="as the checkpoint's names say if left out"
    )
    command.add_argument("--dense-mode", choices=get_args(DenseMode), default="csa")
    command.add_argument("--seed", type=_natural, default=0, help="for the aggregator of a checkpoint of CLIP alone")
    command.add_argument("--out", required=True, type=Path, help="model file to write, .safetensors")
    command.set_defaults(run=run_import, extra="torch")

    command = commands.add_parser("export", help="write a bundle that runs without torch")
    command.add_argument("model", help="model file of `pcaseg import`, or a preset's name for seeded weights")
    command.add_argument("--out", required=True, type=Path, help="bundle to write, NAME.pcaseg (or NAME.pcaseg.zip)")
    command.add_argument("--overwrite", action="store_true", help="replace a bundle that stands there")
    command.set_defaults(run=run_export, extra="torch")

    command = commands.add_parser("check", help="compare a bundle with the eager float32 model")
    command.add_argument("bundle", type=Path)
    command.add_argument("--model", help="model file, if it is no longer where the bundle was exported from")
    command.add_argument("--images", nargs="+", type=Path, help="images or folders (default: built-in photographs)")
    command.add_argument("--classes", type=_counts, default=(1, 5, 20, 59), help="vocabulary sizes, such as 1,20,300")
    command.add_argument("--strategy", choices=get_args(Strategy), default="single")
    command.add_argument("--max-relative-error", type=float, default=1e-4)
    command.add_argument("--min-label-agreement", type=float, default=0.999)
    command.add_argument("--json", type=Path, help="write the rows to this file too")
    _add_backend(command)
    command.set_defaults(run=run_check, extra="benchmarks")

    command = commands.add_parser("segment", help="segment images or folders of images")
    command.add_argument("images", nargs="+", metavar="IMAGE", help="image file or folder")
    _add_network(command)
    _add_vocabulary(command)
    command.add_argument("--out", type=Path, default=Path("segmented"), help="folder to write (default: segmented)")
    command.add_argument("--strategy", choices=get_args(Strategy), default="single", help="sliding: 5 passes, finer")
    _add_backend(command)
    command.set_defaults(run=run_segment, extra="onnxruntime")

    command = commands.add_parser("vocab", help="write a vocabulary file, which needs no text encoder where it is used")
    _add_network(command)
    _add_vocabulary(command)
    command.add_argument("--out", required=True, type=Path, help="vocabulary to write, .safetensors")
    _add_backend(command)
    command.set_defaults(run=run_vocab, extra="onnxruntime", strategy="single")
    return parser


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
    command.add_argument("--backend", default="onnxruntime", help="what runs a bundle (default: onnxruntime)")
    command.add_argument("--device", help="cpu (default), cuda or cuda:N")
    command.add_argument("--threads", type=_natural, help="CPU threads")


def run_presets(options: argparse.Namespace) -> int:
    print(f"{'preset':14} {'image tower':12} {'input px':>8} {'grid':>7} {'embedding':>9}")
    for name in presets():
        p = get_preset(name)
        tower = f"{p.family} {p.vision_blocks} x {p.vision_width}"
        print(f"{name:14} {tower:12} {p.image_px:8} {f'{p.grid} x {p.grid}':>7} {p.embed_dim:9}")
    return EXIT_OK


def run_import(options: argparse.Namespace) -> int:
    from pcaseg.model.checkpoint import load_model, save_model
    from pcaseg.model.checkpoint_file import read_checkpoint
    from pcaseg.model.checkpoint_fit import stored_aggregation

    get_preset(options.preset)
    if options.out.suffix != ".safetensors":
        raise PcasegError(f"{options.out}: a model file ends in .safetensors; rename it")
    if options.out.exists() and Path(options.checkpoint).exists() and options.out.samefile(options.checkpoint):
        raise PcasegError(f"{options.out}: is the checkpoint itself; choose another name")
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

    check_destination(options.out, overwrite=options.overwrite)
    model = _load_model(options.model)
    manifest = write_bundle(model, options.out, overwrite=options.overwrite, progress=True)
    size = sum(entry.bytes for entry in manifest.files.values())
    print(f"{options.out}: {manifest.preset}, {manifest.aggregation}, {manifest.precision}, {size / 2**20:.0f} MiB")
    _say_weights(manifest.weights.kind)
    return EXIT_OK


def run_check(options: argparse.Namespace) -> int:
    from tqdm import tqdm

    from pcaseg.benchmarks.check import Thresholds, cases, check, photographs, table, write_report
    from pcaseg.export.torch_backend import source_model
    from pcaseg.images import read_image
    from pcaseg.runtime.backends import open_backend
    from pcaseg.runtime.batch import expand_images
    from pcaseg.runtime.bundle import Bundle

    bundle = Bundle(options.bundle)
    bundle.verify()
    if options.images:
        images = {path.name: read_image(path) for path in expand_images(options.images)}
    else:
        images = photographs()
    backend = open_backend(options.backend, bundle, device=options.device, threads=options.threads)
    model = _load_model(options.model) if options.model else source_model(bundle)
    thresholds = Thresholds(options.max_relative_error, options.min_label_agreement)
    todo = tqdm(cases(images, options.classes, options.strategy), desc="check", unit="case")
    rows = [check(model, backend, case, thresholds) for case in todo]
    print(table(rows))
    _say_weights(bundle.manifest.weights.kind)
    passed = all(row.passed for row in rows)
    verdict = "agree" if passed else "DISAGREE"
    print(
        f"{backend.name} and eager float32 {verdict}: relative error at most {max(r.relative_error for r in rows):.1e} "
        f"(allowed {thresholds.relative_error:.0e}), labels at least {min(r.label_agreement for r in rows):.3%} "
        f"(wanted {thresholds.label_agreement:.1%})"
    )
    if options.json:
        write_report(options.json, bundle, backend, rows)
    return EXIT_OK if passed else EXIT_FAILED


def run_segment(options: argparse.Namespace) -> int:
    from pcaseg.runtime.batch import expand_images, segment_files

    images = expand_images(options.images)
    _check_out_folder(options.out)
    segmenter = _open_segmenter(options)
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
    for _, message in batch.failed:
        print(f"error: {message}", file=sys.stderr)
    _say_weights(segmenter.backend.manifest.weights.kind)
    return EXIT_BAD_INPUT if batch.failed else EXIT_OK


def run_vocab(options: argparse.Namespace) -> int:
    if options.out.suffix != ".safetensors":
        raise PcasegError(f"{options.out}: a vocabulary file ends in .safetensors; rename it")
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


def _check_out_folder(out: Path) -> None:
    from pcaseg.errors import OutputError

    if out.exists() and not out.is_dir():
        raise OutputError(f"{out}: is a file; --out names a folder")


def _say_weights(kind: str) -> None:
    if kind in WEIGHTS_NOTES:
        print(WEIGHTS_NOTES[kind])


def _natural(text: str) -> int:
    number = int(text)
    if number < 0:
        raise ValueError(text)
    return number


def _counts(text: str) -> tuple[int, ...]:
    counts = tuple(int(part) for part in text.split(","))
    if min(counts) < 1 or max(counts) > 847:
        raise argparse.ArgumentTypeError(f"{text}: give sizes from 1 to 847, such as 1,20,300")
    return counts


if __name__ == "__main__":
    sys.exit(main())
