"""Exported graphs on OpenVINO: the numbers of ONNX Runtime, which other tests compare with the eager model."""

from __future__ import annotations

import numpy as np
import pytest

from pcaseg.export.options import ExportOptions
from pcaseg.runtime.backends import open_backend
from pcaseg.runtime.bundle import Bundle

pytest.importorskip("openvino")
RANDOM = np.random.default_rng(0)


def both(path, call):
    """What `call` gives with each library."""
    return [call(open_backend(library, Bundle(path), threads=1)) for library in ("onnxruntime", "openvino")]


def unit_text(T, D):
    text = np.random.default_rng(T).standard_normal((T, D)).astype(np.float32)
    return text / np.linalg.norm(text, axis=1, keepdims=True)


@pytest.mark.parametrize(("windows", "classes"), [(1, 1), (3, 7), (1, 257)])
def test_logits(shared_bundle, windows, classes):
    images = RANDOM.uniform(0, 255, (windows, 3, 96, 96)).astype(np.float32)
    text = unit_text(classes, 64)
    expected, found = both(shared_bundle(ExportOptions()), lambda backend: backend.logits(images, text))
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()


def test_text(shared_bundle):
    names = ["sky", "red car", "tv monitor, television"]
    expected, found = both(shared_bundle(ExportOptions()), lambda backend: backend.encode_text(names))
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.long
@pytest.mark.parametrize("size", [(45, 71), (1, 33), (200, 131)])
def test_labels(shared_bundle, size):
    images, path = RANDOM.integers(0, 256, (2, *size, 3), dtype=np.uint8), shared_bundle(ExportOptions(graph="labels"))
    expected, found = both(path, lambda backend: backend.labels(images, unit_text(9, 64)))
    assert (found[0] == expected[0]).mean() > 0.999
    np.testing.assert_allclose(found[1], expected[1], atol=1e-4)


@pytest.mark.parametrize("classes", [3, 40, 1000])
def test_shortlists(tiny_shortlist, classes):
    images = RANDOM.uniform(0, 255, (2, 3, 96, 96)).astype(np.float32)
    expected, found = both(tiny_shortlist, lambda backend: backend.kept_logits(images, unit_text(classes, 64)))
    np.testing.assert_array_equal(found[1], expected[1])
    assert np.abs(found[0] - expected[0]).max() <= 1e-4 * np.abs(expected[0]).max()
