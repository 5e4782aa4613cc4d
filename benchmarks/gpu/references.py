"""Results of eager float32 on the inputs of all points, as files that a process without PyTorch can read."""

from __future__ import annotations

import sys
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from pcaseg.arguments import Parser
from pcaseg.class_lists import first_names
from pcaseg.configs import Strategy
from pcaseg.errors import PcasegError, reported
from pcaseg.files import atomic_path
from pcaseg.images import read_image
from pcaseg.paths import exists
from pcaseg.runtime.bundle import Bundle
from pcaseg.runtime.manifest import Manifest
from pcaseg.runtime.windows import prepare_windows

if TYPE_CHECKING:
    from pcaseg.model.network import PCASeg

FRAME, FRAME_PX = "frame.jpg", 640
"""The image that all is measured on, a square."""


@dataclass(frozen=True)
class GpuPoint:
    """T, strategy, and images per call; of several images only the network is compared."""

    classes: int
    strategy: Strategy
    images: int

    @property
    def file(self) -> str:
        """The reference's name."""
        return f"T{self.classes}-{self.strategy}-{self.images}.npz"


POINTS = (
    *(GpuPoint(classes, "single", 1) for classes in (1, 5, 20, 59, 150, 256)),
    *(GpuPoint(classes, "sliding", 1) for classes in (20, 150)),
    *(GpuPoint(classes, "single", images) for classes in (20, 150) for images in (2, 5)),
)


@dataclass(frozen=True)
class Reference:
    """A stored reference.

    Attributes:
        windows: network inputs, (N, 3, R, R) float32.
        text: (T, D) float32, unit norm.
        logits: (N, T, h, w) float32.
        labels, confidence: (H, W) of the frame; empty with several images.
    """

    windows: np.ndarray
    text: np.ndarray
    logits: np.ndarray
    labels: np.ndarray
    confidence: np.ndarray


def read_reference(path: Path) -> Reference:
    """Reads what `write_references` wrote.

    Raises:
        PcasegError: there is none, or it is damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            return Reference(**{name: file[name] for name in Reference.__dataclass_fields__})
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise PcasegError(
            f"{path}: is no reference ({error}); run python -m pcaseg.benchmarks.gpu.prepare again"
        ) from error


def write_references(
    model: PCASeg, bundle: Bundle, folder: Path, device: str, points: Sequence[GpuPoint] = POINTS
) -> None:
    """Writes the frame and, for each point, its reference; those that are there already stay.

    Raises:
        MissingDependencyError: scikit-image, which brings the photograph, is not installed.
        OutputError: the folder cannot be written.
    """
    from pcaseg.benchmarks.targets import write_images

    frame = folder / FRAME
    if not exists(frame):
        with tempfile.TemporaryDirectory() as temporary:
            photograph = write_images(Path(temporary), None, (FRAME_PX, FRAME_PX))[0].read_bytes()
        with atomic_path(frame) as target:
            target.write_bytes(photograph)
    model.to(device)
    for point in tqdm([point for point in points if not exists(folder / point.file)], unit="reference"):
        reference = make_reference(model, bundle.manifest, read_image(frame), point)
        with atomic_path(folder / point.file) as target, open(target, "wb") as file:
            np.savez(file, **vars(reference))


def make_reference(model: PCASeg, manifest: Manifest, frame: np.ndarray, point: GpuPoint) -> Reference:
    """Results of eager float32 on a frame, (H, W, 3) uint8, or of several that are shifted against each other."""
    from pcaseg.evaluation.reference import EagerRun

    eager = EagerRun(model, first_names(point.classes), point.strategy)
    found = eager(frame) if point.images == 1 else None
    px, sliding = manifest.image.size_px, manifest.sliding
    shifted = (np.roll(frame, 40 * index, axis=1) for index in range(point.images))
    windows = np.concatenate(
        [prepare_windows(image, point.strategy, image_px=px, sliding=sliding) for image in shifted]
    )
    return Reference(
        windows=windows,
        text=eager.text[:, 0].cpu().numpy(),
        logits=eager.logits(windows),
        labels=found.labels if found else np.zeros((0, 0), np.int64),
        confidence=found.confidence if found else np.zeros((0, 0), np.float32),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes the references of a bundle's source model."""
    parser = Parser(prog="python -m pcaseg.benchmarks.gpu.references", description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    options = parser.parse_args(arguments)

    def work() -> int:
        from pcaseg.benchmarks.device import check_device
        from pcaseg.export.torch_backend import source_model

        check_device(options.device)
        bundle = Bundle(options.bundle)
        write_references(source_model(bundle), bundle, options.out, options.device)
        return 0

    return reported(work)


if __name__ == "__main__":
    sys.exit(main())
