"""Environments that tests make beside the one they run in, and commands in them."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parent.parent


def run(*words: str | Path, **variables: str) -> None:
    """Runs a command in a folder that is not the clone's, so that the installed packages are what is tried."""
    print("+", *words, flush=True)
    command = [str(word) for word in words]
    subprocess.run(command, check=True, cwd=tempfile.gettempdir(), env=os.environ | variables)


def made_environment(folder: Path, wanted: str, fill: Callable[[Path], None]) -> Path:
    """The python of an environment, made where it is not there or of something else.

    Args:
        folder: of the environment.
        wanted: what it is to be made of, which is kept in it.
        fill: installs that, given the python.
    """
    python, made_of = folder / "bin" / "python", folder / "made-of.txt"
    if not (made_of.is_file() and made_of.read_text(encoding="utf-8") == wanted):
        run(sys.executable, "-m", "venv", "--clear", folder)
        fill(python)
        made_of.write_text(wanted, encoding="utf-8")
    return python
