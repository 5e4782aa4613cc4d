"""The C++ readers of manifests, zip files and vocabularies: the Python runtime's sentences, for 10,000 damaged inputs.

The program that reads them is built with AddressSanitizer and UndefinedBehaviorSanitizer, which end it at the first
access or number that is not defined.
"""

from __future__ import annotations

import hashlib
import io
import json
import random
import re
import struct
import subprocess
import sys
import zipfile
from collections import Counter
from pathlib import Path

import pytest
from build import SOURCES, run
from native import BAD_BUNDLE, BAD_VOCABULARY, OK

from pcaseg.errors import BundleError, VocabularyError
from pcaseg.runtime.segmenter import Segmenter

PATHS = ("scene.pcaseg/manifest.json", "scene.zip", "room.safetensors")
MANIFEST, ZIP, VOCABULARY = range(3)
INPUTS = {MANIFEST: 5000, ZIP: 2500, VOCABULARY: 2500}
"""Mutations of each reader's inputs."""

SANITIZERS = "address,undefined"

ONLY_IN_PYTHON = re.compile("one to the text tower|holds the invisible character")
"""Faults of names that `pcaseg vocab` finds before a vocabulary is made."""

REASON = re.compile(r"damaged or not a safetensors file \(.*\)", re.DOTALL)
"""Words that are the safetensors package's own, and change with it."""


@pytest.fixture(scope="module")
def sanitized(builder) -> Path:
    """The folder of a build that ends at the first access or number that is not defined."""
    settings = [f"-DPCASEG_SANITIZERS={SANITIZERS}", "-DCMAKE_CXX_FLAGS_RELEASE=-O1"]
    return builder.build("sanitized", *builder.onnxruntime(), *settings)


@pytest.fixture(scope="module")
def say(sanitized) -> Path:
    """The program of `say.cpp`."""
    program, source = sanitized / "say", Path(__file__).with_name("say.cpp")
    flags = ["-std=c++17", "-O1", "-g", f"-fsanitize={SANITIZERS}", f"-I{SOURCES / 'include'}"]
    run("g++", *flags, source, "-o", program, f"-L{sanitized}", "-lpcaseg", f"-Wl,-rpath,{sanitized}")
    return program


@pytest.fixture(scope="module")
def manifest(bundle) -> dict:
    """A manifest whose graph is no graph: what reads it to the end goes no further, and fast."""
    graph = b"not a graph"
    found = json.loads((bundle("logits") / "manifest.json").read_text())
    entry = {"sha256": hashlib.sha256(graph).hexdigest(), "bytes": len(graph)}
    return found | {"files": {"segmenter.onnx": entry}, "graphs": {}}


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """The folder, entered, that the inputs are written to: messages name short paths."""
    (tmp_path / "scene.pcaseg").mkdir()
    (tmp_path / "scene.pcaseg/segmenter.onnx").write_bytes(b"not a graph")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def zipped(manifest: bytes, method: int, prefix: str) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", method) as archive:
        archive.writestr(prefix + "manifest.json", manifest)
        archive.writestr(prefix + "segmenter.onnx", b"not a graph")
    return data.getvalue()


def mutated(seed: bytes, chance: random.Random) -> bytes:
    """One to three cuts, copies, changed bytes or changed numbers."""
    data = bytearray(seed)
    for _ in range(chance.choice((1, 1, 2, 3))):
        at, length = chance.randrange(len(data) + 1), min(chance.choice((1, 1, 2, 8, 40)), len(data))
        kind = chance.randrange(6)
        if kind == 0:
            del data[at:]
        elif kind == 1:
            del data[at : at + length]
        elif kind == 2:
            start = chance.randrange(len(data) + 1)
            data[at:at] = data[start : start + length]
        elif kind == 3:
            data[at : at + 1] = bytes([chance.randrange(256)])
        elif kind == 4:
            data[at : at + 1] = chance.choice((b"-", b"0", b"9" * 25, b"1e400", b"null", b'"', b"[", b"{", b"\\u00e9"))
        else:
            data[at : at + 4] = struct.pack("<I", chance.choice((0, 1, 1 << 31, (1 << 32) - 1, len(data))))
    return bytes(data)


def mutated_values(manifest: dict, chance: random.Random) -> bytes:
    """One value of a manifest replaced or left out, the text sound."""
    text = json.dumps(manifest)
    changed = json.loads(text)
    at, value = changed, None
    while isinstance(at, dict) and at:
        parent, key = at, chance.choice(list(at))
        at = at[key]
        if chance.random() < 0.3:
            break
    value = chance.choice(
        (None, True, 0, -1, 1, 7, 10**30, 1.5, 1e16, float("nan"), "", "a'b\n", "é" * 90, [], [1, 2], {}, {"": 0})
    )
    if chance.random() < 0.2:
        del parent[key]
    elif chance.random() < 0.1:
        parent[chance.choice(("../x", "a\\b", "tab\t", "x" * 70, "é", key + "/"))] = parent.pop(key)
    else:
        parent[key] = value
    return json.dumps(changed, ensure_ascii=chance.random() < 0.5).encode()


