"""Atomic writes keep what stood there, whatever goes wrong."""

from __future__ import annotations

import os

import pytest

from pcaseg.errors import EngineError, OutputError
from pcaseg.files import atomic_path, refuse_foreign


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


def test_what_is_not_ours_is_refused(tmp_path):
    path = tmp_path / "x"
    refuse_foreign(path, lambda _: False, "a bundle")  # nothing stands there
    path.write_text("theirs")
    refuse_foreign(path, lambda found: found.read_text() == "theirs", "a bundle")
    with pytest.raises(OutputError, match=r"x: exists and is not a bundle; choose another name$"):
        refuse_foreign(path, lambda _: False, "a bundle")
    with pytest.raises(EngineError, match=r"x: exists and is not a cache; name another$"):
        refuse_foreign(path, lambda _: False, "a cache", mend="name another", error=EngineError)
