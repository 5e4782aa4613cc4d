"""Checkpoints in shards, as Hugging Face writes them: an index in JSON, and files beside it that hold the tensors."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from pcaseg.errors import CheckpointError
from pcaseg.paths import is_file

_MEND = "download the index and all of its shards again"
_SHARD = re.compile(r"-(\d{5})-of-(\d{5})\.")


def shards_of(data: bytes, path: Path) -> dict[str, list[str]] | None:
    """The names that an index expects of each of its shards, by the shard's path in the index's folder; None of a
    file that is no index.

    Raises:
        CheckpointError: the index is damaged, lists a name twice, or a shard that lies elsewhere or nowhere.
    """
    named = path.name.lower().endswith(".index.json")
    if not named and not re.match(rb'\s*\{\s*"(metadata|weight_map)"', data):
        return None
    try:
        content = json.loads(data, object_pairs_hook=lambda pairs: _each_once(pairs, path))
    except (ValueError, RecursionError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{path}: a damaged index of shards; {_MEND}") from error
    listed = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(listed, dict) or not listed or not all(isinstance(file, str) for file in listed.values()):
        if named:
            raise CheckpointError(f"{path}: an index of shards without a weight_map; {_MEND}")
        return None
    shards: dict[str, list[str]] = {}
    for name, file in listed.items():
        shards.setdefault(file, []).append(name)
    _check_files(sorted(shards), path)
    return shards


def refuse_lone_shard(path: Path) -> None:
    """Refuses one of several shards that is given for the whole.

    Raises:
        CheckpointError: the file's name says so.
    """
    found = _SHARD.search(path.name)
    if found and int(found[2]) > 1:
        index = f"{_SHARD.sub('.', path.name)}.index.json"
        raise CheckpointError(f"{path}: is shard {int(found[1])} of {int(found[2])}; give their index, {index}")


def read_shards(
    shards: Mapping[str, list[str]], path: Path, read: Callable[[Path], Mapping[str, Any]]
) -> dict[str, Any]:
    """The tensors of all shards, which must be exactly those that the index expects of each.

    Args:
        shards: of `shards_of`.
        path: of the index.
        read: the tensors of one shard by name.

    Raises:
        CheckpointError: of `read`; or a tensor is absent, twice there, or not in the index.
    """
    found: dict[str, Any] = {}
    for file, names in sorted(shards.items()):
        tensors = read(path.parent / file)
        absent, extra = sorted(set(names) - tensors.keys()), sorted(tensors.keys() - set(names))
        if absent:
            raise CheckpointError(f"{path}: its shard {file} lacks {absent[0]}{_more(absent)}; {_MEND}")
        if extra:
            twice = "has twice" if extra[0] in found else "does not list for it"
            raise CheckpointError(f"{path}: its shard {file} holds {extra[0]}, which the index {twice}; {_MEND}")
        found |= tensors
    return found


def _each_once(pairs: list[tuple[str, Any]], path: Path) -> dict[str, Any]:
    """A JSON object, if no name stands twice in it."""
    content: dict[str, Any] = {}
    for name, value in pairs:
        if name in content:
            raise CheckpointError(f"{path}: an index of shards that lists {name} twice; {_MEND}")
        content[name] = value
    return content


def _check_files(files: list[str], path: Path) -> None:
    """Refuses shards outside of the index's folder, or that are not there."""
    for file in files:
        parts = PurePosixPath(file).parts
        if not parts or not file.isprintable() or file.startswith("/") or ".." in parts or set(file) & set("\\:"):
            raise CheckpointError(
                f"{path}: lists the shard {file!r}, which is not in its folder; do not use this index"
            )
    absent = [file for file in files if not is_file(path.parent / file, error=CheckpointError)]
    if absent:
        raise CheckpointError(f"{path}: its shard {absent[0]} is not beside it{_more(absent)}; {_MEND}")


def _more(names: list[str]) -> str:
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""
