"""OpenVINO on graphs of a few nodes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from pcaseg.errors import PcasegError
from pcaseg.runtime.backends import open_backend
from pcaseg.runtime.bundle import Bundle

openvino = pytest.importorskip("openvino")
CAPABLE = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
TEXT = np.eye(3, 6, dtype=np.float32)


@pytest.mark.parametrize("device", ["tpu", "cpu:0", "cuda", "gpu.7"])
def test_devices_that_are_not_there(bundle_path: Path, device: str) -> None:
    with pytest.raises(PcasegError, match=r"finds no such device; choose one of .*cpu"):
        open_backend("openvino", Bundle(bundle_path), device=device)


@pytest.mark.parametrize(("hint", "able"), [("bfloat16", "BF16"), ("float16", "FP16"), ("int8", None)])
def test_hints(bundle_path: Path, hint: str, able: str | None) -> None:
    if able in CAPABLE:
        backend = open_backend("openvino", Bundle(bundle_path), options={"precision_hint": hint})
        assert backend.name == f"openvino-cpu-{hint}"
        return
    with pytest.raises(PcasegError, match=f"precision_hint='{hint}': (choose one of|cpu does not compute in it)"):
        open_backend("openvino", Bundle(bundle_path), options={"precision_hint": hint})


def test_nothing_is_reported_or_kept_at_home(bundle_path: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from pcaseg import Segmenter; Segmenter(sys.argv[1], 'openvino'); "
        "assert not [name for name in sys.modules if name.startswith('openvino_telemetry')]"
    )
    environ = os.environ | {"HOME": str(tmp_path / "home")}
    (tmp_path / "home").mkdir()
    subprocess.run([sys.executable, "-c", code, str(bundle_path)], check=True, env=environ)
    assert list((tmp_path / "home").iterdir()) == []


def test_float32_is_what_the_graph_is_compiled_for(bundle_path: Path) -> None:
    """OpenVINO's own default is bfloat16 where the processor has it."""
    compiled = open_backend("openvino", Bundle(bundle_path), threads=1)._segmenter  # type: ignore[attr-defined]
    assert compiled.get_property("INFERENCE_PRECISION_HINT") == openvino.Type.f32
    assert compiled.get_property("INFERENCE_NUM_THREADS") == 1


@pytest.mark.parametrize("threads", [0, -1, 1.5, 1025])
def test_thread_counts(bundle_path: Path, threads: int) -> None:
    with pytest.raises(PcasegError, match=f"threads={threads}: give 1 to 1024"):
        open_backend("openvino", Bundle(bundle_path), threads=threads)


def test_compiled_graphs_are_kept(bundle_path: Path, tmp_path: Path) -> None:
    images, cache = np.full((1, 3, 32, 32), 9.0, np.float32), tmp_path / "cache"
    options = {"model_cache": cache}
    first = open_backend("openvino", Bundle(bundle_path), options=options).logits(images, TEXT)
    kept = sorted(cache.iterdir())
    assert kept
    again = open_backend("openvino", Bundle(bundle_path), options=options)
    assert again._segmenter.get_property("LOADED_FROM_CACHE")  # type: ignore[attr-defined]
    np.testing.assert_array_equal(again.logits(images, TEXT), first)
    for file in kept:
        file.write_bytes(b"no graph")
    np.testing.assert_array_equal(
        open_backend("openvino", Bundle(bundle_path), options=options).logits(images, TEXT), first
    )
    shutil.rmtree(cache)
    cache.write_text("a file")
    with pytest.raises(PcasegError, match="cache: is no folder"):
        open_backend("openvino", Bundle(bundle_path), options=options)


def test_threads_do_not_mix_answers(write_label_bundle: Callable[..., Path]) -> None:
    backend = open_backend("openvino", Bundle(write_label_bundle()), threads=1)
    images = np.random.default_rng(2).integers(0, 256, (40, 1, 20, 30, 3), dtype=np.uint8)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda image: backend.labels(image, TEXT)[0], images))
    for image, labels in zip(images, found, strict=True):
        np.testing.assert_array_equal(labels, image.argmax(axis=3))
