"""Vocabularies: class names with their text embeddings, which a robot loads without a text encoder."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pcaseg.class_lists import class_list, class_list_names
from pcaseg.class_names import PROMPT_TEMPLATE, check_class_names, read_class_names
from pcaseg.configs import VOCABULARY_FORMAT
from pcaseg.errors import MissingDependencyError, VocabularyError
from pcaseg.files import atomic_path, order_header
from pcaseg.paths import is_file

FORMAT_VERSION = "1"

_TENSOR = "embeddings"
_UNIT_NORM_TOLERANCE = 1e-3
_MAKE_ANEW = "make it anew with pcaseg vocab"


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """Class names and their embeddings.

    Attributes:
        names: T class names, in the order of the labels.
        embeddings: `(T, D)` float32, unit norm, read-only.
        encoder_sha256: which text encoder made them: that of the bundle's manifest.
    """

    names: tuple[str, ...]
    embeddings: np.ndarray
    encoder_sha256: str

    def __post_init__(self) -> None:
        """Checks the fields against each other and takes a copy of the embeddings.

        Raises:
            VocabularyError: names that `check_class_names` refuses, or embeddings that do not fit them.
        """
        names = check_class_names(self.names, source="vocabulary")
        embeddings = np.array(self.embeddings)
        _check_embeddings(embeddings, len(names))
        embeddings.flags.writeable = False
        object.__setattr__(self, "names", names)
        object.__setattr__(self, "embeddings", embeddings)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the vocabulary as a `.safetensors` file.

        Raises:
            OutputError: the destination cannot be written.
            MissingDependencyError: safetensors is not installed.
        """
        _require_safetensors(path)
        from safetensors.numpy import save

        metadata = {
            "format": VOCABULARY_FORMAT,
            "version": FORMAT_VERSION,
            "names": json.dumps(self.names),
            "template": PROMPT_TEMPLATE,
            "encoder_sha256": self.encoder_sha256,
        }
        data = save({_TENSOR: self.embeddings}, metadata=metadata)
        with atomic_path(path) as temporary:
            temporary.write_bytes(data)
            order_header(temporary)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Vocabulary:
        """Reads what `save` wrote.

        Raises:
            VocabularyError: the file is missing, damaged, of another kind or version, or holds no valid vocabulary.
            MissingDependencyError: safetensors is not installed.
        """
        metadata, embeddings = _read_safetensors(path)
        if metadata.get("format") != VOCABULARY_FORMAT or embeddings is None:
            raise VocabularyError(f"{path}: a safetensors file, but not a vocabulary; make one with pcaseg vocab")
        if metadata.get("version") != FORMAT_VERSION:
            raise VocabularyError(
                f"{path}: vocabulary format {metadata.get('version')!r} is not {FORMAT_VERSION!r}, which this pcaseg "
                f"reads; upgrade pcaseg or {_MAKE_ANEW}"
            )
        try:
            names = json.loads(metadata["names"])
            if not isinstance(names, list):
                raise ValueError("names is not a list")
            return cls(tuple(names), embeddings, metadata["encoder_sha256"])
        except (KeyError, ValueError) as error:  # VocabularyError is a ValueError
            reason = f"{error.args[0]} is missing" if isinstance(error, KeyError) else str(error)
            raise VocabularyError(f"{path}: {reason} (in the file); {_MAKE_ANEW}") from error


VocabularySpec = Sequence[str] | str | os.PathLike[str] | Vocabulary


def resolve_names(spec: Sequence[str] | str | os.PathLike[str]) -> tuple[str, ...]:
    """The class names that a user meant.

    Args:
        spec: class names in a list or tuple; the name of a shipped class list; or the path of a `.txt`, `.csv` or
            `.tsv` file or `.json` list, see `read_class_names`.

    Raises:
        VocabularyError: none of these, or names that `check_class_names` refuses.
    """
    if isinstance(spec, (list, tuple)):
        return check_class_names(spec)
    if isinstance(spec, str) and spec in class_list_names():
        return class_list(spec)
    if isinstance(spec, (str, os.PathLike)):
        if Path(spec).suffix.lower() in (".txt", ".csv", ".tsv", ".json"):
            return read_class_names(spec)
        raise VocabularyError(
            f"{os.fspath(spec)}: neither a .txt, .csv, .tsv or .json file nor a class list "
            f"({', '.join(class_list_names())}); for one class write [{os.fspath(spec)!r}], or on the command line "
            "--classes"
        )
    raise VocabularyError(f"vocabulary: got {type(spec).__name__}; give a list of names, which fixes their order")


def resolve_vocabulary(spec: VocabularySpec) -> tuple[str, ...] | Vocabulary:
    """As `resolve_names`; a vocabulary, or the path of its `.safetensors` file, gives the vocabulary.

    Raises:
        VocabularyError: as `resolve_names` and `Vocabulary.load`.
        MissingDependencyError: as `Vocabulary.load`.
    """
    if isinstance(spec, Vocabulary):
        return spec
    if isinstance(spec, (str, os.PathLike)) and Path(spec).suffix.lower() == ".safetensors":
        return Vocabulary.load(spec)
    return resolve_names(spec)


def _check_embeddings(embeddings: np.ndarray, count: int) -> None:
    if embeddings.dtype != np.float32 or embeddings.ndim != 2 or 0 in embeddings.shape:
        raise VocabularyError(
            f"vocabulary: embeddings are {embeddings.dtype} {embeddings.shape}, not float32 (T, D); {_MAKE_ANEW}"
        )
    if len(embeddings) != count:
        raise VocabularyError(f"vocabulary: {count} names but {len(embeddings)} embeddings; {_MAKE_ANEW}")
    norms = np.linalg.norm(embeddings, axis=1)
    if not np.all(np.abs(norms - 1) <= _UNIT_NORM_TOLERANCE):  # written so that NaN fails too
        raise VocabularyError(f"vocabulary: embeddings are not of unit norm or not finite; {_MAKE_ANEW}")


def _require_safetensors(path: str | os.PathLike[str]) -> None:
    try:
        import safetensors.numpy  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(
            f"{path}: vocabulary files need the package safetensors; pip install safetensors"
        ) from error


def _read_safetensors(path: str | os.PathLike[str]) -> tuple[dict[str, str], np.ndarray | None]:
    """Metadata and embeddings (None where the file has no such tensor)."""
    _require_safetensors(path)
    from safetensors import SafetensorError, safe_open

    if not is_file(path, error=VocabularyError):
        raise VocabularyError(f"{path}: no such vocabulary file; check the path")
    try:
        with safe_open(os.fspath(path), framework="numpy") as file:
            embeddings = file.get_tensor(_TENSOR) if list(file.keys()) == [_TENSOR] else None
            return file.metadata() or {}, embeddings
    except (SafetensorError, OSError, TypeError, KeyError, AttributeError) as error:
        raise VocabularyError(f"{path}: damaged or not a safetensors file ({error}); {_MAKE_ANEW}") from error
