"""Reads bundles: a folder `NAME.pcaseg/`, or the same as a zip file, with a manifest that vouches for every file.

Nothing of a bundle is parsed before its SHA-256 is checked, and none of it is pickle.
"""

from __future__ import annotations

import hashlib
import os
import zipfile
from functools import cached_property
from pathlib import Path

from pcaseg.errors import BundleError, PcasegError
from pcaseg.paths import exists, is_folder
from pcaseg.runtime.manifest import (
    SCHEMA_VERSION,
    FileEntry,
    GraphInfo,
    ImageSpec,
    Manifest,
    TensorSpec,
    TextSpec,
    Weights,
    check_file_name,
)

__all__ = [
    "MANIFEST_NAME",
    "PLUGIN_SEGMENTER_NAME",
    "SCHEMA_VERSION",
    "SEGMENTER_NAME",
    "TEXT_ENCODER_NAME",
    "TOKENIZER_NAME",
    "Bundle",
    "FileEntry",
    "GraphInfo",
    "ImageSpec",
    "Manifest",
    "TensorSpec",
    "TextSpec",
    "Weights",
]

MANIFEST_NAME = "manifest.json"
SEGMENTER_NAME = "segmenter.onnx"
PLUGIN_SEGMENTER_NAME = "segmenter.plugins.onnx"
TEXT_ENCODER_NAME = "text_encoder.onnx"
TOKENIZER_NAME = "tokenizer.json"

_MANIFEST_MAX_BYTES = 4 << 20
_COPY_AGAIN = "copy the bundle again or export it anew"


class Bundle:
    """A bundle on disk, opened for reading. Files are read when asked for, and checked every time."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Reads the manifest, nothing else.

        Args:
            path: the folder, or a zip file that has the manifest at its top or in its one folder.

        Raises:
            BundleError: no bundle at `path`, or its manifest is not usable.
        """
        self.path = Path(path)
        self._prefix = ""
        if not exists(self.path, error=BundleError):
            raise BundleError(f"{self.path}: no such bundle; check the path")
        if not is_folder(self.path):
            self._prefix = self._find_prefix()
        self.manifest_bytes = self._load(MANIFEST_NAME, _MANIFEST_MAX_BYTES)
        self.manifest = Manifest.from_json(self.manifest_bytes, self._shown(MANIFEST_NAME))

    @property
    def outputs(self) -> tuple[str, ...]:
        """Output of the segmenter graph."""
        if self.manifest.graph == "labels":
            return "labels", "confidence"
        return ("logits",) if self.manifest.shortlist is None else ("logits", "classes")

    def check_outputs(self, asked: tuple[str, ...]) -> None:
        """Refuses to run the graph for other outputs than it has.

        Raises:
            PcasegError: the message names both.
        """
        if asked != self.outputs:
            raise PcasegError(
                f"{self.path}: its graph ends in {' and '.join(self.outputs)}, not {' and '.join(asked)}; "
                "segment with pcaseg.Segmenter, which asks for the right ones"
            )

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the manifest, and through it of everything in the bundle."""
        return hashlib.sha256(self.manifest_bytes).hexdigest()

    def read(self, name: str) -> bytes:
        """The contents of a file.

        Args:
            name: as the manifest's `files` lists it.

        Raises:
            BundleError: not listed, missing, or not the bytes that the manifest vouches for.
        """
        entry = self.manifest.files.get(name)
        if entry is None:
            listed = ", ".join(self.manifest.files) or "none"
            raise BundleError(f"{self.path}: {name} is not one of the bundle's files ({listed}); {_COPY_AGAIN}")
        data = self._load(name, entry.bytes)
        if len(data) != entry.bytes or hashlib.sha256(data).hexdigest() != entry.sha256:
            raise BundleError(f"{self._shown(name)} differs from the manifest (tampered or half-copied); {_COPY_AGAIN}")
        return data

    def verify(self) -> None:
        """Checks every file that the manifest lists.

        Raises:
            BundleError: as `read`, for the first file at fault.
        """
        for name in self.manifest.files:
            self.read(name)

    def _shown(self, name: str) -> str:
        return str(self.path / name)

    def _load(self, name: str, limit: int) -> bytes:
        """Up to `limit + 1` bytes of a file: an impostor is noticed before it fills the memory."""
        check_file_name(name, source=str(self.path))
        try:
            if is_folder(self.path):
                with open(self.path / name, "rb") as file:
                    return file.read(limit + 1)
            with zipfile.ZipFile(self.path) as archive, archive.open(self._prefix + name) as member:
                return member.read(limit + 1)
        except (FileNotFoundError, IsADirectoryError, KeyError) as error:
            reason = "is missing: not a bundle, or half-copied" if name == MANIFEST_NAME else "is missing (half-copied)"
            raise BundleError(f"{self._shown(name)} {reason}; {_COPY_AGAIN}") from error
        except Exception as error:  # OSError; of damaged archives zlib.error, EOFError, NotImplementedError...
            raise BundleError(f"{self._shown(name)} cannot be read ({error}); {_COPY_AGAIN}") from error

    def _find_prefix(self) -> str:
        """Prefix of `manifest.json` in the archive: nothing, or the name of its one folder."""
        try:
            with zipfile.ZipFile(self.path) as archive:
                names = archive.namelist()
        except OSError as error:
            raise BundleError(f"{self.path}: cannot be read ({error.strerror}); make it readable") from error
        except Exception as error:  # BadZipFile; of damaged ones NotImplementedError, UnicodeDecodeError...
            raise BundleError(f"{self.path}: neither a bundle folder nor a zip file; {_COPY_AGAIN}") from error
        folders = {name.split("/", 1)[0] + "/" for name in names if name.count("/") == 1}
        nested = [folder for folder in sorted(folders) if folder + MANIFEST_NAME in names]
        return nested[0] if MANIFEST_NAME not in names and len(nested) == 1 else ""
