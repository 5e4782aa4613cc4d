"""Many images in a row: a folder is segmented file by file, and a run that was cut off goes on where it stopped."""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from pcaseg.errors import ImageError, OutputError, PcasegError, VocabularyError, one_line
from pcaseg.files import sha256_of
from pcaseg.image_files import check_image_file, list_images, said_left_out, split_folder
from pcaseg.paths import exists, is_file, is_folder, real_path
from pcaseg.runtime.result import Result, is_result, output_paths, read_summary
from pcaseg.runtime.segmenter import Segmenter
from pcaseg.runtime.vocabulary import Vocabulary


@dataclass
class Batch:
    """Outcome of one run, image by image.

    Attributes:
        last: result and written files of the last image segmented; the others are not kept, results are large.
        done: images segmented now.
        skipped: images whose outputs stood already, made from the same image, classes, weights, strategy and shortlist.
        failed: (image path, message) of images that could not be segmented.
        left_out: files in the folders given that are no images by their ending.
    """

    last: tuple[Result, dict[str, Path]] | None = None
    done: list[Path] = field(default_factory=list)
    skipped: list[Path] = field(default_factory=list)
    failed: list[tuple[Path, str]] = field(default_factory=list)
    left_out: list[Path] = field(default_factory=list)

    def said(self) -> str:
        """The counts in words.

        >>> Batch(done=[Path("a.png")], left_out=[Path("b.txt")]).said()
        '1 segmented, 0 done before and skipped, 0 failed; 1 file left out: .txt (1)'
        """
        counts = f"{len(self.done)} segmented, {len(self.skipped)} done before and skipped, {len(self.failed)} failed"
        return f"{counts}; {said_left_out(self.left_out)}" if self.left_out else counts


def segment_files(
    segmenter: Segmenter, images: Sequence[Path], out: str | os.PathLike[str], *, progress: bool = False
) -> Batch:
    """Segments image files and writes overlay, labels and summary of each into `out`.

    An image that cannot be segmented, for whatever reason of its own, is noted and does not stop the run. An image
    that an earlier run finished with the same settings is skipped, so a run that was cut off is resumed by starting
    it again.

    Args:
        segmenter: with its vocabulary set.
        images: image files.
        out: folder, made if need be; files are named after the images.
        progress: show a progress bar on standard error.

    Raises:
        VocabularyError: the segmenter has no vocabulary.
        OutputError: `out` cannot be written, is the folder of an image, or holds results of other images.
    """
    folder = real_path(out, error=OutputError)
    if any(real_path(path, error=ImageError).parent == folder for path in (*images, *(p.parent / "x" for p in images))):
        raise OutputError(f"{out}: holds the images themselves; choose another folder for the results")
    if segmenter.vocabulary is None:
        raise VocabularyError("no vocabulary: call set_vocabulary with class names before segmenting")
    batch = Batch()
    for path, stem in tqdm(output_stems(images).items(), desc="segment", unit="image", disable=not progress):
        try:
            details = _details(segmenter, segmenter.vocabulary, path)
            paths = output_paths(Path(out), stem, parts=segmenter.vocabulary.has_parts)
            if _is_done(paths, details, segmenter.backend.name, segmenter.vocabulary):
                batch.skipped.append(path)
                continue
            result = segmenter(path)
            batch.last = result, result.save(out, stem, details=details)
        except Exception as error:
            _refuse_run(error, out)
            batch.failed.append((path, reason_of(error, path)))
            continue
        batch.done.append(path)
    return batch


def _refuse_run(error: Exception, out: str | os.PathLike[str]) -> None:
    """Ends the run where no other image would fare better: the results have no folder or the disk is full."""
    cause = error.__cause__ if isinstance(error, PcasegError) else error
    full = isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
    if full or not is_folder(Path(out).parent, error=OutputError):
        raise error


def reason_of(error: Exception, path: Path) -> str:
    """Sentence about the fault of an image, from what reading or labelling it raised."""
    if isinstance(error, PcasegError):
        return str(error)
    if isinstance(error, MemoryError):
        return f"{path}: does not fit into memory; reduce the image, or give fewer classes"
    return f"{path}: failed ({type(error).__name__}: {one_line(error)}); report this"


def expand_images(inputs: Iterable[str | os.PathLike[str]]) -> list[Path]:
    """Image files as given, and those in the folders given, each once.

    Raises:
        ImageError: a path does not exist, or a folder holds no image.
    """
    return expand_inputs(inputs)[0]


def expand_inputs(inputs: Iterable[str | os.PathLike[str]]) -> tuple[list[Path], list[Path]]:
    """As `expand_images`, and the files in the folders that are left out, since their endings are of no image.

    Results of this project in a folder of images, also behind links, are left out too.
    """
    paths: dict[Path, None] = {}
    left_out: list[Path] = []
    for item in map(Path, inputs):
        if is_folder(item, error=ImageError):
            found, others = split_folder(item)
            results = [path for path in found if is_result(path)]
            found = [path for path in found if path not in results]
            if not found:
                list_images(item)  # says why
                raise ImageError(f"{item}: holds results of pcaseg alone; name a folder of images")
            paths |= dict.fromkeys(found)
            left_out += [*others, *results]
        elif exists(item, error=ImageError):
            paths[item] = None
        else:
            raise ImageError(f"{item}: no such file or folder; check the path")
    return list(paths), left_out


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


def _details(segmenter: Segmenter, vocabulary: Vocabulary, path: Path) -> dict[str, object]:
    """Settings that, beside class names and backend, decide the outputs of an image."""
    check_image_file(path)
    try:
        digest = sha256_of(path)
    except OSError as error:
        raise ImageError(f"{path}: cannot be read ({error.strerror}); check the file") from error
    return {
        "image": str(real_path(path, error=ImageError)),
        "image_sha256": digest,
        "strategy": segmenter.strategy,
        "bits": segmenter.bits,
        "weights_sha256": segmenter.backend.manifest.weights.sha256,
        "shortlist": segmenter.backend.manifest.shortlist,
        "prompts": vocabulary.prompts,
    }


def _is_done(paths: dict[str, Path], details: dict[str, object], backend: str, vocabulary: Vocabulary) -> bool:
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
    complete = all(is_file(path, error=OutputError) for path in paths.values())
    classes = [entry["name"] for entry in found["classes"]]
    objects = found.get("object_of", [*range(len(classes))])
    wanted = details | {"backend": backend, "image": found.get("image")}  # the same image may have moved
    same = classes == list(vocabulary.names) and objects == list(vocabulary.objects)
    return complete and same and all(found.get(key) == value for key, value in wanted.items())
