"""Kinds of files and folders that people give for a checkpoint: each called by its name, with the mend."""

from __future__ import annotations

import codecs
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from pcaseg.errors import CheckpointError
from pcaseg.paths import LONGEST_NAME, entries, exists, is_file, is_folder, short_name


class FileKind(NamedTuple):
    """One kind that is no checkpoint.

    Attributes:
        pattern: of its first bytes, its name, or the names in it.
        what: name of the kind.
        mend: advice.
    """

    pattern: str
    what: str
    mend: str


_DOWNLOAD = "download the file itself"
_CONVERT = "convert its weights to a PyTorch state dict or to safetensors"
_UNPACK = "unpack it and give the checkpoint in it"
_BUNDLE = "segment with --bundle, or give the model file that it was exported from"
_ENGINE = "give the model file that it was built from"
_DAMAGED = "copy it again"

_HEADS = (
    FileKind(r"version https://git-lfs", "a Git LFS pointer instead of the file", "run git lfs pull"),
    FileKind(r"(\S*/)?\.?(git/)?annex/objects/", "a git-annex pointer instead of the file", "run git annex get"),
    FileKind(
        r"(?i)\s*(<\?xml[^>]*>\s*)?(<!--|<(!doctype\s+html|html|head|body|title|script|meta)\b)",
        "a saved web page (HTML), such as a login or an error",
        _DOWNLOAD,
    ),
    FileKind(r"\s*<[?!\w]", "an XML document, such as a server's error", _DOWNLOAD),
    FileKind(r'\s*(\{\s*["}]|\[\s*["{\[\]\d-])', "JSON text, such as a server's error or a configuration", _DOWNLOAD),
    FileKind(r"\x89HDF\r\n\x1a\n", "an HDF5 file, as Keras writes", _CONVERT),
    FileKind(r"GGUF|GGML|lmgg|fmgg|tjgg", "a GGUF file of llama.cpp", "use the checkpoint that it was made from"),
    FileKind(r"\x93NUMPY", "a NumPy array (.npy)", _CONVERT),
    FileKind(r"....TFL3", "a TensorFlow Lite model", _CONVERT),
    FileKind(r"....ORTM", "an ONNX Runtime model", "give the checkpoint that it was exported from"),
    FileKind(r"[fp]trt", "a TensorRT engine", _ENGINE),
    FileKind(r"\x08\x01\x12", "a TensorFlow SavedModel", _CONVERT),
    FileKind(r'\x08[\x03-\x1f][\x12\x1a"(2:B]', "an ONNX graph", "give the checkpoint that it was exported from"),
    FileKind(r"\x1f\x8b", "a gzip archive", _UNPACK),
    FileKind(r"BZh[1-9]", "a bzip2 archive", _UNPACK),
    FileKind(r"\xfd7zXZ\x00", "an xz archive", _UNPACK),
    FileKind(r"\x28\xb5\x2f\xfd", "a Zstandard archive", _UNPACK),
    FileKind(r"\x04\x22\x4d\x18", "an LZ4 archive", _UNPACK),
    FileKind(r"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", _UNPACK),
    FileKind(r"Rar!\x1a\x07", "a RAR archive", _UNPACK),
    FileKind(r".{257}ustar", "a tar archive", _UNPACK),
    FileKind(r"\x00\x05\x16\x07", "what macOS keeps beside a file", "give the file whose name lacks the ._"),
    FileKind(r"\x89PNG|\xff\xd8\xff|GIF8|RIFF....WEBP|%PDF", "an image or a document", "give a checkpoint"),
    FileKind(r"PK\x03\x04", "a zip archive without its end, so damaged or half-copied", _DAMAGED),
    FileKind(r"\x00{64,}\Z", "nothing but zeros, as of an unfinished download", _DOWNLOAD),
)
"""By the first bytes, read as Latin-1. The one about zip files is for those that `zipfile` does not open."""

_UNFINISHED = FileKind(
    r"\.(crdownload|part|partial|download|opdownload|incomplete|aria2|!ut)$",
    "an unfinished download",
    "let it finish",
)
_NAMES = (
    FileKind(r"\.onnx$", "an ONNX graph", "give the checkpoint that it was exported from"),
    FileKind(r"\.(plan|engine|trt)$", "a TensorRT engine", _ENGINE),
    FileKind(r"\.data-\d{5}-of-\d{5}$|\.index$|\.meta$|^checkpoint$", "a part of a TensorFlow checkpoint", _CONVERT),
    FileKind(r"\.pb$", "a TensorFlow graph", _CONVERT),
    FileKind(r"\.(h5|hdf5|keras)$", "a Keras file, and damaged at that", _DAMAGED),
    FileKind(r"\.(msgpack|flax)$", "a Flax file", _CONVERT),
    FileKind(r"\.distcp$", "a part of a distributed checkpoint", "give its folder, which says how to convert it"),
)
"""By the file's name, where its bytes say nothing."""

