"""Many images in a row: a folder is segmented file by file, and a run that was cut off goes on where it stopped."""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tqdm import tqdm

from pcaseg.errors import ImageError, OutputError, PcasegError, VocabularyError, one_line
from pcaseg.image_files import list_images, said_left_out, split_folder
from pcaseg.paths import exists, is_file, is_folder, real_path
from pcaseg.runtime.image_places import ImagePlace, RemoteImage, image_place, is_list, local_identity, read_list
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
    done: list[ImagePlace] = field(default_factory=list)
    skipped: list[ImagePlace] = field(default_factory=list)
    failed: list[tuple[ImagePlace, str]] = field(default_factory=list)
    left_out: list[Path] = field(default_factory=list)

    def said(self) -> str:
        """The counts in words.

        >>> Batch(done=[Path("a.png")], left_out=[Path("b.txt")]).said()
        '1 segmented, 0 done before and skipped, 0 failed; 1 file left out: .txt (1)'
        """
        counts = f"{len(self.done)} segmented, {len(self.skipped)} done before and skipped, {len(self.failed)} failed"
        return f"{counts}; {said_left_out(self.left_out)}" if self.left_out else counts


def segment_files(
    segmenter: Segmenter, images: Sequence[ImagePlace], out: str | os.PathLike[str], *, progress: bool = False
) -> Batch:
    """Segments image files and writes overlay, labels and summary of each into `out`.

    An image that cannot be segmented, for whatever reason of its own, is noted and does not stop the run. An image
    that an earlier run finished with the same settings is skipped, so a run that was cut off is resumed by starting
    it again.

    Args:
        segmenter: with its vocabulary set.
        images: image files, here or elsewhere.
        out: folder, made if need be; files are named after the images.
        progress: show a progress bar on standard error.

    Raises:
        VocabularyError: the segmenter has no vocabulary.
        OutputError: `out` cannot be written, is the folder of an image, or holds results of other images.
    """
    check_folder(images, out)
    batch = Batch()
    for path, stem in tqdm(output_stems(images).items(), desc="segment", unit="image", disable=not progress):
        outcome = segment_item(segmenter, path, stem, out)
        if outcome.state == "failed":
            batch.failed.append((path, outcome.said))
        elif outcome.state == "skipped":
            batch.skipped.append(path)
        else:
            batch.done.append(path)
            batch.last = outcome.made
    return batch


@dataclass(frozen=True)
class ItemOutcome:
    """Outcome of one image.

    Attributes:
        state: what became of it, see `Batch`.
        said: where it failed, the sentence.
        made: where it was segmented, its result and the written files.
    """

    state: Literal["done", "skipped", "failed"]
    said: str = ""
    made: tuple[Result, dict[str, Path]] | None = None


def segment_item(segmenter: Segmenter, path: ImagePlace, stem: str, out: str | os.PathLike[str]) -> ItemOutcome:
    """Segments one image of a run, unless its outputs stand already; see `segment_files`.

    Raises:
        VocabularyError: the segmenter has no vocabulary.
        OutputError: no other image would fare better: the folder cannot be written.
    """
    vocabulary = segmenter.vocabulary
    if vocabulary is None:
        raise VocabularyError("no vocabulary: call set_vocabulary with class names before segmenting")
    try:
        source, identity = (path, local_identity(path)) if isinstance(path, Path) else path.read(segmenter.bits)
        details = identity | _details(segmenter, vocabulary)
        paths = output_paths(Path(out), stem, parts=vocabulary.has_parts)
        if _is_done(paths, details, segmenter.backend.name, vocabulary):
            return ItemOutcome("skipped")
        result = segmenter(source)
        return ItemOutcome("done", made=(result, result.save(out, stem, details=details)))
    except Exception as error:
        _refuse_run(error, out)
        return ItemOutcome("failed", reason_of(error, path))


def check_folder(images: Sequence[ImagePlace], out: str | os.PathLike[str]) -> None:
    """Refuses a folder of results that holds the images.

    Raises:
        OutputError: the message names it.
    """
    folder = real_path(out, error=OutputError)
    local = [path for path in images if isinstance(path, Path)]
    if any(real_path(path, error=ImageError).parent == folder for path in (*local, *(p.parent / "x" for p in local))):
        raise OutputError(f"{out}: holds the images themselves; choose another folder for the results")


def _refuse_run(error: Exception, out: str | os.PathLike[str]) -> None:
    """Ends the run where no other image would fare better: the results have no folder or the disk is full."""
    cause = error.__cause__ if isinstance(error, PcasegError) else error
    full = isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
    if full or not is_folder(Path(out).parent, error=OutputError):
        raise error


def reason_of(error: Exception, path: ImagePlace) -> str:
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
    return list(dict.fromkeys(path for item in map(Path, inputs) for path in _expanded(item)[0]))


def expand_inputs(inputs: Iterable[str | os.PathLike[str]]) -> tuple[list[ImagePlace], list[Path]]:
    """As `expand_images`, with addresses and lists, and the files in the folders that are no images by their endings.

    Results of this project in a folder of images, also behind links, are left out too.
    """
    places: dict[ImagePlace, None] = {}
    left_out: list[Path] = []
    for place in _listed(inputs):
        if isinstance(place, RemoteImage):
            places[place] = None
        else:
            found, others = _expanded(place)
            places |= dict.fromkeys(found)
            left_out += others
    return list(places), left_out


def _expanded(item: Path) -> tuple[list[Path], list[Path]]:
    """The images that a path stands for, and what in its folder is left out."""
    if is_folder(item, error=ImageError):
        found, others = split_folder(item)
        results = [path for path in found if is_result(path)]
        found = [path for path in found if path not in results]
        if not found:
            list_images(item)  # says why
            raise ImageError(f"{item}: holds results of pcaseg alone; name a folder of images")
        return found, [*others, *results]
    if not exists(item, error=ImageError):
        raise ImageError(f"{item}: no such file or folder; check the path")
    return [item], []


def _listed(inputs: Iterable[str | os.PathLike[str]]) -> Iterator[ImagePlace]:
    """The inputs, and for each list those that it names."""
    for given in inputs:
        item = os.fspath(given)
        if is_list(item):
            yield from read_list(item)
        else:
            yield image_place(item)


def output_stems(images: Sequence[ImagePlace]) -> dict[ImagePlace, str]:
    """A name for each image's outputs: its stem, with its ending, folder or a number added where stems collide.

    >>> list(output_stems([Path("a.jpg"), Path("a.png"), Path("b.png")]).values())
    ['a_jpg', 'a_png', 'b']
    """
    counts = Counter(path.stem for path in images)
    stems: dict[ImagePlace, str] = {}
    taken: set[str] = set()
    for path in images:
        stem = path.stem if counts[path.stem] == 1 else f"{path.stem}_{path.suffix[1:]}"
        if stem in taken:
            stem = f"{path.folder if isinstance(path, RemoteImage) else path.absolute().parent.name}_{stem}"
        number = 2
        while stem in taken:
            stem = f"{path.stem}_{path.suffix[1:]}_{number}"
            number += 1
        taken.add(stem)
        stems[path] = stem
    return stems


def _details(segmenter: Segmenter, vocabulary: Vocabulary) -> dict[str, object]:
    """Settings that, beside the image, class names and backend, decide the outputs."""
    return {
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
