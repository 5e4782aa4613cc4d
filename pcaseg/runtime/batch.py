"""Many images in a row: a folder is segmented file by file, and a run that was cut off goes on where it stopped."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from pcaseg.errors import ImageError, OutputError, VocabularyError
from pcaseg.files import sha256_of
from pcaseg.images import check_image_file, list_images
from pcaseg.runtime.result import Result, output_paths, read_summary
from pcaseg.runtime.segmenter import Segmenter


@dataclass
class Batch:
    """Outcome of one run, image by image.

    Attributes:
        last: result and written files of the last image segmented; the others are not kept, results are large.
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
        OutputError: `out` cannot be written, is the folder of an image, or holds results of other images.
    """
    if any(path.resolve().parent == Path(out).resolve() for path in images):
        raise OutputError(f"{out}: holds the images themselves; choose another folder for the results")
    if segmenter.vocabulary is None:
        raise VocabularyError("no vocabulary: call set_vocabulary with class names before segmenting")
    batch = Batch()
    for path, stem in tqdm(output_stems(images).items(), desc="segment", unit="image", disable=not progress):
        try:
            details = _details(segmenter, path)
            if _is_done(output_paths(Path(out), stem), details, segmenter.backend.name, segmenter.vocabulary.names):
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
    """A name for each image's outputs: its stem, with its ending, folder or a number added where stems collide.

    >>> list(output_stems([Path("a.jpg"), Path("a.png"), Path("b.png")]).values())
    ['a_jpg', 'a_png', 'b']
    """
    counts = Counter(path.stem for path in images)
    stems: dict[Path, str] = {}
    taken: set[str] = set()
    for path in images:
        stem = path.stem if counts[path.stem] == 1 else f"{path.stem}_{path.suffix[1:]}"
        if stem in taken:
            stem = f"{path.absolute().parent.name}_{stem}"
        number = 2
        while stem in taken:
            stem = f"{path.stem}_{path.suffix[1:]}_{number}"
            number += 1
        taken.add(stem)
        stems[path] = stem
    return stems


def _details(segmenter: Segmenter, path: Path) -> dict[str, str]:
    """Settings that, beside class names and backend, decide the outputs of an image."""
    check_image_file(path)
    try:
        digest = sha256_of(path)
    except OSError as error:
        raise ImageError(f"{path}: cannot be read ({error.strerror}); check the file") from error
    return {
        "image": str(path.resolve()),
        "image_sha256": digest,
        "strategy": segmenter.strategy,
        "weights_sha256": segmenter.backend.manifest.weights.sha256,
    }


def _is_done(paths: dict[str, Path], details: dict[str, str], backend: str, names: Sequence[str]) -> bool:
    """True where a finished run with these settings left its files, of which the summary is written last.

    Raises:
        OutputError: the files are of another image.
    """
    found = read_summary(paths["summary"])
    if found is None:
        return False
    same_image = found.get("image_sha256") == details["image_sha256"]
    if not same_image and found.get("image") != details["image"]:
        raise OutputError(
            f"{paths['summary']}: holds the result of {found.get('image')}, not of {details['image']}; "
            "choose another folder"
        )
    complete = all(path.is_file() for path in paths.values())
    classes = [entry["name"] for entry in found["classes"]]
    wanted = details | {"backend": backend, "image": found.get("image")}  # the same image may have moved
    return complete and classes == list(names) and all(found.get(key) == value for key, value in wanted.items())
