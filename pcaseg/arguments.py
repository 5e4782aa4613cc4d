"""Kinds of command-line arguments and exit codes, for the command line and for scripts."""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn, get_args

from pcaseg.configs import LARGEST_SIDE_PX
from pcaseg.errors import OutputError, print_error

CORES = os.cpu_count() or 1
MOST_PROCESSES = max(16, CORES)
"""That one command may start."""

EXIT_OK, EXIT_FAILED, EXIT_BAD_INPUT, EXIT_INTERRUPTED = 0, 1, 2, 130


class Parser(argparse.ArgumentParser):
    """Parser that answers bad words with one line, as every other bad input is answered, instead of the usage."""

    def error(self, message: str) -> NoReturn:
        print_error(f"{message}; see {self.prog} --help")
        sys.exit(EXIT_BAD_INPUT)


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


def rows_file(text: str) -> Path:
    """A file that rows can be written to, for argparse, so that it is known before anything is measured."""
    from pcaseg.environment import check_rows_path  # few commands write rows

    path = some_path(text)
    try:
        check_rows_path(path)
    except OutputError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return path


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


def number_from(least: float, most: float) -> Callable[[str], float]:
    """A number from `least` to `most`, for argparse."""
    return lambda text: _number(text, lambda value: least <= value <= most, f"give a number from {least} to {most}")


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
