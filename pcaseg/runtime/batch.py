"""Many images in a row: a folder is segmented file by file, and a run that was cut off goes on where it stopped."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from pcaseg.errors import ImageError, VocabularyError
from pcaseg.files import sha256_of
from pcaseg.images import list_images
from pcaseg.runtime.result import Result
from pcaseg.runtime.segmenter import Segmenter


@dataclass
class Batch:
    """What became of the images of one run.

    Attributes:
        results: (image path, its result, the files written), only of the last image: results are large.
        done: images segmented now.
        skipped: images whose outputs stood already, made from the same image, classes, weights and strategy.
        failed: (image path, message) of images that could not be read.
    """

    last: tuple[Result, dict[str, Path]] | None = None
    done: list[Path] = field(default_factory=list)
    skipped: list[Path] = field(default_factory=list)
    failed: list[tuple[Path, str]] = field(default_factory=list)


def segment_files(
    segmenter: Segmenter, images: Sequence[Path], out: str | os.PathLike[str], *, progress: bool = False
) -> Batch:
    """Segments image files and writes overlay, labels and summary of each into `out`.

    An image that cannot be read is noted and does not stop the run. An image that an earlier run finished with the
    same settings is skipped, so a run that was cut off is resumed by starting it again.

    Args:
        segmenter: with its vocabulary set.
        images: image files.
        out: folder, made if need be; files are named after the images.
        progress: show a progress bar on standard error.

    Raises:
        VocabularyError: the segmenter has no vocabulary.
        OutputError: `out` cannot be written.
    """
    if segmenter.vocabulary is None:
        raise VocabularyError("no vocabulary: call set_vocabulary with class names before segmenting")
    batch = Batch()
    for path, stem in tqdm(output_stems(images).items(), desc="segment", unit="image", disable=not progress):
        try:
            details = _details(segmenter, path)
            if _is_done(Path(out, f"{stem}.json"), details, segmenter.vocabulary.names):
                batch.skipped.append(path)
                continue
            result = segmenter(path)
        except ImageError as error:
            batch.failed.append((path, str(error)))
            continue
        batch.last = result, result.save(out, stem, details=details)
        batch.done.append(path)
    return batch


def expand_images(inputs: Iterable[str | os.PathLike[str]]) -> list[Path]:
    """Image files as given, and those in the folders given, each once.

    Raises:
        ImageError: a path does not exist, or a folder holds no image.
    """
    paths: dict[Path, None] = {}
    for item in map(Path, inputs):
        if item.is_dir():
            paths |= dict.fromkeys(list_images(item))
        elif item.exists():
            paths[item] = None
        else:
            raise ImageError(f"{item}: no such file or folder; check the path")
    return list(paths)


def output_stems(images: Sequence[Path]) -> dict[Path, str]:
    """A name for each image's outputs: its stem, with the ending or a number added where stems collide.

    >>> list(output_stems([Path("a.jpg"), Path("a.png"), Path("b.png")]).values())
    ['a_jpg', 'a_png', 'b']
    """
    counts = Counter(path.stem for path in images)
    stems: dict[Path, str] = {}
    taken: set[str] = set()
    for path in images:
        stem = path.stem if counts[path.stem] == 1 else f"{path.stem}_{path.suffix[1:]}"
        number = 2
        while stem in taken:
            stem = f"{path.stem}_{path.suffix[1:]}_{number}"
            number += 1
        taken.add(stem)
        stems[path] = stem
    return stems


def _details(segmenter: Segmenter, path: Path) -> dict[str, str]:
    """What, beside the class names, decides the outputs of an image."""
    try:
        digest = sha256_of(path)
    except OSError as error:
        raise ImageError(f"{path}: cannot be read ({error.strerror}); check the file") from error
    return {
        "image": path.name,
        "image_sha256": digest,
        "strategy": segmenter.strategy,
        "weights_sha256": segmenter.backend.manifest.weights.sha256,
    }


def _is_done(summary: Path, details: dict[str, str], names: Sequence[str]) -> bool:
    """Whether a finished run with these settings left its summary, which is written last."""
    try:
        found = json.loads(summary.read_text(encoding="utf-8"))
        classes = [entry["name"] for entry in found["classes"]]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return classes == list(names) and all(found.get(key) == value for key, value in details.items())
