"""Groups of options and kinds of arguments that several commands share."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from pcaseg.arguments import CORES, some_path, up_to
from pcaseg.class_lists import class_list_names
from pcaseg.class_names import LIST_FILES
from pcaseg.class_syntax import ClassTree, read_classes, split_classes
from pcaseg.configs import ADVISED_SHORTLIST, MAX_CLASSES, Synonyms
from pcaseg.errors import PcasegError, VocabularyError
from pcaseg.runtime.engines import EnginePrecision

if TYPE_CHECKING:
    from pcaseg.runtime.ray_pool import RayPool
    from pcaseg.runtime.segmenter import Segmenter

LABELLED_HELP = "for mIoU: a folder with classes.txt, images/ and labels/, or `scenes` for 200 rendered ones"

_OWNERS = {
    "engine_precision": "tensorrt",
    "plugin_library": "tensorrt",
    "arena": "onnxruntime",
    "precision_hint": "openvino",
    "model_cache": "openvino",
}
"""Options that one backend alone understands, and which."""

WEIGHTS_NOTES = {
    "seeded": "note: these weights are drawn from a seed, not trained: the labels mean nothing",
    "clip-only": "note: CLIP's weights are real, the aggregator's are drawn from a seed: the labels mean nothing",
    "shipped": "note: these weights know the rendered scenes of `pcaseg datasets scenes` alone, no photographs",
}


def add_network(command: argparse.ArgumentParser, *, default: str | None = None) -> None:
    """`--bundle` or `--model`; where neither is given, `default` is the model, or one of them is required."""
    group = command.add_mutually_exclusive_group(required=default is None)
    group.add_argument("--bundle", type=Path, help="bundle of `pcaseg export`")
    left_out = f" (with neither: {default}, for rendered scenes)" if default else ""
    group.add_argument("--model", help=f"model file of `pcaseg import`, or a preset's name; eager{left_out}")
    command.set_defaults(default_model=default)


def add_vocabulary(command: argparse.ArgumentParser) -> None:
    group = command.add_mutually_exclusive_group(required=True)
    group.add_argument("--classes", help='names: "cat, grass"; with parts "car: wheel, window; house: roof"')
    group.add_argument(
        "--vocabulary", help=f".safetensors or .txt file, or a class list: {', '.join(class_list_names())}"
    )
    command.add_argument(
        "--synonyms",
        choices=get_args(Synonyms),
        help='of a file\'s line "tv; television": best of them at each pixel (default), or their mean',
    )
    command.add_argument(
        "--template",
        action="append",
        help='prompt such as "a photo of a {}"; given several times, their mean counts (default: the published one)',
    )


def add_backend(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--backend",
        default="onnxruntime",
        help="what runs a bundle: onnxruntime (default), openvino, tensorrt, tensorrt-rtx or torch",
    )
    command.add_argument(
        "--device", help="cpu (default), cuda or cuda:N; of onnxruntime tensorrt, tensorrt-rtx; of openvino gpu or npu"
    )
    command.add_argument("--threads", type=up_to(CORES), help="CPU threads")
    command.add_argument(
        "--engine-precision", choices=get_args(EnginePrecision), help="of tensorrt's engines (default: the bundle's)"
    )
    command.add_argument(
        "--arena",
        choices=("grow", "shrink", "off"),
        help="of onnxruntime on the CPU: memory kept for the next image (grow, default), given back or not pooled",
    )
    command.add_argument(
        "--precision-hint",
        choices=("float32", "float16", "bfloat16"),
        help="what openvino multiplies in, where the device can (default: float32)",
    )
    command.add_argument(
        "--model-cache",
        type=some_path,
        metavar="FOLDER",
        help="where openvino keeps compiled graphs for the next start",
    )
    command.add_argument("--plugin-library", type=some_path, help="for engines of `pcaseg build --plugins library`")


def typed_classes(text: str) -> ClassTree:
    """The classes of `--classes`.

    Raises:
        VocabularyError: as `read_classes`, or the one entry is a file or a class list.
    """
    entries = split_classes(text)
    first = entries[0]
    if len(entries) == 1 and (first in class_list_names() or first.lower().endswith((*LIST_FILES, ".safetensors"))):
        raise VocabularyError(f"--classes: {first} holds classes and is none; give it as --vocabulary")
    return read_classes(entries, source="--classes")


def add_shortlist(command: argparse.ArgumentParser, *, of_bundle: str = "a bundle has its own") -> None:
    command.add_argument(
        "--shortlist",
        type=_shortlist,
        metavar="K",
        help=f"classes of each window that are aggregated at most, 1 to {MAX_CLASSES}, or auto for {ADVISED_SHORTLIST} "
        f"({of_bundle})",
    )


def _shortlist(text: str) -> int:
    try:
        return ADVISED_SHORTLIST if text == "auto" else up_to(MAX_CLASSES)(text)
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"{error}, or auto") from None


def add_ray(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--ray", metavar="ADDRESS", help="work on a Ray cluster: local for this machine, auto, or HOST:PORT of its head"
    )
    command.add_argument("--workers", type=up_to(10_000), help="of --ray (default: one for each CPU)")


def ray_pool(options: argparse.Namespace, **conflicts: bool) -> RayPool | None:
    """The workers of `add_ray`; None without.

    Args:
        options: of the command line; `threads` is of each worker, 1 by default.
        conflicts: what was given, by its name, that does not go with `--ray`.

    Raises:
        PcasegError: options that do not go together.
        MissingDependencyError: Ray is not installed.
    """
    if options.ray is None:
        if options.workers is not None:
            raise PcasegError("--workers: is for --ray; add --ray local")
        return None
    if given := [name for name, is_given in conflicts.items() if is_given]:
        raise PcasegError(f"--ray: does not go with {given[0].replace('_', ' ')}; leave one of them out")
    if options.bundle is None:
        raise PcasegError("--ray: runs a bundle; give one with --bundle")
    from pcaseg.runtime.ray_pool import RayPool, check_ray

    check_ray(options.ray)
    return RayPool(options.ray, options.workers, options.threads or 1)


def backend_options(options: argparse.Namespace) -> dict[str, object]:
    """Options given that one backend alone understands."""
    given = {name: getattr(options, name) for name in _OWNERS}
    return {name: value for name, value in given.items() if value is not None}


def open_bundle(options: argparse.Namespace, **more: Any) -> Segmenter:
    """The segmenter of `--bundle` on the backend of `add_backend`; `more` is what else the command gives it."""
    from pcaseg.runtime.segmenter import Segmenter

    return Segmenter(
        options.bundle,
        options.backend,
        device=options.device,
        threads=options.threads,
        strategy=options.strategy,
        backend_options=backend_options(options),
        **more,
    )


def refuse_backend_options(options: argparse.Namespace) -> None:
    """Refuses, where no bundle runs, what only a bundle's backend understands."""
    for name in backend_options(options):
        raise PcasegError(f"--{name.replace('_', '-')}: is for a bundle with --backend {_OWNERS[name]}")


def backends(text: str) -> tuple[str, ...]:
    """Names of what can be measured with commas between, or `all`, for argparse."""
    from pcaseg.benchmarks.rows import BACKENDS

    parts = tuple(part.strip() for part in text.split(","))
    if parts == ("all",):
        return BACKENDS
    wrong = [part for part in parts if part not in BACKENDS]
    if wrong:
        raise argparse.ArgumentTypeError(f"{wrong[0]!r}: choose from {', '.join(BACKENDS)}, or all")
    return parts


def gate(text: str) -> dict[str, float]:
    """Thresholds of accuracy, for argparse; their names are those of `pcaseg.evaluation.gates`."""
    from pcaseg.evaluation.gates import parse_gate

    try:
        return parse_gate(text)
    except PcasegError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def say_weights(kind: str) -> None:
    """Says of weights that are no result of a training on photographs what they are."""
    if kind in WEIGHTS_NOTES:
        print(WEIGHTS_NOTES[kind])
