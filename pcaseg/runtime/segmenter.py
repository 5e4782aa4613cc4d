"""Segmenters: an image and a vocabulary in, a label per pixel out."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from pcaseg.configs import MOST_INDEXED, Strategy, check_choice
from pcaseg.errors import BundleError, ImageError, PcasegError, VocabularyError
from pcaseg.images import as_rgb, read_image
from pcaseg.pictures import check_bits
from pcaseg.runtime.backends import Backend, ShortlistBackend, open_backend
from pcaseg.runtime.bundle import Bundle
from pcaseg.runtime.manifest import Manifest
from pcaseg.runtime.result import Result
from pcaseg.runtime.shortlist import check_shortlist, join_kept
from pcaseg.runtime.vocabulary import Vocabulary, VocabularySpec, resolve_vocabulary
from pcaseg.runtime.windows import label_map, merge_windows, prepare_windows

_KEPT_VOCABULARIES = 64


class Segmenter:
    """Segments images with a vocabulary that may change between any two of them.

    Example:
        segmenter = Segmenter("scene.pcaseg")
        segmenter.set_vocabulary(["cat", "grass"])
        result = segmenter("photo.jpg")
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
            window_batch: windows that run at once; more takes more memory. A graph of labels runs all of its own.
            bits: how many bits images of more than 8 use, such as 12 of a camera's 12 in 16; see
                `pcaseg.images.read_image`.
            shortlist: classes of each window that are aggregated at most, as the bundle was exported; None for its own.

        Raises:
            PcasegError: an option outside its choices; the subclasses name what else can be wrong with the bundle.
        """
        if window_batch < 1:
            raise PcasegError(f"window_batch={window_batch}: give 1 or more")
        self._window_batch = window_batch
        check_bits(bits)
        self.bits = bits
        self._bundle_sha256: str | None = None
        self._reopening: dict[str, Any] | None = None
        if isinstance(source, (str, os.PathLike)):
            bundle = Bundle(source)
            check_shortlist(bundle.manifest, shortlist)
            self.strategy: Strategy = choose_strategy(bundle.manifest, strategy)
            self._bundle_sha256 = bundle.sha256
            self._backend = open_backend(backend, bundle, device=device, threads=threads, options=backend_options)
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
            self._backend = source
            check_shortlist(source.manifest, shortlist)
            self.strategy = choose_strategy(source.manifest, strategy)
        self._vocabulary: Vocabulary | None = None
        self._encoded: dict[tuple[str, ...], Vocabulary] = {}

    def __reduce__(self) -> tuple[Callable[..., Segmenter], tuple[object, ...]]:
        """A pickle of its path, options and vocabulary: where it is read, the bundle is opened anew.

        Raises:
            PcasegError: it stands on an opened backend.
        """
        if self._reopening is None:
            raise PcasegError(
                f"a Segmenter on an opened backend ({self._backend.name}) cannot go to another process; open one in "
                "each worker, or make it with Segmenter(PATH, backend=...), which can"
            )
        return _reopen, (self._reopening, self._bundle_sha256, self._vocabulary)

    @property
    def backend(self) -> Backend:
        """Backend that runs the network."""
        return self._backend

    @property
    def vocabulary(self) -> Vocabulary | None:
        """The vocabulary in use; None before the first `set_vocabulary`."""
        return self._vocabulary

    def set_vocabulary(self, spec: VocabularySpec) -> None:
        """Chooses the classes of the images to come. On an error the former vocabulary stays.

        Args:
            spec: class names; the name of a shipped class list, such as `ade20k_150`; the path of a `.txt`, `.csv` or
                `.tsv` file of names or of a `.safetensors` vocabulary; or a `Vocabulary`. Names that were set before
                cost nothing the second time.

        Raises:
            VocabularyError: unusable names or file, or a vocabulary of another text encoder.
            BundleError: the bundle's text encoder is missing or not usable.
            MissingDependencyError: a name needs ftfy, or a vocabulary file safetensors, and it is not installed.
        """
        source = "vocabulary"
        if isinstance(spec, (str, os.PathLike)):
            source = os.fspath(spec)
        meant = resolve_vocabulary(spec)
        if isinstance(meant, Vocabulary):
            self._check_fits(meant, source)
            self._vocabulary = meant
        else:
            self._vocabulary = self._encode(meant)

    def __call__(self, image: str | os.PathLike[str] | np.ndarray | Image.Image) -> Result:
        """Segments one image.

        Args:
            image: path of an image file, or a Pillow image or an array as `pcaseg.images.as_rgb` takes them.

        Raises:
            VocabularyError: no vocabulary was set.
            ImageError: the image cannot be read.
            PcasegError: the network returned values that are not numbers.
        """
        vocabulary = self._vocabulary
        if vocabulary is None:
            raise VocabularyError("no vocabulary: call set_vocabulary with class names before segmenting")
        manifest = self._backend.manifest
        clock = _Clock()
        # An array is copied: the caller's camera buffer may hold the next frame when the overlay is drawn.
        if isinstance(image, (str, os.PathLike)):
            rgb = read_image(image, bits=self.bits)
        else:
            rgb = as_rgb(image, bits=self.bits).copy()
        clock.lap("read")
        if manifest.graph == "labels":
            name = os.fspath(image) if isinstance(image, (str, os.PathLike)) else "image"
            labels, confidence = self._run_labels(rgb, vocabulary.embeddings, clock, name=name)
        else:
            labels, confidence = self._run_windows(rgb, vocabulary.embeddings, clock)
        return Result(
            labels=labels,
            confidence=confidence,
            classes=vocabulary.names,
            image=rgb,
            timings_ms=clock.timings_ms(),
            backend=self._backend.name,
            weights=manifest.weights.kind,
            bundle_sha256=self._bundle_sha256,
        )

    def _run_windows(self, rgb: np.ndarray, text: np.ndarray, clock: _Clock) -> tuple[np.ndarray, np.ndarray]:
        """Labels and confidence through a graph of logits, `window_batch` windows at a time."""
        manifest, step = self._backend.manifest, self._window_batch
        windows = prepare_windows(rgb, self.strategy, image_px=manifest.image.size_px, sliding=manifest.sliding)
        clock.lap("prepare")
        batches, classes = [windows[i : i + step] for i in range(0, len(windows), step)], None
        if manifest.shortlist is None:
            logits = _joined([self._backend.logits(batch, text) for batch in batches])
        else:
            kept = [self._shortlisting().kept_logits(batch, text) for batch in batches]
            logits, classes = join_kept(_joined([one[0] for one in kept]), _joined([one[1] for one in kept]), len(text))
        self._check_finite(logits)
        clock.lap("network")
        scores = merge_windows(logits, self.strategy, manifest.sliding)
        labels, confidence = label_map(scores, (rgb.shape[0], rgb.shape[1]))
        if classes is not None:
            labels = classes.astype(np.uint16)[labels]
        clock.lap("labels")
        return labels, confidence

    def _shortlisting(self) -> ShortlistBackend:
        """The backend, where it runs a graph of logits with a shortlist."""
        if not isinstance(self._backend, ShortlistBackend):
            raise PcasegError(
                f"{self._backend.name}: runs no graph of logits with a shortlist; export without --shortlist"
            )
        return self._backend

    def _run_labels(
        self, rgb: np.ndarray, text: np.ndarray, clock: _Clock, *, name: str
    ) -> tuple[np.ndarray, np.ndarray]:
        """Labels and confidence as a graph of labels gives them."""
        size = self._backend.manifest.image_size
        if size is not None and rgb.shape[:2] != size:
            raise ImageError(
                f"{name}: {rgb.shape[0]} x {rgb.shape[1]} pixels (height x width), but the bundle takes {size[0]} x "
                f"{size[1]} alone; resize the frame, or export without --image-size"
            )
        if self._backend.manifest.shortlist is not None and len(text) > MOST_INDEXED:
            raise VocabularyError(
                f"vocabulary: {len(text)} names, but a graph of labels with a shortlist takes at most {MOST_INDEXED}; "
                "give fewer, or export logits"
            )
        labels, confidence = self._backend.labels(rgb[None], text)
        self._check_finite(confidence)
        clock.lap("network")
        return labels[0].astype(np.uint16), confidence[0]

    def _check_finite(self, values: np.ndarray) -> None:
        if not np.isfinite(values).all():
            raise PcasegError(
                f"{self._backend.name}: the network returned values that are not finite; check the bundle with "
                "pcaseg check, or export it in float32"
            )

    def _encode(self, names: tuple[str, ...]) -> Vocabulary:
        vocabulary = self._encoded.pop(names, None)
        if vocabulary is None:
            encoder = self._backend.manifest.text.encoder_sha256
            vocabulary = Vocabulary(names, self._backend.encode_text(names), encoder)
        self._encoded[names] = vocabulary  # at the end: the first is the one unused for longest
        if len(self._encoded) > _KEPT_VOCABULARIES:
            del self._encoded[next(iter(self._encoded))]
        return vocabulary

    def _check_fits(self, vocabulary: Vocabulary, source: str) -> None:
        text = self._backend.manifest.text
        if vocabulary.encoder_sha256 != text.encoder_sha256:
            raise VocabularyError(
                f"{source}: made by another text encoder ({vocabulary.encoder_sha256[:12]}..., the bundle has "
                f"{text.encoder_sha256[:12]}...); make it anew with pcaseg vocab and this bundle"
            )
        if vocabulary.embeddings.shape[1] != text.embed_dim:
            raise VocabularyError(
                f"{source}: embeddings of {vocabulary.embeddings.shape[1]} numbers, the bundle takes {text.embed_dim}; "
                "make it anew with pcaseg vocab and this bundle"
            )


def _reopen(options: Mapping[str, Any], sha256: str, vocabulary: Vocabulary | None) -> Segmenter:
    """The segmenter that was pickled, on its bundle opened anew.

    Raises:
        BundleError: another bundle stands there by now.
        PcasegError: as `Segmenter`.
    """
    segmenter = Segmenter(**options)
    if segmenter._bundle_sha256 != sha256:
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


def _joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


class _Clock:
    """Times consecutive stages."""

    def __init__(self) -> None:
        self._start = self._last = time.perf_counter()
        self._laps_ms: dict[str, float] = {}

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self._laps_ms[stage] = (now - self._last) * 1e3
        self._last = now

    def timings_ms(self) -> dict[str, float]:
        return self._laps_ms | {"total": (self._last - self._start) * 1e3}
