"""Kinds of files and folders that people give for a checkpoint: each called by its name, with the mend."""

from __future__ import annotations

import codecs
import os
import re
from collections.abc import Iterable
from pathlib import Path

from pcaseg.errors import CheckpointError
from pcaseg.paths import LONGEST_NAME, entries, exists, is_file, is_folder, short_name
from pcaseg.stand_ins import ARCHIVES, HEAD_BYTES, OTHERS, POINTERS_AND_PAGES, UNPACK, FileKind, kind_of

_CONVERT = "convert its weights to a PyTorch state dict or to safetensors"
_BUNDLE = "segment with --bundle, or give the model file that it was exported from"
_ENGINE = "give the model file that it was built from"
_DAMAGED = "copy it again"

_HEADS = (
    *POINTERS_AND_PAGES,
    *ARCHIVES,
    FileKind(r"\x93NUMPY", "a NumPy array (.npy)", _CONVERT),
    *OTHERS,
    FileKind(r"\x89HDF\r\n\x1a\n", "an HDF5 file, as Keras writes", _CONVERT),
    FileKind(r"GGUF|GGML|lmgg|fmgg|tjgg", "a GGUF file of llama.cpp", "use the checkpoint that it was made from"),
    FileKind(r"....TFL3", "a TensorFlow Lite model", _CONVERT),
    FileKind(r"....ORTM", "an ONNX Runtime model", "give the checkpoint that it was exported from"),
    FileKind(r"[fp]trt", "a TensorRT engine", _ENGINE),
    FileKind(r"\x08\x01\x12", "a TensorFlow SavedModel", _CONVERT),
    FileKind(r'\x08[\x03-\x1f][\x12\x1a"(2:B]', "an ONNX graph", "give the checkpoint that it was exported from"),
    FileKind(r"\x89PNG|\xff\xd8\xff|GIF8|RIFF....WEBP|%PDF", "an image or a document", "give a checkpoint"),
    FileKind(r"PK\x03\x04", "a zip archive without its end, so damaged or half-copied", _DAMAGED),
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
    FileKind(r"", "a zip archive without tensors of torch", UNPACK),
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
    kind = kind_of(data, _HEADS)
    if kind is not None:
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
    if _is_text(data[:HEAD_BYTES]):
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
