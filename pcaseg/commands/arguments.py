"""What the commands share: exit codes, kinds of arguments, and groups of options."""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import get_args

from pcaseg.class_lists import class_list_names
from pcaseg.configs import LARGEST_SIDE_PX
from pcaseg.errors import PcasegError
from pcaseg.runtime.engines import EnginePrecision

CORES = os.cpu_count() or 1
MOST_PROCESSES = max(16, CORES)
"""That one command may start."""

EXIT_OK, EXIT_FAILED, EXIT_BAD_INPUT, EXIT_INTERRUPTED = 0, 1, 2, 130


def add_network(command: argparse.ArgumentParser, *, default: str | None = None) -> None:
    """`--bundle` or `--model`; where neither is given, `default` is the model, or one of them is required."""
    group = command.add_mutually_exclusive_group(required=default is None)
    group.add_argument("--bundle", type=Path, help="bundle of `pcaseg export`")
    left_out = f" (with neither: {default}, for rendered scenes)" if default else ""
    group.add_argument("--model", help=f"model file of `pcaseg import`, or a preset's name; eager{left_out}")
    command.set_defaults(default_model=default)


def add_vocabulary(command: argparse.ArgumentParser) -> None:
    group = command.add_mutually_exclusive_group(required=True)
    group.add_argument("--classes", help='names: "cat, grass"; with synonyms "cat; tv monitor, television"')
    group.add_argument(
        "--vocabulary", help=f".safetensors or .txt file, or a class list: {', '.join(class_list_names())}"
    )


def add_backend(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--backend", default="onnxruntime", help="what runs a bundle: onnxruntime (default), tensorrt or torch"
    )
    command.add_argument("--device", help="cpu (default), cuda or cuda:N; tensorrt for that provider of ONNX Runtime")
    command.add_argument("--threads", type=up_to(CORES), help="CPU threads")
    command.add_argument(
        "--engine-precision", choices=get_args(EnginePrecision), help="of tensorrt's engines (default: the bundle's)"
    )
    command.add_argument("--plugin-library", type=some_path, help="for engines of `pcaseg build --plugins library`")


def backend_options(options: argparse.Namespace) -> dict[str, object]:
    """What was given of the options that one backend alone understands."""
    given = {"engine_precision": options.engine_precision, "plugin_library": options.plugin_library}
    return {name: value for name, value in given.items() if value is not None}


def refuse_backend_options(options: argparse.Namespace) -> None:
    """Refuses, where no bundle runs, what only a bundle's backend understands."""
    for name in backend_options(options):
        raise PcasegError(f"--{name.replace('_', '-')}: is for a bundle with --backend tensorrt")


def natural(text: str) -> int:
    """A whole number from 0, for argparse."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r}: give a whole number from 0")
    return int(text)


def image_size(text: str) -> tuple[int, int]:
    """(height, width) from `720x1280`, for argparse."""
    sides = text.split("x")
    if len(sides) != 2 or not all(side.isdecimal() and side.isascii() for side in sides):
        raise argparse.ArgumentTypeError(f"{text!r}: give height x width in pixels, such as 720x1280")
    size = int(sides[0]), int(sides[1])
    if not all(1 <= side <= LARGEST_SIDE_PX for side in size):
        raise argparse.ArgumentTypeError(f"{text!r}: give sides from 1 to {LARGEST_SIDE_PX} pixels")
    return size


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


def up_to(most: int, *, least: int = 1) -> Callable[[str], int]:
    """A whole number from `least` to `most`, for argparse: more threads or processes would exhaust the machine."""

    def parse(text: str) -> int:
        if not (text.isdecimal() and least <= int(text) <= most):
            raise argparse.ArgumentTypeError(f"{text!r}: give {least} to {most}")
        return int(text)

    return parse


def counts(most: int) -> Callable[[str], tuple[int, ...]]:
    """Whole numbers from 1 to `most` with commas between, for argparse."""

    def parse(text: str) -> tuple[int, ...]:
        parts = [part.strip() for part in text.split(",")]
        if not all(part.isdecimal() and 1 <= int(part) <= most for part in parts):
            raise argparse.ArgumentTypeError(f"{text!r}: give whole numbers from 1 to {most}, with commas between")
        return tuple(int(part) for part in parts)

    return parse


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


def choices(kind: object) -> Callable[[str], tuple[str, ...]]:
    """Some of the strings of a `Literal` type with commas between, for argparse."""

    def parse(text: str) -> tuple[str, ...]:
        parts = tuple(part.strip() for part in text.split(","))
        wrong = [part for part in parts if part not in get_args(kind)]
        if wrong:
            raise argparse.ArgumentTypeError(f"{wrong[0]!r}: choose from {', '.join(get_args(kind))}")
        return parts

    return parse


def seconds(text: str) -> float:
    """A time above 0, for argparse."""
    return _number(text, lambda value: 0 < value < 1e6, "give seconds, such as 30")


def share(text: str) -> float:
    """A share from 0 to 1, for argparse."""
    return _number(text, lambda value: 0 <= value <= 1, "give a share from 0 to 1, such as 0.05")


def weight(text: str) -> float:
    """A weight from 0, for argparse."""
    return _number(text, lambda value: 0 <= value < 1e6, "give a weight from 0, such as 0.001")


def _number(text: str, fits: Callable[[float], bool], mend: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan  # which fits nowhere
    if not fits(value):
        raise argparse.ArgumentTypeError(f"{text!r}: {mend}")
    return value


def gate(text: str) -> dict[str, float]:
    """Thresholds of accuracy, for argparse; their names are those of `pcaseg.benchmarks.gates`."""
    from pcaseg.benchmarks.gates import parse_gate

    try:
        return parse_gate(text)
    except PcasegError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
