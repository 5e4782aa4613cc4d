"""Atomic writes keep what stood there, whatever goes wrong."""

from __future__ import annotations

import os

import pytest

from pcaseg.errors import OutputError
from pcaseg.files import atomic_path


def test_interrupt_between_the_renames_restores_the_folder(tmp_path, monkeypatch):
    with atomic_path(tmp_path / "b", folder=True) as folder:
        (folder / "old").touch()
    rename, calls = os.replace, []

    def interrupted(source, target):
        calls.append(target)
        if len(calls) == 2:
            raise KeyboardInterrupt
        rename(source, target)

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt), atomic_path(tmp_path / "b", folder=True) as folder:
        (folder / "new").touch()
    assert os.listdir(tmp_path) == ["b"] and os.listdir(tmp_path / "b") == ["old"]


def test_replaced_folder_leaves_nothing_behind(tmp_path):
    for name in ("one", "two"):
        with atomic_path(tmp_path / "b", folder=True) as folder:
            (folder / name).touch()
    assert os.listdir(tmp_path) == ["b"] and os.listdir(tmp_path / "b") == ["two"]


def test_links_are_followed(tmp_path):
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with atomic_path(tmp_path / "link") as path:
        path.write_text("new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real").read_text() == "new"


def test_failure_in_the_block_leaves_the_old_file(tmp_path):
    (tmp_path / "f").write_text("old")
    with pytest.raises(OutputError, match="No space left"), atomic_path(tmp_path / "f") as path:
        path.write_text("half")
        raise OSError(28, "No space left on device")
    assert os.listdir(tmp_path) == ["f"] and (tmp_path / "f").read_text() == "old"
