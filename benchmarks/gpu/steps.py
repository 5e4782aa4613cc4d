"""Steps that are run one after the other, each a command with a time limit, a log, and a note that it is done.

Running the same script again goes on where it stopped: steps that are done are left out, failed ones are tried again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from tqdm import tqdm

from pcaseg.arguments import Parser, natural, some_path
from pcaseg.errors import OutputError, reported
from pcaseg.files import atomic_path

LOGS, DONE, ROWS, BUNDLES, REFERENCES = "logs", "done", "rows", "bundles", "references"
"""Folders within the output folder."""

PYTHON = (sys.executable,)


@dataclass(frozen=True)
class MeasuringStep:
    """One command.

    Attributes:
        name: unique within an output folder; also the names of its log and of the note that it is done.
        command: words.
        limit_s: seconds after which it is stopped.
    """

    name: str
    command: tuple[str, ...]
    limit_s: int = 600


def module(name: str, *words: object, python: Sequence[str] = PYTHON) -> tuple[str, ...]:
    """The command that runs a module."""
    return (*python, "-m", name, *map(str, words))


def parser(name: str, description: str | None) -> argparse.ArgumentParser:
    """The options that all scripts have."""
    made = Parser(prog=f"python -m pcaseg.benchmarks.gpu.{name}", description=description)
    made.add_argument("--out", type=some_path, required=True, help="folder of rows, logs, bundles and references")
    made.add_argument("--minutes", type=natural, default=9, help="begin no step after so many (default: 9)")
    made.add_argument("--dry-run", action="store_true", help="list the steps, with what is done already")
    return made


def run_script(steps: Sequence[MeasuringStep], options: argparse.Namespace) -> int:
    """Lists or runs steps; 0 where all are done, 1 where one failed or is left, 2 where nothing can be written."""
    if options.dry_run:
        print(listing(steps, options.out))
        return 0
    return reported(lambda: run_steps(steps, options.out, seconds=60 * options.minutes))


def listing(steps: Sequence[MeasuringStep], out: Path) -> str:
    """A line for each step."""
    return "\n".join(
        f"{'done' if is_done(step, out) else 'to do':5}  {step.name}: {' '.join(step.command)}" for step in steps
    )


def run_steps(steps: Sequence[MeasuringStep], out: Path, *, seconds: float) -> int:
    """Runs what is not done yet and prints a line for each; a step that would begin too late is left.

    Raises:
        OutputError: the folder cannot be written.
    """
    try:
        for folder in (LOGS, DONE, ROWS):
            (out / folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{out}: cannot be written ({error.strerror}); choose another folder") from error
    began, left = time.monotonic(), 0
    for step in tqdm([step for step in steps if not is_done(step, out)], desc="steps", unit="step"):
        remaining = seconds - (time.monotonic() - began)
        result = "left for the next run: its time is up" if remaining <= 0 else _run(step, out, remaining)
        left += bool(result)
        tqdm.write(f"{step.name}: {result or 'done'}", file=sys.stdout)
    return 1 if left else 0


def is_done(step: MeasuringStep, out: Path) -> bool:
    """True where this very command has succeeded in this folder before."""
    try:
        note = json.loads((out / DONE / f"{step.name}.json").read_text(encoding="utf-8"))
        return note["command"] == list(step.command)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _run(step: MeasuringStep, out: Path, remaining: float) -> str:
    """Why a step is not done; empty where it is."""
    log, began = out / LOGS / f"{step.name}.log", time.monotonic()
    limit = min(float(step.limit_s), remaining)
    with open(log, "a", encoding="utf-8") as file:
        file.write(f"# {datetime.now(timezone.utc).isoformat(timespec='seconds')} {' '.join(step.command)}\n")
        file.flush()
        try:
            code = subprocess.run(
                step.command, stdout=file, stderr=subprocess.STDOUT, timeout=limit, check=False
            ).returncode
        except subprocess.TimeoutExpired:
            return f"stopped after {limit:.0f} s, see {log}"
        except OSError as error:
            return f"cannot be started ({error.strerror}): {step.command[0]}"
    if code:
        return f"failed with code {code}, see {log}"
    note = {"command": list(step.command), "seconds": round(time.monotonic() - began, 1)}
    with atomic_path(out / DONE / f"{step.name}.json") as temporary:
        temporary.write_text(json.dumps(note, indent=2) + "\n", encoding="utf-8")
    return ""