def python_says(place: int, good: Segmenter) -> tuple[int, str]:
    """Status and sentence of the Python runtime."""
    try:
        if place == VOCABULARY:
            good.set_vocabulary(PATHS[place])
        else:
            Segmenter(PATHS[place].split("/")[0])
    except BundleError as error:
        return BAD_BUNDLE, str(error)
    except VocabularyError as error:
        return BAD_VOCABULARY, str(error)
    return OK, ""


def comparable(sentence: str) -> str:
    """A sentence without what differs from one version of Python to the next."""
    sentence = REASON.sub("damaged", sentence)
    if sys.version_info >= (3, 13):
        sentence = re.sub(r"\((Illegal trailing comma|Expecting (value|property name)).*?\)", "(JSON)", sentence)
    return sentence


def corpus(inputs: list[tuple[int, bytes]]) -> bytes:
    return b"".join(struct.pack("<BI", place, len(data)) + data for place, data in inputs)


def compare(say: Path, good: Path, inputs: list[tuple[int, bytes]]) -> Counter:
    """Counts of statuses, once both runtimes have said the same of every input."""
    done = subprocess.run([say, good, *PATHS], input=corpus(inputs), capture_output=True)
    assert done.returncode == 0, done.stderr.decode(errors="replace")[-4000:]
    lines = done.stdout.decode().splitlines()
    assert len(lines) == len(inputs)
    wrong, counts, opened = [], Counter(), Segmenter(good, threads=1)
    for (place, data), line in zip(inputs, lines, strict=True):
        Path(PATHS[place]).write_bytes(data)
        status, sentence = python_says(place, opened)
        found, _, said = line.partition(" ")
        counts[place, status] += 1
        if ONLY_IN_PYTHON.search(sentence):
            continue
        if (int(found), comparable(said)) != (status, comparable(sentence)):
            wrong.append((data if len(data) < 300 else data[:100], line, status, sentence))
    assert wrong == [], f"{len(wrong)} differ, such as\n" + "\n".join(map(str, wrong[:12]))
    return counts


@pytest.fixture(scope="module")
def tree(bundle, tmp_path_factory) -> bytes:
    """A vocabulary file with synonyms that count by themselves, and parts."""
    path = tmp_path_factory.mktemp("vocabulary") / "tree.safetensors"
    entries = ["tv; television", "grass", "car; automobile: wheel, window"]
    Segmenter(bundle("logits"), threads=1).prepare(entries, templates=["a {}", "the {}"]).save(path)
    return path.read_bytes()


def test_damaged_inputs(say, bundle, vocabulary, tree, manifest, place):
    chance = random.Random(20)
    text = json.dumps(manifest, indent=1).encode()
    zips = [zipped(text, method, prefix) for method in (0, zipfile.ZIP_DEFLATED) for prefix in ("", "a.pcaseg/")]
    sound = [vocabulary.read_bytes(), tree]
    inputs = [(MANIFEST, text), *((ZIP, data) for data in zips), *((VOCABULARY, data) for data in sound)]
    for number in range(INPUTS[MANIFEST]):
        inputs.append((MANIFEST, mutated(text, chance) if number % 2 else mutated_values(manifest, chance)))
    inputs += [(ZIP, mutated(chance.choice(zips), chance)) for _ in range(INPUTS[ZIP])]
    for number in range(INPUTS[VOCABULARY]):
        data = sound[number // 2 % 2]
        head = 8 + int.from_bytes(data[:8], "little")
        header = mutated(data[8:head], chance)
        whole = len(header).to_bytes(8, "little") + header + data[head:]
        inputs.append((VOCABULARY, mutated(data, chance) if number % 2 else whole))
    counts = compare(say, bundle("logits"), inputs)
    assert counts[MANIFEST, BAD_BUNDLE] > 4000 and counts[ZIP, BAD_BUNDLE] > 2000
    assert counts[VOCABULARY, BAD_VOCABULARY] > 1000 and counts[VOCABULARY, OK] > 10


@pytest.mark.parametrize("graph", ["logits", "shortlist", "labels"])
def test_segmenting_is_defined(sanitized, built, bundle, vocabulary, frame, tmp_path, graph):
    """Every access and number on the way of odd frames through both strategies, and the labels are the same."""
    strategies = (
        [[]] if graph == "labels" else [["--strategy", "single"], ["--strategy", "sliding", "--window-batch", "2"]]
    )
    for height, width in ((1, 1), (67, 131), (130, 3)):
        for words in strategies:
            labels = []
            for build in (sanitized, built):
                command = [build / "pcaseg-segment", bundle(graph), vocabulary, tmp_path, "--raw", f"{width}x{height}"]
                run(*command, *words, input=frame(height, width).tobytes())
                labels.append((tmp_path / "000000.png").read_bytes())
            assert labels[0] == labels[1]
