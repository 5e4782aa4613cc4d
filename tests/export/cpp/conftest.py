"""Fixtures of the C++ library's tests: the builds, and the bundles that both runtimes open."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from build import Builder
from native import Library
from support import made_once, small_model

from pcaseg.export.bundle import write_bundle
from pcaseg.export.options import ExportOptions
from pcaseg.runtime.segmenter import Segmenter

ROOT = Path(__file__).parents[3]
CLASSES = ("cat", "grass", "sky", "red ball", "tree", "house", "road")

GRAPHS = {
    "logits": ("tiny", ExportOptions()),
    "shortlist": ("tiny", ExportOptions(shortlist=6)),
    "labels": ("tiny", ExportOptions(graph="labels", strategy="single")),
    "sliding labels": ("tiny", ExportOptions(graph="labels", strategy="sliding")),
    "eva-b-384": ("eva-b-384", ExportOptions()),
}
"""Presets and options of the bundles."""


def pytest_collection_modifyitems(items) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents and "arm64" not in item.path.name:
            item.add_marker(pytest.mark.cpp)


@pytest.fixture(scope="session")
def builder(pytestconfig) -> Builder:
    if lack := Builder.lack():
        pytest.skip(lack)
    return Builder(pytestconfig.cache.mkdir("cpp"))


@pytest.fixture(scope="session")
def built(builder) -> Path:
    """The folder of the library and the examples."""
    return builder.build("release", *builder.onnxruntime())


@pytest.fixture(scope="session")
def library(built) -> Library:
    return Library(built / "libpcaseg.so")


@pytest.fixture(scope="session")
def bundle(pytestconfig) -> Callable[[str], Path]:
    """Exports a row of `GRAPHS`; the bundles are kept until the sources of the export change."""
    sources = sorted(
        path for part in ("export", "pcaseg/model", "pcaseg/deploy") for path in (ROOT / part).glob("*.py")
    )
    version = zlib.crc32(b"".join(path.read_bytes() for path in [*sources, ROOT / "pcaseg/configs.py"]))
    folder = pytestconfig.cache.mkdir("cpp-bundles")

    def get(graph: str) -> Path:
        path = folder / f"{graph.replace(' ', '-')}-{version:08x}.pcaseg"
        preset, options = GRAPHS[graph]
        return made_once(path, lambda part: write_bundle(small_model(preset), part, options=options))

    return get


@pytest.fixture(scope="session")
def vocabulary(bundle, tmp_path_factory) -> Path:
    """A vocabulary file of `CLASSES`."""
    path = tmp_path_factory.mktemp("vocabulary") / "room.safetensors"
    segmenter = Segmenter(bundle("logits"), threads=1)
    segmenter.set_vocabulary(CLASSES)
    segmenter.vocabulary.save(path)
    return path


@pytest.fixture(scope="session")
def frame() -> Callable[..., np.ndarray]:
    """Makes a frame `(height, width, 3)` of coloured blocks: tiny sees several classes in it."""

    def make(height: int, width: int, *, seed: int = 0) -> np.ndarray:
        random = np.random.default_rng((seed, height, width))
        blocks = random.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
        return np.ascontiguousarray(blocks.repeat(8, axis=0).repeat(8, axis=1)[:height, :width])

    return make
