"""Results of segmenting one image, drawn and saved."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from pcaseg.configs import WeightsKind
from pcaseg.errors import OutputError
from pcaseg.files import atomic_path, refuse_foreign
from pcaseg.paths import LONGEST_NAME, is_file, short_name
from pcaseg.runtime.overlay import draw_overlay

FORMAT = "pcaseg-segmentation-1"
SOFTWARE = "pcaseg"
"""Marks of our own files: nothing else is ever replaced."""

_STRIP_PIXELS = 1 << 22  # counted at a time: bincount works on eight bytes per pixel


@dataclass(frozen=True, eq=False)
class Result:
    """The labels of one image.

    Attributes:
        labels: `(H, W)` uint16, indices into `classes`.
        confidence: `(H, W)` float32 in 0..1, the score of the label.
        classes: T names.
        image: `(H, W, 3)` uint8 RGB, the image upright as it was segmented.
        timings_ms: milliseconds of the stages read, prepare, network, labels, and of all together: total. Of a graph
            of labels, read and network, which there does the others' work too.
        backend: what ran the network, such as `onnxruntime-cpu`.
        weights: `checkpoint`; with `clip-only` or `seeded` weights, never trained as a whole, labels mean nothing.
        bundle_sha256: hash of the bundle's manifest; None where no bundle on disk was opened.
        object_of: T class indices, of a part its object's and else its own; None where the vocabulary has no parts.
    """

    labels: np.ndarray
    confidence: np.ndarray
    classes: tuple[str, ...]
    image: np.ndarray
    timings_ms: dict[str, float]
    backend: str
    weights: WeightsKind
    bundle_sha256: str | None = None
    object_of: tuple[int, ...] | None = None

    @property
    def objects(self) -> tuple[str, ...]:
        """Names of the classes that are no parts, in the order of the classes."""
        return tuple(self.classes[index] for index in sorted(set(self._object_of)))

    @property
    def object_labels(self) -> np.ndarray:
        """`(H, W)` uint16, indices into `objects`: of a part's pixels, the object that it belongs to."""
        found: np.ndarray = np.unique(self._object_of, return_inverse=True)[1].astype(np.uint16)[self.labels]
        return found

    @property
    def _object_of(self) -> Sequence[int]:
        return range(len(self.classes)) if self.object_of is None else self.object_of

    def names_at(self, row: int, column: int) -> tuple[str, str]:
        """Names of a pixel: of its object and of its class, such as `("car", "car wheel")`."""
        label = int(self.labels[row, column])
        return self.classes[self._object_of[label]], self.classes[label]

    def class_pixels(self) -> np.ndarray:
        """Number of pixels of each class, `(T,)` int64."""
        counts = np.zeros(len(self.classes), np.int64)
        for strip in self._strips():
            counts += np.bincount(self.labels[strip].ravel(), minlength=len(counts))
        return counts

    def overlay(self, *, opacity: float = 0.5) -> Image.Image:
        """The image under the class colours, with a legend of the classes present.

        Large images are shown reduced, tiny ones enlarged, see `pcaseg.runtime.overlay`.

        Args:
            opacity: of the colours, 0 to 1.

        Raises:
            PcasegError: opacity outside 0..1.
        """
        return draw_overlay(self.image, self.labels, self.classes, self.class_pixels(), opacity=opacity)

    def label_picture(self) -> Image.Image:
        """The label of every pixel as grey value, 8-bit up to 256 classes, else 16-bit."""
        return _label_picture(self.labels, len(self.classes))

    def save(
        self, folder: str | os.PathLike[str], stem: str, *, details: Mapping[str, object] | None = None
    ) -> dict[str, Path]:
        """Writes overlay, labels and summary, each whole or not at all.

        `STEM.json` is written last, and one of a former run is removed first: where it stands, all three belong
        together.

        Args:
            folder: made if it does not exist.
            stem: first part of the file names.
            details: further entries of the summary, of JSON's types, such as where the image came from.

        Returns:
            The paths of `overlay` (`STEM_overlay.png`), `labels` (`STEM_labels.png`: the label of every pixel as grey
            value, 8-bit up to 256 classes, else 16-bit) and `summary` (`STEM.json`); where the vocabulary has parts,
            also of `objects` (`STEM_objects.png`: the index of every pixel's object among `objects` of the summary).

        Raises:
            OutputError: the folder cannot be written, `stem` is not a plain file name, or a file that `save` did not
                write stands in the way.
            ValueError: `details` has a key of the summary's own.
        """
        summary = self.summary()
        if clash := summary.keys() & (details or {}).keys():
            raise ValueError(f"details may not replace the summary's own {', '.join(sorted(clash))}")
        paths = output_paths(Path(folder), stem, parts=self.object_of is not None)
        former = output_paths(Path(folder), stem, parts=True)
        for path in former.values():
            refuse_foreign(path, _is_output, "an output of pcaseg", mend="move it or choose another folder")
        try:
            paths["summary"].unlink(missing_ok=True)
            former["objects"].unlink(missing_ok=True)
        except OSError as error:
            raise OutputError(f"{paths['summary']}: cannot be written ({error.strerror}); choose another") from error
        mark = PngInfo()
        mark.add_text("Software", SOFTWARE)
        pictures = {"overlay": self.overlay(), "labels": self.label_picture()}
        if "objects" in paths:
            pictures["objects"] = _label_picture(self.object_labels, len(self.objects))
        for name, picture in pictures.items():
            with atomic_path(paths[name]) as temporary:
                picture.save(temporary, format="PNG", pnginfo=mark)
        with atomic_path(paths["summary"]) as temporary:
            temporary.write_text(json.dumps(summary | dict(details or {}), indent=2) + "\n", encoding="utf-8")
        return paths

    def summary(self) -> dict[str, object]:
        """The contents of `STEM.json` without details: everything but the pixels."""
        pixels, confidences = self.class_pixels(), np.zeros(len(self.classes))
        for strip in self._strips():
            labels, confidence = self.labels[strip].ravel(), self.confidence[strip].ravel()
            confidences += np.bincount(labels, weights=confidence, minlength=len(confidences))
        rows = zip(self.classes, pixels.tolist(), confidences.tolist(), strict=True)
        height, width = self.labels.shape
        tree = {} if self.object_of is None else {"objects": list(self.objects), "object_of": list(self.object_of)}
        return {
            "format": FORMAT,
            "size": {"height": height, "width": width},
            "mean_confidence": round(float(confidences.sum()) / self.labels.size, 6),
            "classes": [
                {
                    "label": label,
                    "name": name,
                    "pixels": count,
                    "share": round(count / self.labels.size, 6),
                    "mean_confidence": round(total / count, 6) if count else None,
                }
                for label, (name, count, total) in enumerate(rows)
            ],
            **tree,
            "timings_ms": {stage: round(value, 3) for stage, value in self.timings_ms.items()},
            "backend": self.backend,
            "weights": self.weights,
            "bundle_sha256": self.bundle_sha256,
        }

    def _strips(self) -> Iterator[slice]:
        """Slices of rows that bound the memory of counting."""
        step = max(1, _STRIP_PIXELS // self.labels.shape[1])
        return (slice(start, start + step) for start in range(0, self.labels.shape[0], step))


def output_paths(folder: Path, stem: str, *, parts: bool = False) -> dict[str, Path]:
    """Paths that `Result.save` writes: `overlay`, `labels` and `summary`, where the vocabulary has parts `objects` too.

    A long stem is cut, and a hash added.

    Raises:
        OutputError: `stem` is not a plain file name.
    """
    if not stem or Path(stem).name != stem:
        raise OutputError(f"{stem!r}: not a plain file name; give one without folders")
    stem = short_name(stem, LONGEST_NAME - len("_overlay.png"))
    paths = {
        "overlay": folder / f"{stem}_overlay.png",
        "labels": folder / f"{stem}_labels.png",
        "summary": folder / f"{stem}.json",
    }
    return paths | {"objects": folder / f"{stem}_objects.png"} if parts else paths


def read_summary(path: Path) -> dict[str, Any] | None:
    """A summary that `Result.save` wrote, None if there is no file or it is something else."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and found.get("format") == FORMAT else None


def _is_output(path: Path) -> bool:
    """True for a file that `Result.save` wrote, and for what is no file, at which it stops by itself."""
    if not is_file(path):
        return True
    return read_summary(path) is not None if path.suffix == ".json" else _is_marked(path)


def is_result(path: Path) -> bool:
    """True for an overlay or a map of labels that `Result.save` wrote, or a link to one."""
    return path.name.endswith(("_overlay.png", "_labels.png", "_objects.png")) and _is_marked(path)


def _label_picture(labels: np.ndarray, count: int) -> Image.Image:
    return Image.fromarray(labels.astype(np.uint8) if count <= 256 else labels)


def _is_marked(path: Path) -> bool:
    try:
        with Image.open(path, formats=("PNG",)) as picture:
            return bool(picture.info.get("Software") == SOFTWARE)
    except (OSError, ValueError):
        return False
