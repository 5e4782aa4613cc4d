"""Preparing vocabularies: names to embeddings, each list once however many callers ask for it."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict

from pcaseg.errors import VocabularyError
from pcaseg.runtime.backends import Backend
from pcaseg.runtime.vocabulary import Vocabulary, VocabularySpec, resolve_vocabulary

KEPT_VOCABULARIES = 64


class VocabularyCache:
    """Prepares vocabularies for one backend and keeps the last `KEPT_VOCABULARIES`; safe from several threads."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._kept: OrderedDict[tuple[str, ...], Vocabulary] = OrderedDict()
        self._lock = threading.Lock()  # of what is kept
        self._encoding = threading.Lock()  # one list at a time: a list that two ask for is encoded once

    def __len__(self) -> int:
        return len(self._kept)

    def prepare(self, spec: VocabularySpec) -> Vocabulary:
        """Makes a vocabulary for this backend of what `Segmenter.set_vocabulary` takes.

        Raises:
            VocabularyError: unusable names or file, or a vocabulary of another text encoder.
            BundleError: the bundle's text encoder is missing or not usable.
            MissingDependencyError: a name needs ftfy, or a vocabulary file safetensors, and it is not installed.
        """
        meant = resolve_vocabulary(spec)
        if isinstance(meant, Vocabulary):
            self._check_fits(meant, os.fspath(spec) if isinstance(spec, (str, os.PathLike)) else "vocabulary")
            return meant
        found = self._find(meant)
        if found is not None:
            return found
        with self._encoding:
            found = self._find(meant)
            if found is None:
                encoder = self._backend.manifest.text.encoder_sha256
                found = Vocabulary(meant, self._backend.encode_text(meant), encoder)
                self._keep(meant, found)
            return found

    def _find(self, key: tuple[str, ...]) -> Vocabulary | None:
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def _keep(self, key: tuple[str, ...], vocabulary: Vocabulary) -> None:
        with self._lock:
            self._kept[key] = vocabulary
            if len(self._kept) > KEPT_VOCABULARIES:
                self._kept.popitem(last=False)  # the one unused for longest

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
