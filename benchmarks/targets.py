"""Opens what `pcaseg bench` measures: a bundle with its eager source, or a preset exported for the purpose."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from pcaseg.benchmarks.plan import Target
from pcaseg.configs import Precision, Strategy, presets
from pcaseg.errors import PcasegError
from pcaseg.evaluation.agreement import photographs, resized
from pcaseg.export.bundle import write_bundle
from pcaseg.export.options import ExportOptions
from pcaseg.export.torch_backend import source_model
from pcaseg.images import read_image
from pcaseg.model.checkpoint import open_model
from pcaseg.model.network import PCASeg
from pcaseg.runtime.bundle import Bundle
from pcaseg.runtime.segmenter import choose_strategy
from pcaseg.runtime.shortlist import check_shortlist

IMAGE_SIZE = (480, 640)
"""(height, width) of the images by default, such as a small camera gives."""

EXPORTED: tuple[Precision, ...] = ("float32", "float16")
"""Precisions that bundles have."""


@contextmanager
def open_target(
    name: str,
    *,
    model_path: str | None = None,
    precisions: Sequence[str] | None = None,
    strategies: Sequence[Strategy] | None = None,
    photos: Sequence[Path] | None = None,
    image_size: tuple[int, int] | None = None,
    shortlist: int | None = None,
) -> Iterator[tuple[Target, tuple[str, ...], tuple[Strategy, ...]]]:
    """Yields what to measure, with the precisions and strategies to measure it in; temporary files go with the block.

    Args:
        name: of a preset, for seeded weights; or a bundle's path.
        model_path: the bundle's model file, where it is no longer where the bundle was exported from.
        precisions: asked for; None for the bundle's own, or float32.
        strategies: asked for; None for the bundle's own, or `single`.
        photos: image files; None for the built-in photographs.
        image_size: (height, width) of all images; None for the bundle's or the first photo's, or `IMAGE_SIZE`.
        shortlist: of a preset; of a bundle its own or None.

    Raises:
        PcasegError: the subclasses name what cannot be used.
    """
    with tempfile.TemporaryDirectory(prefix="pcaseg-bench-") as temporary:
        folder = Path(temporary)
        model, bundles = _open(name, model_path, precisions, folder, shortlist)
        wanted = tuple(precisions or bundles)
        manifest = next(iter(bundles.values())).manifest
        chosen = tuple(choose_strategy(manifest, strategy) for strategy in strategies or (None,))
        size = _size(manifest.image_size, image_size)
        images = write_images(folder, photos, size)
        yield Target(model, bundles, images, model_path or ""), wanted, chosen


def _open(
    name: str, model_path: str | None, precisions: Sequence[str] | None, folder: Path, shortlist: int | None
) -> tuple[PCASeg, dict[str, Bundle]]:
    """The eager model and its bundles by precision; a preset's are exported into the folder."""
    if name in presets():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = open_model(name, shortlist=shortlist)
        return model, _export(model, precisions or EXPORTED[:1], folder)
    bundle = Bundle(name)
    check_shortlist(bundle.manifest, shortlist)
    bundle.verify()
    model = open_model(model_path, shortlist=bundle.manifest.shortlist) if model_path else source_model(bundle)
    return model, {bundle.manifest.precision: bundle}


def _export(model: PCASeg, precisions: Sequence[str], folder: Path) -> dict[str, Bundle]:
    """Bundles of a preset in those precisions that bundles have, float32 if in none."""
    bundles: dict[str, Bundle] = {}
    for precision in [p for p in precisions if p in EXPORTED] or EXPORTED[:1]:
        path = folder / f"{model.preset.name}-{precision}.pcaseg"
        write_bundle(model, path, options=ExportOptions(precision=precision), progress=True)
        bundles[precision] = Bundle(path)
    return bundles


def _size(fixed: tuple[int, int] | None, asked: tuple[int, int] | None) -> tuple[int, int] | None:
    """The size of all images."""
    if fixed is not None and asked not in (None, fixed):
        raise PcasegError(f"image size {asked}: the bundle takes {fixed} alone; leave --image-size out")
    return fixed or asked


def write_images(folder: Path, photos: Sequence[Path] | None, size: tuple[int, int] | None) -> list[Path]:
    """All images at one size, as JPEG files, which is what cameras give."""
    if photos:
        pixels: list[np.ndarray] = [read_image(path) for path in photos]
        size = size or pixels[0].shape[:2]
    else:
        pixels = list(photographs().values())
    paths = []
    for index, image in enumerate(pixels):
        paths.append(folder / f"{index}.jpg")
        Image.fromarray(resized(image, size or IMAGE_SIZE)).save(paths[-1], quality=95)
    return paths
