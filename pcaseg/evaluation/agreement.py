"""`pcaseg check`: does a bundle compute what the eager float32 model computes?"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image
from tqdm import tqdm

from pcaseg.class_lists import first_names
from pcaseg.configs import Strategy
from pcaseg.data.folders import LabelledFolder
from pcaseg.environment import write_rows
from pcaseg.errors import MissingDependencyError, install_hint
from pcaseg.evaluation.accuracy import compare
from pcaseg.evaluation.gates import GATES, gate_failures
from pcaseg.evaluation.labelled import labelled_miou
from pcaseg.evaluation.reference import EagerRun, Recorder
from pcaseg.model.network import PCASeg
from pcaseg.runtime.backends import Backend
from pcaseg.runtime.bundle import Bundle
from pcaseg.runtime.segmenter import Segmenter

T = TypeVar("T")

PHOTOGRAPHS = ("astronaut", "chelsea", "coffee")
"""scikit-image's built-in photographs: a portrait, a cat, a cup; 512 x 512, 300 x 451 and 400 x 600 pixels."""


@dataclass(frozen=True)
class Case:
    """One comparison: an image, how many classes, which strategy."""

    name: str
    image: np.ndarray
    classes: int
    strategy: Strategy = "single"


@dataclass(frozen=True)
class Row:
    """What one case showed.

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
class LabelledRow:
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
        return self.gate is None or abs(self.difference) <= self.gate


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


def cases(
    images: dict[str, np.ndarray],
    class_counts: Sequence[int],
    strategy: Strategy,
    *,
    image_size: tuple[int, int] | None = None,
) -> list[Case]:
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
    return [Case(name, image, count, strategy) for (name, image), count in pairs]


def resized(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """An image, (H, W, 3) uint8, at another (height, width)."""
    return np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR))


def check(model: PCASeg, backend: Backend, case: Case, gate: Mapping[str, float] = GATES["float32"]) -> Row:
    """Compares a backend with the eager model from pixels and names to labels.

    Each side tokenises, embeds, resizes and merges by its own code.

    Args:
        model: the eager float32 reference.
        backend: what is checked.
        case: what to run.
        gate: what it must reach, see `pcaseg.evaluation.accuracy`.
    """
    names = first_names(case.classes)
    eager, recorder = EagerRun(model, names, case.strategy), Recorder(backend)
    segmenter = Segmenter(recorder, strategy=case.strategy)
    segmenter.set_vocabulary(names)
    eager_s, reference = timed(lambda: eager(case.image))
    bundle_s, result = timed(lambda: segmenter(case.image))
    found = compare(recorder.output(result), reference, names)
    return Row(
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
) -> LabelledRow:
    """The mIoU of both sides on the same labelled images.

    Args:
        model: the eager float32 reference.
        backend: what is checked.
        labelled: the images.
        strategy: of both.
        bound: the largest difference in percent points that passes; None for any.
        progress: show a progress bar on standard error.
    """
    eager, segmenter = EagerRun(model, labelled.names, strategy), Segmenter(backend, strategy=strategy)
    segmenter.set_vocabulary(labelled.names)
    with tqdm(total=2 * len(labelled.pairs), desc="labelled", unit="image", disable=not progress) as bar:

        def miou(run: EagerRun | Segmenter) -> float:
            def segment(image: np.ndarray) -> np.ndarray:
                bar.update()
                return run(image).labels

            return labelled_miou(segment, labelled)

        return LabelledRow(len(labelled.pairs), len(labelled.names), miou(eager), miou(segmenter), bound)


def timed(call: Callable[[], T]) -> tuple[float, T]:
    """Seconds of a call, and what it returned."""
    start = time.perf_counter()
    result = call()
    return time.perf_counter() - start, result


def write_report(
    path: str | os.PathLike[str],
    bundle: Bundle,
    backend: Backend,
    rows: Sequence[Row],
    labelled: LabelledRow | None = None,
    *,
    precision: str,
) -> None:
    """Writes the rows as JSON, with what they were measured on and in which precision, and the labelled set's if there
    was one.

    Raises:
        OutputError: the path cannot be written.
    """
    write_rows(
        path,
        rows,
        preset=bundle.manifest.preset,
        aggregation=bundle.manifest.aggregation,
        weights=bundle.manifest.weights.kind,
        precision=precision,
        graph=backend.manifest.graph,
        bundle_sha256=bundle.sha256,
        backend=backend.name,
        labelled=None if labelled is None else asdict(labelled),
    )


def is_report(path: Path) -> bool:
    """Whether a file is what `write_report` writes."""
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(report, dict) and {"schema_version", "bundle_sha256", "rows"} <= report.keys()


def verdict(backend: Backend, rows: Sequence[Row], gate: Mapping[str, float]) -> str:
    """One sentence on all rows."""
    error = {"logits": "relative error", "labels": "difference of confidence"}[backend.manifest.graph]
    agree = "agree" if all(row.passed for row in rows) else "DISAGREE"
    bounds = ", ".join(f"{name} {value:g}" for name, value in gate.items())
    return (
        f"{backend.name} and eager float32 {agree}: {error} at most {max(r.relative_error for r in rows):.1e}, "
        f"same label for at least {min(r.label_agreement for r in rows):.3%} of an image's pixels (gate: {bounds})"
    )


def labelled_verdict(row: LabelledRow) -> str:
    """One sentence on a labelled set."""
    said = "ok" if row.passed else "FAILED"
    return (
        f"mIoU on {row.images} labelled images, {row.classes} classes: eager {row.eager_miou:.2f} %, bundle "
        f"{row.bundle_miou:.2f} %, difference {row.difference:+.3f} points "
        f"({'no gate' if row.gate is None else f'{said}, gate: {row.gate:g}'})"
    )


def table(rows: Sequence[Row]) -> str:
    """The rows as text, for a terminal."""
    lines = [
        f"{'image':16} {'classes':>7} {'strategy':8} {'error':>10} {'labels':>8}  "
        f"{'worst class (IoU)':28} {'eager s':>8} {'bundle s':>8}"
    ]
    for row in rows:
        worst = f"{row.worst_class.split(',')[0][:20]} ({row.worst_iou:.4f})"
        lines.append(
            f"{row.case[:16]:16} {row.classes:7} {row.strategy:8} {row.relative_error:10.1e} "
            f"{row.label_agreement:8.3%}  {worst:28} {row.eager_s:8.1f} {row.bundle_s:8.1f}"
            f"  {'ok' if row.passed else 'FAILED'}"
        )
    return "\n".join(lines)
