"""The C interface of `libpcaseg`, called from Python."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from ctypes import Structure, byref, c_char_p, c_double, c_int, c_size_t, c_void_p
from pathlib import Path

import numpy as np

OK, BAD_ARGUMENT, BAD_BUNDLE, BAD_VOCABULARY, BAD_IMAGE, FAILED = range(6)


class Options(Structure):
    _fields_ = [("backend", c_char_p), ("strategy", c_char_p), ("threads", c_int), ("window_batch", c_int)]


class Frame(Structure):
    _fields_ = [("pixels", c_void_p), ("height", c_int), ("width", c_int), ("row_bytes", c_size_t)]


class Timings(Structure):
    _fields_ = [(f"{stage}_ms", c_double) for stage in ("prepare", "network", "labels", "total")]


class RefusedError(Exception):
    """A call that failed: its status and its sentence."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status, self.sentence = status, sentence


class Library:
    """The shared library."""

    def __init__(self, path: Path) -> None:
        self._library = ctypes.CDLL(str(path))
        for name in ("version", "error", "class_name", "bundle_sha256"):
            getattr(self._library, f"pcaseg_{name}").restype = c_char_p
        self._library.pcaseg_class_count.restype = c_size_t

    def call(self, name: str, *arguments) -> None:
        """Calls a function that gives a status.

        Raises:
            RefusedError: it is not 0.
        """
        if status := getattr(self._library, f"pcaseg_{name}")(*arguments):
            raise RefusedError(status, self.text("error"))

    def text(self, name: str, *arguments) -> str | None:
        """What a function that gives a string gives."""
        found = getattr(self._library, f"pcaseg_{name}")(*arguments)
        return None if found is None else found.decode()

    def open(self, bundle: Path | str, **options) -> NativeSegmenter:
        return NativeSegmenter(self, bundle, **options)


class NativeSegmenter:
    """A segmenter of the library, with the methods of `pcaseg.Segmenter` that it has."""

    def __init__(
        self, library: Library, bundle: Path | str, *, threads: int = 1, window_batch: int = 0, **names
    ) -> None:
        words = {name: value.encode() for name, value in names.items() if value is not None}
        options = Options(threads=threads, window_batch=window_batch, **words)
        self.library, self.handle = library, c_void_p()
        library.call("open", str(bundle).encode(), byref(options), byref(self.handle))

    def __del__(self) -> None:
        self.library._library.pcaseg_close(self.handle)

    def load_vocabulary(self, path: Path | str) -> None:
        self.library.call("load_vocabulary", self.handle, str(path).encode())

    def set_vocabulary(self, names: Sequence[str], embeddings: np.ndarray, encoder: str) -> None:
        words = (c_char_p * len(names))(*(name.encode() for name in names))
        rows, width = embeddings.shape
        values = np.ascontiguousarray(embeddings, np.float32).ctypes.data_as(c_void_p)
        self.library.call(
            "set_vocabulary", self.handle, words, c_size_t(rows), values, c_size_t(width), encoder.encode()
        )

    @property
    def classes(self) -> list[str | None]:
        count = self.library._library.pcaseg_class_count(self.handle)
        return [self.library.text("class_name", self.handle, c_size_t(label)) for label in range(count)]

    def __call__(self, *images: np.ndarray) -> tuple[np.ndarray, np.ndarray, Timings]:
        """Labels and confidence, (N, H, W), of frames `(H, W, 3)` whose rows may be apart."""
        frames = (Frame * len(images))(*(self._frame(image) for image in images))
        shape = (len(images), *images[0].shape[:2])
        labels, confidence, timings = np.full(shape, 65535, np.uint16), np.full(shape, np.nan, np.float32), Timings()
        out = [array.ctypes.data_as(c_void_p) for array in (labels, confidence)]
        if len(images) == 1:
            self.library.call("segment", self.handle, frames, *out, byref(timings))
        else:
            self.library.call("segment_batch", self.handle, frames, c_size_t(len(images)), *out, byref(timings))
        return labels, confidence, timings

    @staticmethod
    def _frame(image: np.ndarray) -> Frame:
        assert image.dtype == np.uint8 and (image.strides[1:] == (3, 1) or image.size == 0)
        return Frame(image.ctypes.data, *image.shape[:2], image.strides[0])
