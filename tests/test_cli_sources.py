"""`pcaseg segment` of recordings and videos, with the trained `tiny`."""

from __future__ import annotations

import pytest

pytest.importorskip("rosbags")
pytest.importorskip("av")
from support_sources import film, record

from pcaseg.cli import main

NAMES = ("--classes", "sky, grass, red car")


def segment(*words: object) -> int:
    return main(["segment", *map(str, words)])


def test_a_recording(tmp_path, capsys):
    source = record(tmp_path / "drive", 2, broken=[1], topics=("/left", "/right"))
    assert segment(source, "--topic", "/left", "--copy", "/said", *NAMES, "--out", tmp_path / "labels.mcap") == 2
    said = capsys.readouterr()
    assert "labels.mcap: 1 frames labelled, 0 done before, 1 failed; /left/labels" in said.out
    assert "/left at 11000000000 ns: encoding 'odd' is unknown" in said.err
    assert (tmp_path / "labels.mcap").is_file()


def test_a_video(tmp_path, capsys):
    source = film(tmp_path / "clip.mp4")
    assert segment(source, "--every", 4, "--start", 0.1, "--end", 0.8, *NAMES, "--out", tmp_path / "seen.mp4") == 0
    assert "2 frames labelled, 0 failed" in capsys.readouterr().out
    assert (tmp_path / "seen.labels.mkv").is_file()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("drive", "clip.mp4"), "clip.mp4: a recording is labelled alone; give one at a time"),
        (("clip.mp4", "clip.mp4", "--out", "seen.mp4"), "clip.mp4: a video is labelled alone"),
        (("clip.mp4",), "--out segmented: name the video to write, such as labelled.mp4"),
        (("clip.mp4", "--topic", "/left"), "--topic and --copy are for a recording; leave them out"),
        (("photo.png", "--every", "2"), "--every, --start, --end and --smooth are for a video; leave them out"),
        (("drive", "--every", "2"), "--every, --start, --end and --smooth are for a video; leave them out"),
        (
            ("drive", "--topic", "/middle", "--out", "x.mcap"),
            "no topic '/middle'; topics with images: /camera/image",
        ),
        (("none.mcap", "--out", "x.mcap"), "none.mcap: no such recording; check the path"),
        (("none.mp4", "--out", "x.mp4"), "none.mp4: no such video; check the path"),
    ],
)
def test_what_is_refused(tmp_path, monkeypatch, capsys, words, says):
    monkeypatch.chdir(tmp_path)
    record(tmp_path / "drive", 1)
    film(tmp_path / "clip.mp4", [0])
    assert segment(*words, *NAMES) == 2
    said = capsys.readouterr().err.splitlines()
    assert len([line for line in said if line.startswith("error: ")]) == 1 and says in said[-1]
    assert not list(tmp_path.glob("x.*"))
