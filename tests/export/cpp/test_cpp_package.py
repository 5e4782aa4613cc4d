"""The library as its users meet it: installed, found by CMake and pkg-config, driven by the example programs."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from build import SOURCES, run
from conftest import CLASSES
from PIL import Image

import pcaseg
from pcaseg.runtime.segmenter import Segmenter

CONSUMER = """
#include <pcaseg.h>
#include <stdio.h>
int main(void) {
  pcaseg_segmenter* segmenter = NULL;
  if (pcaseg_open("nowhere", NULL, &segmenter) != PCASEG_BAD_BUNDLE || segmenter != NULL) return 1;
  printf("%s: %s\\n", pcaseg_version(), pcaseg_error());
  pcaseg_close(segmenter);
  return 0;
}
"""
SAID = f"{pcaseg.__version__}: nowhere: no such bundle; check the path\n"

PROJECT = """
cmake_minimum_required(VERSION 3.16)
project(robot C)
find_package(pcaseg 0.1 REQUIRED)
add_executable(robot robot.c)
target_link_libraries(robot PRIVATE pcaseg::pcaseg)
"""


def segment(built: Path, *words, stdin: bytes) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([built / "pcaseg-segment", *words], input=stdin, capture_output=True, check=False)


@pytest.fixture(scope="module")
def installed(built, tmp_path_factory) -> Path:
    """The folder that the library is installed to."""
    prefix = tmp_path_factory.mktemp("installed")
    run("cmake", "--install", built, "--prefix", prefix)
    return prefix


def test_a_library_that_the_loader_would_not_find_is_refused(builder, tmp_path):
    """ONNX Runtime as the wheel holds it, without the name that it was linked for."""
    library = builder.linked(next((Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so.1.*"))).resolve()
    settings = [f"-DONNXRUNTIME_INCLUDE_DIR={builder.headers()}", f"-DONNXRUNTIME_LIBRARY={library}"]
    with pytest.raises(AssertionError, match=r"the loader looks for it as libonnxruntime\.so\.1; *\s*make a link"):
        run("cmake", "-S", SOURCES, "-B", tmp_path / "build", *settings)


def test_find_package(installed, tmp_path):
    """A project in C, which knows nothing of ONNX Runtime."""
    (tmp_path / "robot.c").write_text(CONSUMER)
    (tmp_path / "CMakeLists.txt").write_text(PROJECT)
    run("cmake", "-S", tmp_path, "-B", tmp_path / "build", f"-DCMAKE_PREFIX_PATH={installed}")
    run("cmake", "--build", tmp_path / "build")
    assert run(tmp_path / "build/robot", env=loader(installed)) == SAID


def test_pkg_config(installed, tmp_path):
    (tmp_path / "robot.c").write_text(CONSUMER)
    (described,) = installed.rglob("pcaseg.pc")
    paths = os.environ | {"PKG_CONFIG_PATH": str(described.parent)}
    assert run("pkg-config", "--modversion", "pcaseg", env=paths).strip() == pcaseg.__version__
    flags = run("pkg-config", "--cflags", "--libs", "pcaseg", env=paths).split()
    run("gcc", "-std=c99", "-pedantic", "-Wall", "-Werror", tmp_path / "robot.c", *flags, "-o", tmp_path / "robot")
    assert run(tmp_path / "robot", env=loader(installed)) == SAID


def loader(installed: Path) -> dict[str, str]:
    """An environment in which the loader finds what was installed; that finds ONNX Runtime itself."""
    (library,) = installed.rglob("libpcaseg.so")
    return os.environ | {"LD_LIBRARY_PATH": str(library.parent)}


def test_only_the_interface_is_seen_from_outside(built):
    lines = run("nm", "-D", "--defined-only", built / "libpcaseg.so").splitlines()
    names = {line.split()[-1].partition("@")[0] for line in lines if line.split()[-2] == "T"}
    assert names == {
        *("pcaseg_version", "pcaseg_error", "pcaseg_open", "pcaseg_close", "pcaseg_load_vocabulary"),
        *("pcaseg_set_vocabulary", "pcaseg_class_count", "pcaseg_class_name", "pcaseg_bundle_sha256"),
        *("pcaseg_segment", "pcaseg_segment_batch"),
    }


def test_every_kind_of_frame(built, bundle, vocabulary, frame, tmp_path):
    """PNG of every kind that Pillow reads the same, PPM, raw frames, several in a row."""
    image = frame(45, 62)
    segmenter = Segmenter(bundle("logits"), threads=1)
    segmenter.set_vocabulary(vocabulary)
    pictures = {
        "rgb": Image.fromarray(image),
        "alpha": Image.fromarray(np.dstack([image, image[..., :1]])),
        "grey": Image.fromarray(image[..., 0]),
        "palette": Image.fromarray(image).quantize(16),
        "bits": Image.fromarray(image[..., 0]).convert("1"),
    }
    streams = {}
    for name, picture in pictures.items():
        picture.save(tmp_path / f"{name}.png")
        streams[name] = (tmp_path / f"{name}.png").read_bytes(), [segmenter(picture).labels]
    Image.fromarray(image).save(tmp_path / "one.ppm")
    header, pixels = b"P6 # a comment\n62 45\n255\n", image.tobytes()
    streams["ppm"] = (tmp_path / "one.ppm").read_bytes() + header + pixels, [segmenter(image).labels] * 2
    for name, (stream, wanted) in streams.items():
        (folder := tmp_path / f"out-{name}").mkdir()
        done = segment(built, bundle("logits"), vocabulary, folder, "--threads", "1", stdin=stream)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count(b"62 x 45 px, prepare ") == len(wanted)
        found = [np.array(Image.open(path)) for path in sorted(folder.iterdir())]
        assert len(found) == len(wanted)
        assert all((a == b).all() for a, b in zip(found, wanted, strict=True)), name
    (tmp_path / "raw").mkdir()
    done = segment(
        built,
        bundle("logits"),
        vocabulary,
        tmp_path / "raw",
        "--raw",
        "62x45",
        "--strategy",
        "sliding",
        stdin=pixels * 2,
    )
    assert done.returncode == 0 and len(list((tmp_path / "raw").iterdir())) == 2
    sliding = Segmenter(bundle("logits"), threads=1, strategy="sliding")
    sliding.set_vocabulary(vocabulary)
    assert (np.array(Image.open(tmp_path / "raw/000001.png")) == sliding(image).labels).all()


def test_frames_that_cannot_be_read(built, bundle, vocabulary, frame, tmp_path):
    Image.fromarray(frame(20, 20)).save(tmp_path / "a.png")
    good = (tmp_path / "a.png").read_bytes()
    bad = {
        b"GIF89a": b"neither PNG nor binary PPM",
        b"P6\n4 4\n65535\n": b"save it with 255",
        b"P6\n4 99999\n255\n": b"give 1 to 16384 a side",
        b"P6\n4 4\n255\nabc": b"cut short",
        good[: len(good) // 2]: b"PNG: ",
        good[:45] + b"\0" * 9 + good[54:]: b"PNG: ",
        b"": b"standard input: holds no frame; give a PNG",
        good + b"garbage": b"standard input, frame 1: neither PNG nor",
    }
    for stream, said in bad.items():
        done = segment(built, bundle("logits"), vocabulary, tmp_path, stdin=stream)
        assert done.returncode == 2 and said in done.stderr and done.stderr.count(b"\n") == 1, done.stderr
    done = segment(built, bundle("logits"), vocabulary, tmp_path / "absent", stdin=good)
    assert done.returncode == 2 and b"choose another folder" in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--raw", "4"], "--raw 4: give WIDTHxHEIGHT in pixels"),
        (["--raw", "0x0"], "--raw 0x0: give WIDTHxHEIGHT"),
        (["--raw", "4x4x4"], "--raw 4x4x4: give WIDTHxHEIGHT"),
        (["--threads", "many"], "--threads many: give a whole number of 1 or more"),
        (["--threads", "2.5"], "--threads 2.5: give a whole number"),
        (["--threads", "99999999999"], "--threads 99999999999: give a whole number"),
        (["--threads", "1025"], "threads=1025: give 1 to 1024"),
        (["--window-batch", "-1"], "--window-batch -1: give a whole number"),
        (["--strategy", "single", "--threads"], "--threads: give a value"),
        (["--strategy", "tiled"], "strategy='tiled': choose one of single, sliding"),
        (["--colour", "red"], "--colour: no such option; pcaseg-segment --help shows them"),
    ],
)
def test_options_that_cannot_be(built, bundle, vocabulary, tmp_path, words, said):
    done = segment(built, bundle("logits"), vocabulary, tmp_path, *words, stdin=b"")
    assert done.returncode == 2 and done.stderr.startswith(f"error: {said}".encode()), done.stderr
    assert done.stderr.count(b"\n") == 1


def test_help(built):
    done = segment(built, "--help", stdin=b"")
    assert done.returncode == 0 and done.stdout.startswith(b"usage: pcaseg-segment BUNDLE")
    assert b"pcaseg-segment --help says more" in segment(built, stdin=b"").stderr


@pytest.mark.parametrize("words", [["--help"], ["bundle", "vocabulary", "folder"]])
def test_lost_output_is_said(built, bundle, vocabulary, frame, tmp_path, words):
    places = {"bundle": bundle("logits"), "vocabulary": vocabulary, "folder": tmp_path}
    Image.fromarray(frame(50, 50)).save(tmp_path / "a.png")
    command = [built / "pcaseg-segment", *(places.get(word, word) for word in words)]
    with (tmp_path / "a.png").open("rb") as given, open("/dev/full", "wb") as full:
        done = subprocess.run(command, stdin=given, stdout=full, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 2 and done.stderr.startswith(b"error: standard output: cannot be written"), done.stderr


@pytest.mark.parametrize("room", [0, 100])
def test_labels_without_room_are_not_left_half_written(built, bundle, vocabulary, tmp_path, room):
    """The lack of room shows when the file is closed; what stood there before stays."""
    noise = np.random.default_rng(0).integers(0, 256, (160, 200, 3), dtype=np.uint8)
    (tmp_path / "000000.png").write_bytes(b"former")
    done = subprocess.run(
        [built / "pcaseg-segment", bundle("logits"), vocabulary, tmp_path, "--raw", "200x160", "--threads", "1"],
        input=noise.tobytes(),
        capture_output=True,
        check=False,
        restore_signals=False,  # a write beyond the limit fails, and does not kill
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (room, room)),
    )
    assert done.returncode == 2 and b"000000.png: cannot be written; make room" in done.stderr, done.stderr
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"former"]


def test_more_than_256_classes_make_grey_of_16_bits(built, bundle, frame, tmp_path):
    segmenter = Segmenter(bundle("shortlist"), threads=1)
    segmenter.set_vocabulary([f"thing {i}" for i in range(260)] + list(CLASSES))
    segmenter.vocabulary.save(tmp_path / "many.safetensors")
    image = frame(24, 24)
    done = segment(
        built, bundle("shortlist"), tmp_path / "many.safetensors", tmp_path, "--raw", "24x24", stdin=image.tobytes()
    )
    assert done.returncode == 0, done.stderr
    found = np.array(Image.open(tmp_path / "000000.png"))
    assert found.dtype == np.uint16 and (found == segmenter(image).labels).all()


def test_swapping_vocabularies(built, bundle, vocabulary, frame, tmp_path):
    segmenter = Segmenter(bundle("logits"), threads=1)
    segmenter.set_vocabulary(["sea", "sand"])
    segmenter.vocabulary.save(tmp_path / "beach.safetensors")
    Image.fromarray(frame(50, 50)).save(tmp_path / "a.png")
    words = [built / "pcaseg-swap", bundle("logits"), tmp_path / "beach.safetensors", vocabulary]
    with open(tmp_path / "a.png", "rb") as stdin:
        said = run(*words, stdin=stdin)
    first, second = said.split(f"{vocabulary}\n")
    assert ("sea" in first) != ("sea" in second) and any(name in second for name in CLASSES)
    shares = [float(line.split()[0]) for line in second.splitlines()]
    assert abs(sum(shares) - 100) < 1


@pytest.mark.skipif(shutil.which("valgrind") is None, reason="no valgrind; apt-get install valgrind")
def test_start_and_stop_leak_nothing(built, bundle, vocabulary, tmp_path):
    """Under valgrind: a bundle opened, a vocabulary loaded, both closed, without an invalid access or a lost byte.

    ONNX Runtime alone may copy bytes onto themselves, which it does when it reads a graph.
    """
    (tmp_path / "known").write_text("{\n own\n Memcheck:Overlap\n fun:__memcpy_chk\n obj:*/libonnxruntime.so*\n}\n")
    strict = ["--error-exitcode=9", "--leak-check=full", "--errors-for-leak-kinds=definite"]
    command = ["valgrind", "-q", *strict, f"--suppressions={tmp_path / 'known'}", built / "pcaseg-segment"]
    command += [bundle("logits"), vocabulary, tmp_path, "--threads", "1"]
    done = subprocess.run(command, input=b"", capture_output=True, check=False)
    said = b"error: standard input: holds no frame; give a PNG or PPM\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, b"", said)
