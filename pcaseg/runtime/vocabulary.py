"""Vocabularies: class names with their text embeddings, which a robot loads without a text encoder."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np

from pcaseg.class_lists import class_list, class_list_names
from pcaseg.class_names import LIST_FILES, PROMPT_TEMPLATE, check_class_count, check_class_names, read_class_names
from pcaseg.class_syntax import ClassTree, has_syntax, read_classes, split_classes
from pcaseg.configs import VOCABULARY_FORMAT, Synonyms
from pcaseg.errors import MissingDependencyError, VocabularyError
from pcaseg.files import atomic_path, order_header
from pcaseg.paths import is_file

FORMAT_VERSION, FORMAT_OF_TREES = "1", "2"
"""Of files with a row for each class, and of those with synonyms that count by themselves, or parts."""

_TENSOR = "embeddings"
_UNIT_NORM_TOLERANCE = 1e-3
_MAKE_ANEW = "make it anew with pcaseg vocab"


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """Class names and their embeddings.

    Attributes:
        names: T class names, in the order of the labels.
        embeddings: `(R, D)` float32, unit norm, read-only: a row for each class, or several for one with synonyms of
            which the best counts.
        encoder_sha256: which text encoder made them: that of the bundle's manifest.
        rows: R class indices, ascending; left out, each class has one row.
        objects: T class indices: of a part its object's, else its own; left out, there are no parts.
        templates: prompts that the names were put in.
        synonyms: how synonyms count.
    """

    names: tuple[str, ...]
    embeddings: np.ndarray
    encoder_sha256: str
    rows: tuple[int, ...] = ()
    objects: tuple[int, ...] = ()
    templates: tuple[str, ...] = (PROMPT_TEMPLATE,)
    synonyms: Synonyms = "best"

    def __post_init__(self) -> None:
        """Checks the fields against each other and takes a copy of the embeddings.

        Raises:
            VocabularyError: names that `check_class_names` refuses, or embeddings that do not fit them.
        """
        names = check_class_names(self.names, source="vocabulary")
        rows, objects = tuple(self.rows) or tuple(range(len(names))), tuple(self.objects) or tuple(range(len(names)))
        embeddings = np.array(self.embeddings)
        _check_tree(rows, objects, len(names))
        _check_embeddings(embeddings, len(names) if len(rows) == len(names) else len(rows))
        check_class_count(len(rows), source="vocabulary")
        embeddings.flags.writeable = False
        object.__setattr__(self, "rows", rows)
        object.__setattr__(self, "objects", objects)
        object.__setattr__(self, "names", names)
        object.__setattr__(self, "embeddings", embeddings)

    @property
    def has_parts(self) -> bool:
        """True where a class is a part of another one."""
        return self.objects != tuple(range(len(self.names)))

    @property
    def class_of_row(self) -> np.ndarray | None:
        """`(R,)` uint16 from rows to classes; None where they are the same."""
        return None if len(self.rows) == len(self.names) else np.array(self.rows, np.uint16)

    @property
    def prompts(self) -> dict[str, object] | None:
        """Templates and synonyms for records; None for the published prompt of each name."""
        published = self.templates == (PROMPT_TEMPLATE,) and self.synonyms == "best"
        return None if published else {"templates": list(self.templates), "synonyms": self.synonyms}

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
            "template": self.templates[0] if len(self.templates) == 1 else json.dumps(self.templates),
            "encoder_sha256": self.encoder_sha256,
        }
        if self.class_of_row is not None or self.has_parts or self.prompts is not None:
            metadata |= {"version": FORMAT_OF_TREES, "templates": json.dumps(self.templates), "synonyms": self.synonyms}
            metadata |= {"rows": json.dumps(self.rows), "objects": json.dumps(self.objects)}
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
        version = metadata.get("version")
        if version not in (FORMAT_VERSION, FORMAT_OF_TREES):
            raise VocabularyError(
                f"{path}: vocabulary format {version!r} is not {FORMAT_VERSION!r} or {FORMAT_OF_TREES!r}, which this "
                f"pcaseg reads; upgrade pcaseg or {_MAKE_ANEW}"
            )
        try:
            names = json.loads(metadata["names"])
            if not isinstance(names, list):
                raise ValueError("names is not a list")
            return cls(tuple(names), embeddings, metadata["encoder_sha256"], **_tree_of(metadata))
        except (KeyError, TypeError, ValueError) as error:  # VocabularyError is a ValueError
            reason = f"{error.args[0]} is missing" if isinstance(error, KeyError) else str(error)
            raise VocabularyError(f"{path}: {reason} (in the file); {_MAKE_ANEW}") from error


VocabularySpec = Sequence[str] | str | os.PathLike[str] | Vocabulary | ClassTree


def resolve_names(spec: Sequence[str] | str | os.PathLike[str]) -> tuple[str, ...]:
    """The class names that a user meant, see `resolve_classes`."""
    return resolve_classes(spec).names


def resolve_classes(spec: Sequence[str] | str | os.PathLike[str]) -> ClassTree:
    """The classes that a user meant.

    Args:
        spec: entries in a list or tuple, or in one string, see `pcaseg.class_syntax`; the name of a shipped class list;
            or the path of a `.txt`, `.csv` or `.tsv` file or `.json` list of entries, see `read_class_names`.

    Raises:
        VocabularyError: none of these, or classes that `read_classes` refuses.
    """
    if isinstance(spec, (list, tuple)):
        return read_classes(spec)
    if isinstance(spec, str) and spec in class_list_names():
        return ClassTree.plain(class_list(spec))
    if isinstance(spec, (str, os.PathLike)):
        if Path(spec).suffix.lower() in LIST_FILES:
            return read_classes(read_class_names(spec), source=os.fspath(spec))
        if isinstance(spec, str) and has_syntax(spec):
            return read_classes(split_classes(spec))
        raise VocabularyError(
            f"{os.fspath(spec)}: neither a .txt, .csv, .tsv or .json file nor a class list "
            f"({', '.join(class_list_names())}); for one class write [{os.fspath(spec)!r}], or on the command line "
            "--classes"
        )
    raise VocabularyError(f"vocabulary: got {type(spec).__name__}; give a list of names, which fixes their order")


def resolve_vocabulary(spec: VocabularySpec) -> ClassTree | Vocabulary:
    """As `resolve_classes`; a vocabulary, or the path of its `.safetensors` file, gives the vocabulary.

    Raises:
        VocabularyError: as `resolve_classes` and `Vocabulary.load`.
        MissingDependencyError: as `Vocabulary.load`.
    """
    if isinstance(spec, (Vocabulary, ClassTree)):
        return spec
    if isinstance(spec, (str, os.PathLike)) and Path(spec).suffix.lower() == ".safetensors":
        return Vocabulary.load(spec)
    return resolve_classes(spec)


def _tree_of(metadata: dict[str, str]) -> dict[str, Any]:
    """Fields of a vocabulary that files of the second format have."""
    if metadata["version"] == FORMAT_VERSION:
        return {}
    found: dict[str, Any] = {key: tuple(json.loads(metadata[key])) for key in ("rows", "objects", "templates")}
    if not all(isinstance(one, str) for one in found["templates"]) or metadata["synonyms"] not in get_args(Synonyms):
        raise ValueError("templates or synonyms are of no known kind")
    return found | {"synonyms": metadata["synonyms"]}


def _check_tree(rows: tuple[int, ...], objects: tuple[int, ...], count: int) -> None:
    """Refuses rows that leave a class out, and objects that are parts."""
    whole = all(type(one) is int for one in (*rows, *objects))
    if not whole or list(rows) != sorted(rows) or set(rows) != set(range(count)):
        raise VocabularyError(f"vocabulary: rows do not belong to {count} classes in order; {_MAKE_ANEW}")
    if len(objects) != count or not all(0 <= one < count and objects[one] == one for one in objects):
        raise VocabularyError(f"vocabulary: {count} names but objects {objects[:8]}; {_MAKE_ANEW}")


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