_MEMBERS = (
    FileKind(r"(^|/)segmenter\.onnx$", "a bundle of pcaseg", _BUNDLE),
    FileKind(r"\.npy$", "a NumPy archive (.npz)", _CONVERT),
    FileKind(r"(^|/)(model\.weights\.h5|saved_model\.pb)$", "a Keras or TensorFlow model", _CONVERT),
    FileKind(r"(^|/)extern_modules$", "a torch.package archive", "save the state_dict of its model with torch.save"),
    FileKind(r"", "a zip archive without tensors of torch", _UNPACK),
)
"""By a zip archive's members."""

_FOLDERS = (
    FileKind(r"^segmenter\.onnx$", "a bundle of pcaseg", _BUNDLE),
    FileKind(
        r"\.distcp$",
        "a distributed checkpoint (DCP, FSDP)",
        "convert it with python -m torch.distributed.checkpoint.format_utils dcp_to_torch FOLDER model.pth",
    ),
    FileKind(
        r"^zero_to_fp32\.py$|mp_rank_\d+.*_model_states\.pt$|^zero_pp_rank_",
        "a DeepSpeed checkpoint",
        "convert it with its zero_to_fp32.py",
    ),
    FileKind(r"^saved_model\.pb$|\.index$", "a TensorFlow checkpoint", _CONVERT),
    FileKind(r"^data\.pkl$", "an unpacked torch file", "zip it again, without compression, to a .pth file"),
)
"""By the names in a folder and in the folders in it."""

_READABLE = (".index.json", ".safetensors", ".pth", ".pt", ".bin", ".ckpt")
_HEAD_BYTES = 4096


def existing_file(path: Path) -> Path:
    """`path`, if it is a file that may be a checkpoint.

    Raises:
        CheckpointError: it is absent, a folder, or an unfinished download.
    """
    if is_folder(path, error=CheckpointError):
        raise _refuse_folder(path)
    if not is_file(path, error=CheckpointError):
        what = "is a link to what is not there" if os.path.islink(path) else "no such file"
        raise CheckpointError(f"{path}: {what}; give the path of a .pth, .pt or .safetensors file")
    if re.search(_UNFINISHED.pattern, path.name) or exists(_beside(path)):
        raise _refused(path, _UNFINISHED)
    return path


def refuse_known(data: bytes, path: Path) -> None:
    """Refuses what its first bytes say is no checkpoint.

    Raises:
        CheckpointError: with the kind and the mend.
    """
    if not data:
        raise CheckpointError(f"{path}: is empty; {_DAMAGED}")
    head = data[:_HEAD_BYTES]
    for mark, encoding in ((codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16")):
        if head.startswith(mark):
            head = head.decode(encoding, "ignore").encode("ascii", "ignore")
    text = head.removeprefix(codecs.BOM_UTF8).decode("latin1")
    for kind in _HEADS:
        if re.match(kind.pattern, text, re.DOTALL):
            raise _refused(path, kind)


def unknown_zip(names: Iterable[str], path: Path) -> CheckpointError:
    """The error about a zip archive that holds no tensors of torch."""
    names = list(names)
    kind = next(kind for kind in _MEMBERS if not names or any(re.search(kind.pattern, name) for name in names))
    return _refused(path, kind if names else _MEMBERS[-1])


def unknown_file(data: bytes, path: Path) -> CheckpointError:
    """The error about a file of which neither bytes nor reading tell what it is."""
    for kind in _NAMES:
        if re.search(kind.pattern, path.name):
            return _refused(path, kind)
    if _is_text(data[:_HEAD_BYTES]):
        return CheckpointError(f"{path}: is a text file; give the checkpoint itself")
    return CheckpointError(f"{path}: not a checkpoint, or one that is damaged or half-copied; {_DAMAGED}")


def _beside(path: Path) -> Path:
    """The file that aria2 keeps beside an unfinished download."""
    return path.with_name(f"{short_name(path.name, LONGEST_NAME - len('.aria2'))}.aria2")


def _is_text(head: bytes) -> bool:
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(head)  # the last character may be cut
    except UnicodeDecodeError:
        return False
    return all(character.isprintable() or character.isspace() for character in text)


def _refused(path: Path, kind: FileKind) -> CheckpointError:
    return CheckpointError(f"{path}: is {kind.what}; {kind.mend}")


def _refuse_folder(path: Path) -> CheckpointError:
    """The error about a folder: of which kind it is, or which files in it may be meant."""
    found = entries(path, error=CheckpointError)
    inner = [file for folder in found if is_folder(folder) for file in entries(folder, error=CheckpointError)]
    names = sorted(file.name for file in (*found, *inner))
    for kind in _FOLDERS:
        if any(re.search(kind.pattern, name) for name in names):
            return CheckpointError(f"{path}: is a folder, {kind.what}; {kind.mend}")
    files = [file.name for file in found if is_file(file)]
    held = [name for ending in _READABLE for name in files if name.endswith(ending)]
    meant = f"give a file in it, such as {held[0]}" if held else "give the path of a .pth, .pt or .safetensors file"
    return CheckpointError(f"{path}: is a folder; {meant}")
