"""Paths that the system refuses: one sentence and exit code 2 everywhere, and no look at a path that is not guarded."""

from __future__ import annotations

import ast
import errno
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import pcaseg.paths
from pcaseg.cli import main
from pcaseg.errors import BundleError, ImageError, OutputError, PcasegError
from pcaseg.files import atomic_path, cache_folder, found_cache, remove_partial
from pcaseg.paths import entries, exists, files_under, is_file, is_folder, real_path, short_name, size_of

PACKAGE = Path(pcaseg.paths.__file__).parent
LOOKS = {"exists", "is_file", "is_dir", "is_symlink", "stat", "lstat", "iterdir", "glob", "rglob", "resolve"}
OS_LOOKS = {"exists", "isfile", "isdir", "getsize", "getmtime", "realpath", "samefile", "listdir", "scandir", "walk"}
DEAD = (errno.EACCES, errno.ENAMETOOLONG, errno.ESTALE, errno.EIO, errno.ENOTCONN, errno.ELOOP)
LONG = "x" * 300


def looks(source: str) -> list[str]:
    """Calls in a program that ask the system about a path, but those of `pcaseg.paths`."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner = ast.unparse(node.func.value)
            of_os = owner in ("os", "os.path") and node.func.attr in OS_LOOKS | {"stat"}
            if of_os or (owner not in ("os", "os.path", "re", "_FOLDER") and node.func.attr in LOOKS):
                found.append(f"line {node.lineno}: {ast.unparse(node.func)}")
    return found


def test_every_look_at_a_path_is_guarded():
    for file in sorted(PACKAGE.rglob("*.py")):
        if file.name != "paths.py":
            assert not looks(file.read_text(encoding="utf-8")), f"{file}: use pcaseg.paths"


@pytest.mark.parametrize("call", ["p.exists()", "Path(x).is_dir()", "os.stat(p)", "os.path.isfile(p)", "p.glob('*')"])
def test_an_unguarded_look_is_found(call):
    assert looks(call)


@pytest.mark.parametrize("number", DEAD)
@pytest.mark.parametrize("look", [exists, is_file, is_folder, size_of])
def test_what_the_system_refuses_is_one_sentence(monkeypatch, look, number):
    def refuse(path, *_, **__):
        raise OSError(number, os.strerror(number), path)

    monkeypatch.setattr("pcaseg.paths.os.stat", refuse)
    with pytest.raises(BundleError, match=f"mount/scene: cannot be used .{os.strerror(number)}.; "):
        look("mount/scene", error=BundleError)


def test_what_is_not_there_is_no_error(tmp_path):
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "nothing", tmp_path / "file" / "below"):
        assert not exists(path) and not is_file(path) and not is_folder(path) and size_of(path) == 0
    assert entries(tmp_path / "nothing") == [] and list(files_under(tmp_path / "nothing", "*")) == []
    assert is_file(tmp_path / "file") and size_of(tmp_path / "file") == 1


@pytest.mark.parametrize("name", ["nul\0", LONG])
def test_names_that_no_file_has(name):
    with pytest.raises(PcasegError, match="cannot be used"):
        exists(name)


@pytest.mark.parametrize("name", [LONG, "a\0b"])
@pytest.mark.parametrize(
    "words",
    [
        ("segment", "NAME.png", "--classes", "sky", "--out", "o"),
        ("segment", "IMAGE", "--bundle", "NAME", "--classes", "sky", "--out", "o"),
        ("segment", "IMAGE", "--model", "NAME", "--classes", "sky", "--out", "o"),
        ("segment", "IMAGE", "--classes", "sky", "--out", "NAME"),
        ("segment", "IMAGE", "--vocabulary", "NAME.txt", "--out", "o"),
        ("vocab", "--model", "tiny", "--classes", "sky", "--out", "NAME.safetensors"),
        ("export", "tiny", "--out", "NAME.pcaseg"),
        ("import", "NAME.pth", "--preset", "tiny", "--out", "m.safetensors"),
        ("doctor", "NAME"),
        ("build", "NAME"),
        ("check", "NAME"),
        ("bench", "NAME"),
        ("report", "NAME"),
        ("evaluate", "--data", "NAME", "--model", "tiny", "--out", "o"),
        ("train", "--preset", "tiny", "--steps", "1", "--out", "NAME"),
        ("datasets", "check", "voc_20", "--root", "NAME"),
        ("datasets", "prepare", "ade20k_847", "--root", "NAME"),
    ],
    ids=lambda words: (
        " ".join(words[: 1 + (words[0] == "datasets")]) + str(words.index(next(w for w in words if "NAME" in w)))
    ),
)
def test_every_command_says_it(tmp_path, monkeypatch, capsys, words, name):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save("image.png")
    assert main([word.replace("NAME", name).replace("IMAGE", "image.png") for word in words]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1


def test_what_cannot_be_printed_is_escaped(tmp_path, capsys):
    assert main(["doctor", str(tmp_path / "two\nlines\x1b[2J\udcff")]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "/two\\nlines\\x1b[2J\\udcff: " in said


@pytest.mark.parametrize(
    "name", ["x" * 255, "語" * 85, "é" * 120 + "x" * 15, "ab" * 20], ids=["ascii", "cjk", "mixed", "short"]
)
def test_the_longest_names_are_written(tmp_path, name):
    path = tmp_path / name
    with atomic_path(path) as temporary:
        temporary.write_text("whole")
    assert path.read_text() == "whole" and os.listdir(tmp_path) == [name]
    with pytest.raises(KeyError), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise KeyError
    assert path.read_text() == "whole" and os.listdir(tmp_path) == [name]
    remove_partial(path)


def test_short_names_are_of_whole_letters_and_differ():
    long = [short_name("語" * 90 + end, 100) for end in ("a", "b", "")]
    assert len(set(long)) == 3
    assert all(len(name.encode()) <= 100 and name.startswith("語" * 25) for name in long)
    assert short_name("語" * 33, 100) == "語" * 33


def test_real_paths_of_odd_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert real_path("a/../b") == tmp_path / "b"
    with pytest.raises(OutputError, match="cannot be used"):
        real_path("a\0b", error=OutputError)


def test_a_user_without_a_home(monkeypatch, tmp_path):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home directory")))
    with pytest.raises(OutputError, match="no home folder; set XDG_CACHE_HOME"):
        cache_folder()
    assert found_cache() is None
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "pcaseg" and found_cache() is None
    cache_folder().mkdir()
    assert found_cache() == cache_folder()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may enter every folder")
def test_a_locked_folder(tmp_path):
    (tmp_path / "locked").mkdir(mode=0)
    with pytest.raises(ImageError, match="Permission denied"):
        entries(tmp_path / "locked", error=ImageError)
