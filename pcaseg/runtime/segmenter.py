"""Segmenters: an image and a vocabulary in, a label per pixel out."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from PIL import Image

from pcaseg.configs import Strategy, Synonyms, check_choice
from pcaseg.errors import BundleError, PcasegError, VocabularyError
from pcaseg.pictures import check_bits
from pcaseg.runtime.backends import Backend, open_backend
from pcaseg.runtime.bundle import Bundle
from pcaseg.runtime.manifest import Manifest
from pcaseg.runtime.preparing import VocabularyCache
from pcaseg.runtime.result import Result
from pcaseg.runtime.shortlist import check_shortlist
from pcaseg.runtime.steps import Job, Steps
from pcaseg.runtime.stream import Stream, StreamMode
from pcaseg.runtime.vocabulary import Vocabulary, VocabularySpec

ImageSource = str | os.PathLike[str] | np.ndarray | Image.Image | Any
"""An image file's path, an array or a Pillow image as `pcaseg.images.as_rgb` takes them, or an array of another library
as `pcaseg.runtime.arrays.host_image` does."""


class Segmenter:
    """Segments images with a vocabulary that may change between any two of them; safe from several threads.

    Example:
        with Segmenter("scene.pcaseg") as segmenter:
            segmenter.set_vocabulary(["cat", "grass"])
            result = segmenter("photo.jpg")
            other = segmenter("photo.jpg", vocabulary=["dog", "snow"])  # of this call alone
    """

    def __init__(
        self,
        source: str | os.PathLike[str] | Backend,
        backend: str = "onnxruntime",
        *,
        device: str | None = None,
        threads: int | None = None,
        strategy: Strategy | None = None,
        backend_options: Mapping[str, object] | None = None,
        window_batch: int = 1,
        bits: int | None = None,
        shortlist: int | None = None,
    ) -> None:
        """Opens a bundle.

        Args:
            source: path of a bundle, or an opened backend, which is used as it is.
            backend: name of the backend that runs a bundle, see `pcaseg.runtime.backend_names`.
            device: the backend's device, such as `cpu` or `cuda`; None for its default.
            threads: CPU threads; None for the backend's default.
            strategy: `single` (whole image, one pass) or `sliding` (published protocol, five passes); None for the
                one that the bundle's graph holds, or `single` where it holds none.
            backend_options: what one backend alone understands, such as `engine_precision` of `tensorrt`.
            window_batch: windows that run at once; more takes more memory. A graph of labels runs all windows of its
                own; of `segment_batch`, so many frames of one size at once.
            bits: how many bits images of more than 8 use, such as 12 of a camera's 12 in 16; see
                `pcaseg.images.read_image`.
            shortlist: classes of each window that are aggregated at most, as the bundle was exported; None for its own.

        Raises:
            PcasegError: an option outside its choices; the subclasses name what else can be wrong with the bundle.
        """
        if window_batch < 1:
            raise PcasegError(f"window_batch={window_batch}: give 1 or more")
        check_bits(bits)
        self._reopening: dict[str, Any] | None = None
        bundle_sha256 = None
        if isinstance(source, (str, os.PathLike)):
            bundle = Bundle(source)
            bundle_sha256 = bundle.sha256
            check_shortlist(bundle.manifest, shortlist)
            chosen = choose_strategy(bundle.manifest, strategy)
            opened = open_backend(backend, bundle, device=device, threads=threads, options=backend_options)
            self._reopening = {
                "source": os.path.abspath(source),
                "backend": backend,
                "device": device,
                "threads": threads,
                "strategy": strategy,
                "backend_options": dict(backend_options or {}),
                "window_batch": window_batch,
                "bits": bits,
            }
        elif device is not None or threads is not None or backend_options:
            raise PcasegError("device, threads and options belong to a bundle's path; an opened backend has its own")
        else:
            opened = source
            check_shortlist(source.manifest, shortlist)
            chosen = choose_strategy(source.manifest, strategy)
        self._steps: Steps | None = Steps(opened, VocabularyCache(opened), chosen, window_batch, bits, bundle_sha256)
        self._strategy, self._bits = chosen, bits
        self._vocabulary: Vocabulary | None = None
        self._changed = threading.Condition()
        self._running = 0
        self._streams: weakref.WeakSet[Stream] = weakref.WeakSet()

    def __enter__(self) -> Segmenter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Callable[..., Segmenter], tuple[object, ...]]:
        """A pickle of its path, options and vocabulary: where it is read, the bundle is opened anew.

        Raises:
            PcasegError: it stands on an opened backend, or is closed.
        """
        with self._use() as steps:
            if self._reopening is None:
                raise PcasegError(
                    f"a Segmenter on an opened backend ({steps.backend.name}) cannot go to another process; open one "
                    "in each worker, or make it with Segmenter(PATH, backend=...), which can"
                )
            return _reopen, (self._reopening, steps.bundle_sha256, self._vocabulary)

    @property
    def backend(self) -> Backend:
        """Backend that runs the network."""
        with self._use() as steps:
            return steps.backend

    @property
    def strategy(self) -> Strategy:
        """The strategy that images are cut by."""
        return self._strategy

    @property
    def bits(self) -> int | None:
        """Bits that images of more than 8 use; None for what each says."""
        return self._bits

    @property
    def vocabulary(self) -> Vocabulary | None:
        """The vocabulary in use; None before the first `set_vocabulary`."""
        return self._vocabulary

    def close(self) -> None:
        """Ends its streams, waits for the calls that run and gives the bundle's memory back; no call is possible then.

        A backend that was opened by the caller stays open. Closing twice does nothing.
        """
        for stream in list(self._streams):
            stream.close()
        with self._changed:
            steps, self._steps = self._steps, None
            self._changed.wait_for(lambda: self._running == 0)
        close = getattr(steps.backend, "close", None) if steps is not None and self._reopening is not None else None
        if close is not None:
            close()

    def prepare(
        self, spec: VocabularySpec, *, synonyms: Synonyms | None = None, templates: Sequence[str] | None = None
    ) -> Vocabulary:
        """A vocabulary for this segmenter, for calls that name it, now or later; the one in use stays.

        Args:
            spec: as `set_vocabulary` takes it. Names that were prepared before cost nothing the second time.
            synonyms: how those of `"tv; television"` count, see `pcaseg.runtime.vocabulary.Synonyms`; None for `best`.
            templates: prompts such as `"a photo of a {}"`, whose mean stands for a name; None for the published one.

        Raises:
            VocabularyError: unusable names or file, a vocabulary of another text encoder, or more names than the
                bundle's graph takes.
            BundleError: the bundle's text encoder is missing or not usable.
            MissingDependencyError: a name needs ftfy, or a vocabulary file safetensors, and it is not installed.
        """
        with self._use() as steps:
            return steps.vocabularies.prepare(spec, synonyms=synonyms, templates=templates)

    def set_vocabulary(
        self, spec: VocabularySpec, *, synonyms: Synonyms | None = None, templates: Sequence[str] | None = None
    ) -> None:
        """Chooses the classes of the images to come. On an error the former vocabulary stays.

        Calls that run already end with the vocabulary that they began with.

        Args:
            spec: class names, with synonyms and parts if need be, see `pcaseg.class_syntax`; the name of a shipped
                class list, such as `ade20k_150`; the path of a `.txt`, `.csv` or `.tsv` file of names or of a
                `.safetensors` vocabulary; or a `Vocabulary`. Names that were set before cost nothing the second time.
            synonyms: see `prepare`.
            templates: see `prepare`.

        Raises:
            PcasegError: as `prepare`.
        """
        self._vocabulary = self.prepare(spec, synonyms=synonyms, templates=templates)

    def __call__(self, image: ImageSource, vocabulary: VocabularySpec | None = None) -> Result:
        """Segments one image.

        Args:
            image: see `ImageSource`.
            vocabulary: of this call alone, as `set_vocabulary` takes it; None for the one in use.

        Raises:
            VocabularyError: no vocabulary was set or given, or `prepare` refuses it.
            ImageError: the image cannot be read.
            PcasegError: the network returned values that are not numbers, or the segmenter is closed.
        """
        with self._use() as steps:
            return steps.run(Job(image, self._chosen(steps, vocabulary)))

    def segment_batch(self, images: Iterable[ImageSource], vocabulary: VocabularySpec | None = None) -> list[Result]:
        """Segments several images with one vocabulary; of a result's `timings_ms`, `network` is its share.

        Args:
            images: all are in memory at once. `window_batch` of the windows, or of the frames of one size of a graph
                of labels, run at once.
            vocabulary: as of a call.

        Returns:
            A result for each image, in their order.

        Raises:
            PcasegError: as a call; no image is segmented where one cannot be read.
        """
        with self._use() as steps:
            chosen = self._chosen(steps, vocabulary)
            jobs = [Job(image, chosen, f"image {index}") for index, image in enumerate(images)]
            for job in jobs:
                steps.read(job)
                steps.prepare(job)
            if jobs:
                steps.network(jobs)
            return [steps.label(job) for job in jobs]

    def stream(
        self,
        frames: Iterable[Any],
        vocabulary: VocabularySpec | None = None,
        *,
        mode: StreamMode = "every",
        queue: int = 2,
        smooth: float = 0.0,
    ) -> Stream:
        """Segments frames one after the other, with decoding, preparation, network and label map at work at once.

        Args:
            frames: an iterable of images as a call takes them, of pairs (timestamp, image), or of
                `pcaseg.runtime.Frame`. It is iterated in a thread.
            vocabulary: of the stream, as `set_vocabulary` takes it; None to follow the segmenter's, which each frame
                takes when it is read. See also `Stream.set_vocabulary`.
            mode: see `pcaseg.runtime.stream.StreamMode`.
            queue: frames that have been read, and not been taken as items yet, at most (one more waits to enter): with
                1 nothing overlaps but reading.
            smooth: weight of the frames before in an exponential average of the scores, 0 (off) to below 1: labels
                flicker less and follow later. It needs a graph of logits.

        Returns:
            An iterator over `pcaseg.runtime.StreamItem`, in the order of the frames. A frame that cannot be segmented
            is an item with an error.

        Raises:
            PcasegError: an unknown mode, a queue below 1, or as `prepare`.
        """
        with self._use() as steps:
            if smooth and steps.backend.manifest.graph == "labels":
                raise PcasegError(f"smooth={smooth}: a graph of labels gives no scores to average; export logits")
            stream = Stream(frames, self._use, lambda: self._vocabulary, mode=mode, queue=queue, smooth=smooth)
            if vocabulary is not None:
                stream.set_vocabulary(vocabulary, from_frame=0)
            self._streams.add(stream)
            return stream

    def _chosen(self, steps: Steps, spec: VocabularySpec | None) -> Vocabulary:
        vocabulary = self._vocabulary if spec is None else steps.vocabularies.prepare(spec)
        if vocabulary is None:
            raise VocabularyError("no vocabulary: call set_vocabulary with class names before segmenting")
        return vocabulary

    @contextmanager
    def _use(self) -> Iterator[Steps]:
        """The steps, which stay open meanwhile.

        Raises:
            PcasegError: the segmenter is closed.
        """
        with self._changed:
            steps = self._steps
            if steps is None:
                raise PcasegError("segmenter: is closed; open the bundle anew")
            self._running += 1
        try:
            yield steps
        finally:
            with self._changed:
                self._running -= 1
                self._changed.notify_all()


def _reopen(options: Mapping[str, Any], sha256: str, vocabulary: Vocabulary | None) -> Segmenter:
    """The segmenter that was pickled, on its bundle opened anew.

    Raises:
        BundleError: another bundle stands there by now.
        PcasegError: as `Segmenter`.
    """
    segmenter = Segmenter(**options)
    with segmenter._use() as steps:
        found = steps.bundle_sha256
    if found != sha256:
        raise BundleError(f"{options['source']}: has changed since the segmenter was pickled; open it anew")
    if vocabulary is not None:
        segmenter.set_vocabulary(vocabulary)
    return segmenter


def choose_strategy(manifest: Manifest, asked: Strategy | None) -> Strategy:
    """The strategy of a bundle's graph, or where it holds none the one asked for, `single` by default.

    Raises:
        PcasegError: an unknown strategy, or another than the graph's.
    """
    if asked is not None:
        check_choice(asked, Strategy, what="strategy")
    if manifest.strategy is not None and asked not in (None, manifest.strategy):
        raise PcasegError(
            f"strategy={asked!r}: the bundle's graph holds {manifest.strategy!r}; leave the strategy out, or export "
            f"with --strategy {asked}"
        )
    return manifest.strategy or asked or "single"
