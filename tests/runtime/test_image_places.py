"""Images by address and in lists, on local and memory file systems; and what `--ray` refuses without Ray."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import FakeBackend
from PIL import Image

from pcaseg.cli import main
from pcaseg.errors import ImageError
from pcaseg.runtime.batch import expand_inputs, segment_files
from pcaseg.runtime.image_places import RemoteImage
from pcaseg.runtime.segmenter import Segmenter

fsspec = pytest.importorskip("fsspec", reason='the extra "ray" is not installed')


def png(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def segmenter() -> Segmenter:
    made = Segmenter(FakeBackend())
    made.set_vocabulary(["sky", "grass"])
    return made


@pytest.fixture
def memory():
    """Files in memory: three pictures, one of which is broken, in two folders."""
    held = fsspec.filesystem("memory")
    files = {"/a/1.png": png(1), "/b/1.png": png(2), "/b/2.png": b"none", "/b/3.png": b""}
    for path, data in files.items():
        held.pipe(path, data)
    held.pipe("/b/list.txt", b"# all\n1.png\n\nmemory://a/1.png\n2.png\n3.png\n1.png\nmissing.png\n")
    yield held
    held.rm("/", recursive=True)


def test_a_list_elsewhere_is_segmented_as_files_are(memory, segmenter, tmp_path):
    images, left_out = expand_inputs(["memory://b/list.txt"])
    assert [str(one) for one in images] == [
        f"memory://{name}" for name in ("b/1.png", "a/1.png", "b/2.png", "b/3.png", "b/missing.png")
    ]
    assert not left_out
    found = segment_files(segmenter, images, tmp_path / "out")
    assert [str(one) for one in found.done] == ["memory://b/1.png", "memory://a/1.png"]
    assert [str(one) for one, _ in found.failed] == ["memory://b/2.png", "memory://b/3.png", "memory://b/missing.png"]
    assert all(said.startswith(str(one)) and "; " in said for one, said in found.failed)
    again = segment_files(segmenter, images, tmp_path / "out")
    assert not again.done and again.skipped == found.done
    (tmp_path / "1.png").write_bytes(png(2))
    local = segment_files(segmenter, [tmp_path / "1.png"], tmp_path / "local").last
    (summary,) = [json.loads(path.read_text()) for path in (tmp_path / "out").glob("1_png.json")]
    assert summary["image"] == "memory://b/1.png"
    assert summary["classes"] == local[0].summary()["classes"]


def test_a_list_here_names_paths_and_addresses(memory, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "x.png").write_bytes(png(3))
    (tmp_path / "in" / "list.txt").write_text(f"x.png\n{tmp_path / 'in' / 'x.png'}\nfile://{tmp_path}/in/x.png\n")
    images, _ = expand_inputs([tmp_path / "in" / "list.txt", tmp_path / "in", "memory://a/1.png"])
    assert images == [
        tmp_path / "in" / "x.png",
        RemoteImage(f"file://{tmp_path}/in/x.png"),
        RemoteImage("memory://a/1.png"),
    ]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("memory://b/none.txt", "cannot be fetched"),
        ("nonsense://b/list.txt", "cannot be fetched"),
        ("empty.txt", "names no image"),
        ("gone.txt", "cannot be read"),
        ("lost.txt", "no such file or folder"),
    ],
)
def test_a_list_that_cannot_be_used_is_one_sentence(memory, tmp_path, monkeypatch, name, said):
    monkeypatch.chdir(tmp_path)
    Path("empty.txt").write_text("# nothing\n")
    Path("lost.txt").write_text("nowhere.png\n")
    with pytest.raises(ImageError, match=said) as refused:
        expand_inputs([name])
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["segment", "a.png", "--bundle", "b", "--classes", "a", "--workers", "2"], "--workers: is for --ray"),
        (["segment", "a.png", "--classes", "a", "--ray", "local"], "--ray: runs a bundle"),
        (["segment", "a.mp4", "--bundle", "b", "--classes", "a", "--ray", "local"], "does not go with a video"),
        (["segment", "a.mcap", "--bundle", "b", "--classes", "a", "--ray", "local"], "does not go with a recording"),
        (
            ["evaluate", "--data", "d", "--bundle", "b", "--ray", "local", "--processes", "2"],
            "not go with processes",
        ),
        (["evaluate", "--data", "d", "--bundle", "b", "--ray", "local", "--model", "m"], "does not go with model"),
        (["segment", "a.png", "--bundle", "b", "--classes", "a", "--ray", "local"], 'pip install ".[ray]"'),
        (["evaluate", "--data", "d", "--bundle", "b", "--ray", "ray://head:10001"], "give --ray auto, on a machine"),
        (["evaluate", "--data", "d", "--bundle", "b", "--ray", "auto"], 'pip install ".[ray]"'),
    ],
)
def test_options_that_do_not_go_together(monkeypatch, tmp_path, capsys, words, said):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main([*words, "--out", "out"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and said in line
    assert not Path("out").exists()
