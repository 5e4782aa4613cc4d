"""Fixtures of the tests of commands: a bundle, a photo, and a command as a user types it."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pcaseg.cli import main


@pytest.fixture(scope="module")
def bundle(copy_bundle, tmp_path_factory) -> Path:
    return copy_bundle(tmp_path_factory.mktemp("cli") / "small.pcaseg")


@pytest.fixture
def photo(tmp_path) -> Path:
    path = tmp_path / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)).save(path)
    return path


@pytest.fixture
def run(capsys, small_preset):
    """Runs a command; gives its exit code, standard output and standard error."""

    def call(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main([str(word) for word in words])
        return (code, *capsys.readouterr())

    return call


def assert_refused(answer: tuple[int, str, str], *fragments: object) -> None:
    code, out, err = answer
    assert code == 2 and out == ""
    lines = [line for line in err.replace("\r", "\n").splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and "Traceback" not in err
    assert [fragment for fragment in fragments if str(fragment) not in lines[0]] == [], lines


def assert_failed(answer: tuple[int, str, str], *fragments: object) -> None:
    """One image failed, with one sentence, and the summary counts it."""
    code, out, err = answer
    assert code == 2 and "1 failed" in out
    assert_refused((code, "", err), *fragments)


def files_in(folder: Path) -> list[str]:
    return sorted(os.listdir(folder)) if folder.exists() else []
