"""Agreement of a backend with the eager float32 model: on single images, and in mIoU on labelled ones."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from PIL import Image
from tqdm import tqdm

from pcaseg.class_lists import first_names
from pcaseg.class_syntax import ClassTree
from pcaseg.configs import Strategy, most_kept
from pcaseg.data.folders import LabelledFolder
from pcaseg.errors import MissingDependencyError, install_hint
from pcaseg.evaluation.accuracy import compare
from pcaseg.evaluation.gates import GATES, gate_failures
from pcaseg.evaluation.labelled import labelled_miou
from pcaseg.evaluation.reference import EagerRun, RecordingBackend
from pcaseg.model.network import PCASeg
from pcaseg.runtime.backends import Backend
from pcaseg.runtime.segmenter import Segmenter

T = TypeVar("T")

PHOTOGRAPHS = ("astronaut", "chelsea", "coffee")
"""scikit-image's built-in photographs: a portrait, a cat, a cup; 512 x 512, 300 x 451 and 400 x 600 pixels."""


@dataclass(frozen=True)
class AgreementCase:
    """One comparison: an image, how many classes, which strategy."""

    name: str
    image: np.ndarray
    classes: int
    strategy: Strategy = "single"


@dataclass(frozen=True)
class AgreementRow:
    """Outcome of one case.

    Attributes:
        relative_error: largest difference of a logit over the largest eager logit (both in absolute value); a
            class kept by one and dropped by the other of two top-256 selections counts in full. Of a graph of labels,
            which shows no logits: the largest difference of a pixel's confidence, 0..1.
        label_agreement: share of the image's pixels with the same label, 0..1.
        boundary_agreement: the same among pixels near a border between labels.
        worst_class: the class whose pixels agree least, and
        worst_iou: the intersection over union of its two masks, 0..1.
        eager_s, bundle_s: seconds of each whole call, once, not a benchmark.
    """

    case: str
    classes: int
    strategy: Strategy
    relative_error: float
    label_agreement: float
    boundary_agreement: float
    worst_class: str
    worst_iou: float
    eager_s: float
    bundle_s: float
    passed: bool


@dataclass(frozen=True)
class LabelledAgreement:
    """Mean intersection over union with a labelled set, percent.

    Attributes:
        images, classes: of the set.
        gate: the largest difference in percent points that passes; None where there is no bound.
    """

    images: int
    classes: int
    eager_miou: float
    bundle_miou: float
    gate: float | None

    @property
    def difference(self) -> float:
        """Percent points, the bundle's minus the eager model's."""
        return self.bundle_miou - self.eager_miou

    @property
    def passed(self) -> bool:
        """True where the difference is within the gate."""
        return self.gate is None or abs(self.difference) <= self.gate

    def verdict(self) -> str:
        """One sentence."""
        said = "ok" if self.passed else "FAILED"
        return (
            f"mIoU on {self.images} labelled images, {self.classes} classes: eager {self.eager_miou:.2f} %, bundle "
            f"{self.bundle_miou:.2f} %, difference {self.difference:+.3f} points "
            f"({'no gate' if self.gate is None else f'{said}, gate: {self.gate:g}'})"
        )


def photographs() -> dict[str, np.ndarray]:
    """The built-in photographs, (H, W, 3) uint8 by name.

    Raises:
        MissingDependencyError: scikit-image is not installed.
    """
    try:
        from skimage import data
    except ImportError as error:
        raise MissingDependencyError(
            f"the check's photographs come with scikit-image; {install_hint('benchmarks')}, "
            "or give your own with --images"
        ) from error
    return {name: np.ascontiguousarray(getattr(data, name)()[..., :3]) for name in PHOTOGRAPHS}


def noise(seed: int, height: int, width: int) -> np.ndarray:
    """Seeded noise, (height, width, 3) uint8."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def agreement_cases(
    images: dict[str, np.ndarray],
    class_counts: Sequence[int],
    strategy: Strategy,
    *,
    image_size: tuple[int, int] | None = None,
) -> list[AgreementCase]:
    """Every class count on one image in turn, and every image at least once, noise last.

    Args:
        images: (H, W, 3) uint8 by name.
        class_counts: sizes of the vocabularies.
        strategy: of all cases.
        image_size: (height, width) that all images are resized to first; None leaves them as they are.
    """
    named = [*images.items(), ("noise, seed 0", noise(0, 240, 320))]
    if image_size is not None:
        named = [(name, resized(image, image_size)) for name, image in named]
    rounds = max(len(class_counts), len(named))
    pairs = [(named[i % len(named)], class_counts[i % len(class_counts)]) for i in range(rounds)]
    return [AgreementCase(name, image, count, strategy) for (name, image), count in pairs]


def resized(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """An image, (H, W, 3) uint8, at another (height, width)."""
    return np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR))


def check_case(
    model: PCASeg, backend: Backend, case: AgreementCase, gate: Mapping[str, float] = GATES["float32"]
) -> AgreementRow:
    """Compares a backend with the eager model from pixels and names to labels.

    Each side tokenises, embeds, resizes and merges by its own code.

    Args:
        model: the eager float32 reference.
        backend: what is checked.
        case: what to run.
        gate: what it must reach, see `pcaseg.evaluation.gates`.
    """
    names = first_names(case.classes)
    eager, recorder = _reference(model, backend, names, case.strategy), RecordingBackend(backend)
    segmenter = Segmenter(recorder, strategy=case.strategy)
    segmenter.set_vocabulary(ClassTree.plain(names))
    eager_s, reference = timed(lambda: eager(case.image))
    bundle_s, result = timed(lambda: segmenter(case.image))
    found = compare(recorder.output(result), reference, names)
    return AgreementRow(
        case=case.name,
        classes=case.classes,
        strategy=case.strategy,
        relative_error=found.relative_error,
        label_agreement=found.label_agreement,
        boundary_agreement=found.boundary_agreement,
        worst_class=found.worst_class,
        worst_iou=found.worst_iou,
        eager_s=eager_s,
        bundle_s=bundle_s,
        passed=not gate_failures(found, gate),
    )


def check_labelled(
    model: PCASeg,
    backend: Backend,
    labelled: LabelledFolder,
    strategy: Strategy,
    bound: float | None,
    *,
    progress: bool = False,
) -> LabelledAgreement:
    """The mIoU of both sides on the same labelled images.

    Args:
        model: the eager float32 reference.
        backend: what is checked.
        labelled: the images.
        strategy: of both.
        bound: the largest difference in percent points that passes; None for any.
        progress: show a progress bar on standard error.
    """
    eager, segmenter = _reference(model, backend, labelled.names, strategy), Segmenter(backend, strategy=strategy)
    segmenter.set_vocabulary(ClassTree.plain(labelled.names))
    with tqdm(total=2 * len(labelled.pairs), desc="labelled", unit="image", disable=not progress) as bar:

        def miou(run: EagerRun | Segmenter) -> float:
            def segment(image: np.ndarray) -> np.ndarray:
                bar.update()
                return run(image).labels

            return labelled_miou(segment, labelled)

        return LabelledAgreement(len(labelled.pairs), len(labelled.names), miou(eager), miou(segmenter), bound)


def _reference(model: PCASeg, backend: Backend, names: Sequence[str], strategy: Strategy) -> EagerRun:
    """The eager model with the shortlist of what is checked."""
    return EagerRun(model, names, strategy, shortlist=most_kept(backend.manifest.shortlist))


def timed(call: Callable[[], T]) -> tuple[float, T]:
    """Seconds of a call, and what it returned."""
    start = time.perf_counter()
    result = call()
    return time.perf_counter() - start, result
