"""Preparing vocabularies: names to embeddings, each list once however many callers ask for it."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np

from pcaseg.class_names import PROMPT_TEMPLATE, first_synonym
from pcaseg.class_syntax import ClassTree
from pcaseg.configs import MOST_INDEXED, Synonyms, check_choice
from pcaseg.errors import VocabularyError
from pcaseg.runtime.backends import Backend, PromptBackend
from pcaseg.runtime.vocabulary import Vocabulary, VocabularySpec, resolve_vocabulary

KEPT_VOCABULARIES = 64

_Key = tuple[ClassTree, Synonyms, tuple[str, ...]]


class VocabularyCache:
    """Prepares vocabularies for one backend and keeps the last `KEPT_VOCABULARIES`; safe from several threads."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._kept: OrderedDict[_Key, Vocabulary] = OrderedDict()
        self._lock = threading.Lock()  # of what is kept
        self._encoding = threading.Lock()  # one list at a time: a list that two ask for is encoded once

    def __len__(self) -> int:
        return len(self._kept)

    def prepare(
        self, spec: VocabularySpec, *, synonyms: Synonyms | None = None, templates: Sequence[str] | None = None
    ) -> Vocabulary:
        """Makes a vocabulary for this backend of what `Segmenter.set_vocabulary` takes.

        Raises:
            VocabularyError: unusable names, templates or file, a vocabulary of another text encoder, or more names than
                the graph takes.
            BundleError: the bundle's text encoder is missing or not usable.
            MissingDependencyError: a name needs ftfy, or a vocabulary file safetensors, and it is not installed.
        """
        if synonyms is not None:
            check_choice(synonyms, Synonyms, what="synonyms")
        meant = resolve_vocabulary(spec)
        if isinstance(meant, Vocabulary):
            source = os.fspath(spec) if isinstance(spec, (str, os.PathLike)) else "vocabulary"
            if synonyms is not None or templates is not None:
                raise VocabularyError(f"{source}: is prepared already; give synonyms and templates with the names")
            self._check_fits(meant, source)
            self._check_length(len(meant.embeddings))
            return meant
        key = meant, synonyms or "best", _checked(templates)
        self._check_length(len(meant.names) if synonyms == "mean" else sum(map(len, meant.synonyms)))
        found = self._find(key)
        if found is not None:
            return found
        with self._encoding:
            found = self._find(key)
            if found is None:
                found = self._encode(*key)
                self._keep(key, found)
            return found

    def _encode(self, tree: ClassTree, synonyms: Synonyms, templates: tuple[str, ...]) -> Vocabulary:
        names = [one for group in tree.synonyms for one in group]
        rows = [index for index, group in enumerate(tree.synonyms) for _ in group]
        if templates == (PROMPT_TEMPLATE,):
            text = self._backend.encode_text(names)
        elif isinstance(self._backend, PromptBackend):
            prompts = [template.replace("{}", first_synonym(name)) for template in templates for name in names]
            text = _unit(self._backend.encode_prompts(prompts).reshape(len(templates), len(names), -1).mean(axis=0))
        else:
            raise VocabularyError(f"{self._backend.name}: encodes the published prompt alone; leave templates out")
        if synonyms == "mean" and len(rows) > len(tree.names):
            text = _unit(np.add.reduceat(text, np.unique(rows, return_index=True)[1]))
            rows = list(range(len(tree.names)))
        encoder = self._backend.manifest.text.encoder_sha256
        return Vocabulary(tree.names, text, encoder, tuple(rows), tree.objects, templates, synonyms)

    def _check_length(self, rows: int) -> None:
        manifest = self._backend.manifest
        if manifest.graph == "labels" and manifest.shortlist is not None and rows > MOST_INDEXED:
            raise VocabularyError(
                f"vocabulary: {rows} names, but a graph of labels with a shortlist takes at most {MOST_INDEXED}; give "
                "fewer, or export logits"
            )

    def _find(self, key: _Key) -> Vocabulary | None:
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def _keep(self, key: _Key, vocabulary: Vocabulary) -> None:
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


def _checked(templates: Sequence[str] | None) -> tuple[str, ...]:
    if templates is None:
        return (PROMPT_TEMPLATE,)
    if isinstance(templates, str) or not templates:
        raise VocabularyError(f"templates={templates!r}: give a list of prompts, one or more")
    for template in templates:
        if not isinstance(template, str) or template.count("{}") != 1:
            raise VocabularyError(f"template {template!r}: write {{}} once, where the name goes")
    return tuple(templates)


def _unit(rows: np.ndarray) -> np.ndarray:
    result: np.ndarray = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return result
