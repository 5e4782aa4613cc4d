"""The README's commands exist, its code runs, and its tables are what their rows say."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import pcaseg
from pcaseg.benchmarks import readme
from pcaseg.cli import build_parser

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
COMMANDS = [
    line.split("  #")[0]
    for block in re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
    for line in block.splitlines()
    if line.startswith("pcaseg ")
]
ON_A_GPU = [
    line.split("  #")[0]
    for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    for line in block.splitlines()
    if line.startswith("pcaseg ")
]
"""Blocks marked `sh` need a GPU or data sets: their commands are parsed, not run."""


@pytest.mark.parametrize("command", COMMANDS + ON_A_GPU)
def test_commands_parse(command):
    assert build_parser().parse_args(shlex.split(command)[1:]).run


def test_there_are_commands():
    assert {shlex.split(command)[1] for command in COMMANDS} >= {"import", "export", "check", "segment", "vocab"}


def test_python_blocks_name_what_exists():
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert blocks
    for block in blocks:
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "pcaseg":
                assert hasattr(pcaseg, node.attr)


def test_mentioned_class_lists_and_presets_are_complete():
    for name in (*pcaseg.class_list_names(), *pcaseg.presets()):
        assert f"`{name}`" in README


def test_tables_match_their_rows():
    assert readme.main(["--check"]) == 0, "run: python -m pcaseg.benchmarks.readme"
    assert "| eva-b-384 |" in README


def test_changed_rows_are_noticed(monkeypatch):
    monkeypatch.setitem(readme.TABLES, "check", lambda: "| another table |\n")
    assert readme.main(["--check"]) == 1


@pytest.mark.slow
def test_quick_start_as_a_user_types_it(tmp_path):
    """Every command of the README in order, with a seeded checkpoint and a photograph where it names files."""
    from pcaseg.benchmarks.demo import write_checkpoint, write_photograph

    write_checkpoint("eva-b-384", tmp_path / "model_final.pth")
    write_photograph(tmp_path / "photo.png")
    (tmp_path / "photo.png").rename(tmp_path / "photo.jpg")  # content counts, not the ending
    for command in COMMANDS:
        words = [sys.executable, "-m", "pcaseg.cli", *shlex.split(command)[1:]]
        assert subprocess.run(words, cwd=tmp_path).returncode == 0, command
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    for block in blocks:
        assert subprocess.run([sys.executable, "-c", block], cwd=tmp_path).returncode == 0, block
