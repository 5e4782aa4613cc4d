"""Each program of `examples/` runs as its docstring says, and answers a bad argument with one sentence."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from pcaseg.runtime.palette import class_colours

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return tmp_path_factory.mktemp("examples")


def run(name: str, *words: str | Path, code: int = 0, **environment: str) -> tuple[str, str]:
    """Standard output and standard error of a program."""
    command = [sys.executable, str(EXAMPLES / name), *map(str, words)]
    environment |= {"OMP_NUM_THREADS": "1"}
    found = subprocess.run(command, capture_output=True, text=True, env=os.environ | environment)
    assert found.returncode == code, found.stdout + found.stderr
    return found.stdout, found.stderr


def test_a_bundle_that_stands_is_taken(trained_tiny):
    written = (trained_tiny / "manifest.json").stat().st_mtime_ns
    shown, _ = run("tiny_bundle.py", "--out", trained_tiny)
    assert shown.strip() == str(trained_tiny)
    assert (trained_tiny / "manifest.json").stat().st_mtime_ns == written


def test_first_picture(out, trained_tiny):
    shown, _ = run("first_picture.py", "--bundle", trained_tiny, "--out", out / "first")
    assert Image.open(out / "first" / "picture_labels.png").size == (384, 384)
    assert shown.count("%") > 2


def test_camera_loop(trained_tiny):
    shown, _ = run("camera_loop.py", "--bundle", trained_tiny, "--frames", "20")
    lines = shown.splitlines()
    frames = [line for line in lines if " s: mostly " in line]
    assert [line.split(" ")[0] for line in frames] == [f"{number / 30:.3f}" for number in range(20)]
    (changed,) = [line for line in lines if line.startswith("from frame ")]
    first = int(changed.split(" ")[2])
    assert 10 <= first <= 14  # two under way, one waiting and one being read flow on while the names are encoded
    assert all(("thing" in line or "sky" in line or "grass" in line) for line in frames[first:])
    assert lines[-1].endswith("of 20 frames")


def test_vocabulary_swap(out, trained_tiny):
    shown, _ = run("vocabulary_swap.py", "--bundle", trained_tiny, "--out", out / "swap")
    assert shown.strip().endswith("the same labels")
    assert (out / "swap" / "parts.safetensors").is_file()
    assert len(list((out / "swap").glob("*_overlay.png"))) == 3


def test_folder_batch_goes_on(out, trained_tiny):
    shown, _ = run("folder_batch.py", "--bundle", trained_tiny, "--out", out / "batch")
    assert "4 segmented, 0 done before, 0 could not be read" in shown
    images = out / "batch" / "images"
    (images / "broken.png").write_bytes(b"no picture")
    shown, errors = run("folder_batch.py", images, "--bundle", trained_tiny, "--out", out / "batch", code=1)
    assert "0 segmented, 4 done before, 1 could not be read" in shown
    assert "broken.png" in errors


@pytest.fixture(scope="module")
def bindings(tmp_path_factory):
    """A folder with the system's PyGObject alone, for this Python."""
    folder = tmp_path_factory.mktemp("bindings")
    script = "import gi; gi.require_version('GstApp', '1.0'); print(gi.__path__[0])"
    for where in ("/usr/bin/python3", sys.executable):
        found = subprocess.run([where, "-c", script], capture_output=True, text=True, env={"PYTHONPATH": str(folder)})
        if found.returncode:
            pytest.skip("no PyGObject with GStreamer for this Python; examples/gstreamer_labels.py says what it needs")
        if not (folder / "gi").exists():
            (folder / "gi").symlink_to(found.stdout.strip())
    return str(folder)


@pytest.mark.parametrize("width", [64, 97])
def test_gstreamer_labels(out, trained_tiny, bindings, width):
    """Frames whose rows are padded and whose rows are not come out in their size, in the classes' colours."""
    source = f"videotestsrc num-buffers=3 pattern=blue ! video/x-raw,width={width},height=50"
    sink = f"pngenc ! multifilesink location={out}/{width}-%d.png"
    (out / "names.txt").write_text("sky\nwater\ngrass\n")
    words = ["--bundle", trained_tiny, "--vocabulary", out / "names.txt", "--source", source, "--sink", sink]
    shown, _ = run("gstreamer_labels.py", *words, PYTHONPATH=bindings)
    assert shown == "3 frames labelled, 0 failed, 0 dropped\n"
    pictures = [Image.open(path) for path in sorted(out.glob(f"{width}-*.png"))]
    assert [picture.size for picture in pictures] == [(width, 50)] * 3
    shades = [tuple(colour // 2 + (0, 0, 127)) for colour in class_colours(["sky", "water", "grass"])]
    assert pictures[2].getpixel((width // 2, 25)) in shades


@pytest.mark.parametrize(
    ("end", "described", "said"),
    [
        ("--source", "nosuchthing", 'no element "nosuchthing"'),
        ("--source", "filesrc location=absent.ogv ! decodebin", "Resource not found"),
        ("--sink", "filesink location=/dev/full", "No space left"),
    ],
)
def test_gstreamers_faults_are_one_sentence(trained_tiny, bindings, end, described, said):
    words = ["--bundle", trained_tiny, "--sink", "fakesink", end, described]
    _, errors = run("gstreamer_labels.py", *words, code=2, PYTHONPATH=bindings)
    assert errors.count("\n") == 1 and said in errors and "gst-launch-1.0" in errors


@pytest.mark.slow
def test_own_checkpoint(out):
    shown, _ = run("own_checkpoint.py", "--out", out / "own")
    assert (out / "own" / "own.pcaseg" / "manifest.json").is_file()
    assert float(shown.rsplit(" ", 1)[1]) < 1e-4


def test_every_program_is_run_here():
    source = Path(__file__).read_text(encoding="utf-8")
    programs = {path.name for path in EXAMPLES.glob("*.py")}
    assert len(programs) == 7
    assert not [name for name in programs if f'run("{name}"' not in source]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("first_picture.py", "--bundle", "none.pcaseg"), "none.pcaseg"),
        (("camera_loop.py", "--frames", "0"), "--frames 0: give 1 or more"),
        (("vocabulary_swap.py", "--bundle", "none.pcaseg"), "none.pcaseg"),
        (("folder_batch.py", "nowhere", "--bundle", "none.pcaseg"), "none.pcaseg"),
        (("own_checkpoint.py", "--checkpoint", "none.pth"), "none.pth"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_bad_arguments_are_one_sentence(words, sentence, tmp_path):
    _, errors = run(*words, "--out", tmp_path / "out", code=2)
    assert errors.startswith("error: ") and errors.count("\n") == 1
    assert sentence in errors
    assert not (tmp_path / "out").exists()


def test_a_file_in_the_way_is_one_sentence(tmp_path):
    (tmp_path / "out").write_text("mine", encoding="utf-8")
    _, errors = run("first_picture.py", "--out", tmp_path / "out", code=2)
    assert errors.startswith("error: ") and errors.count("\n") == 1
    assert (tmp_path / "out").read_text(encoding="utf-8") == "mine"
