"""Checkpoints in shards are read through their index, if it holds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import MappingProxyType

import pytest
import torch
from safetensors.torch import save_file

from pcaseg.errors import CheckpointError
from pcaseg.files import sha256_of
from pcaseg.model.checkpoint_file import Checkpoint

PARTS = {"{}-00001-of-00002.{}": {"a": torch.ones(2)}, "{}-00002-of-00002.{}": {"b.c": torch.zeros(3).half()}}
WRITERS = {"model.safetensors": save_file, "pytorch_model.bin": torch.save}


def refusal(path) -> str:
    with pytest.raises(CheckpointError) as caught:
        Checkpoint.open(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and "\n" not in message
    return message.removeprefix(f"{path}: ")


def sharded(folder, whole: str, changes: Mapping = MappingProxyType({}), absent: tuple[str, ...] = ()):
    stem, ending = whole.split(".")
    files = {name.format(stem, ending): tensors for name, tensors in PARTS.items()}
    for name, tensors in files.items():
        if name not in absent:
            WRITERS[whole](tensors, folder / name)
    listed = {name: file for file, tensors in files.items() for name in tensors} | {**changes}
    listed = {name: file for name, file in listed.items() if file is not None}
    index = folder / f"{whole}.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 14}, "weight_map": listed}))
    return index


@pytest.mark.parametrize("whole", WRITERS)
def test_shards_are_read_through_their_index(tmp_path, whole):
    index = sharded(tmp_path, whole)
    opened = Checkpoint.open(index)
    assert opened.tensors.keys() == {"a", "b.c"} and opened.metadata is None
    assert torch.equal(opened.tensors["a"], torch.ones(2)) and torch.equal(opened.tensors["b.c"], torch.zeros(3))
    before = opened.sha256
    assert before != sha256_of(index)
    WRITERS[whole]({"a": torch.zeros(2)}, tmp_path / whole.replace(".", "-00001-of-00002."))
    assert Checkpoint.open(index).sha256 != before
    first = tmp_path / whole.replace(".", "-00001-of-00002.")
    assert f"is shard 1 of 2; give their index, {index.name}" in refusal(first)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"b.c": "model-00003-of-00003.safetensors"}, "model-00003-of-00003.safetensors is not beside it"),
        ({"d": "model-00002-of-00002.safetensors"}, "lacks d"),
        ({"a": "model-00002-of-00002.safetensors"}, "lacks a"),
        ({"b.c": "../model.safetensors"}, "not in its folder"),
        ({"b.c": "/etc/passwd"}, "not in its folder"),
        ({"b.c": "sub\\..\\x"}, "not in its folder"),
        ({"b.c": "C:x"}, "not in its folder"),
        ({"b.c": ""}, "not in its folder"),
        ({"b.c": None, "e": "model-00002-of-00002.safetensors"}, "lacks e"),
        ({"b.c": 3}, "without a weight_map"),
    ],
)
def test_indices_that_do_not_hold(tmp_path, changes, said):
    index = sharded(tmp_path, "model.safetensors", changes)
    assert said in refusal(index)


def test_indices_that_are_damaged_or_contradict_themselves(tmp_path):
    index = sharded(tmp_path, "model.safetensors", absent=("model-00002-of-00002.safetensors",))
    assert "model-00002-of-00002.safetensors is not beside it" in refusal(index)
    for text, said in (
        ('{"weight_map": {"a": "x", "a": "y"}}', "lists a twice"),
        ('{"weight_map": {', "damaged"),
        ('{"weight_map": {}}', "without a weight_map"),
        ("[1]", "without a weight_map"),
    ):
        index.write_text(text)
        assert said in refusal(index)
    save_file({"a": torch.ones(1), "b": torch.ones(1)}, tmp_path / "model-00001-of-00002.safetensors")
    index.write_text('{"weight_map": {"a": "model-00001-of-00002.safetensors"}}')
    assert "holds b, which the index does not list for it" in refusal(index)
    both = {"model-00001-of-00002.safetensors": {"a", "b"}, "model-00002-of-00002.safetensors": {"b.c"}}
    for name, names in both.items():
        save_file({key: torch.ones(1) for key in {*names, "a"}}, tmp_path / name)
    listed = {name: file for file, names in both.items() for name in names}
    index.write_text(json.dumps({"weight_map": listed}))
    assert "holds a, which the index has twice" in refusal(index)


def test_a_shard_is_called_by_its_own_name(tmp_path):
    index = sharded(tmp_path, "pytorch_model.bin")
    shard = tmp_path / "pytorch_model-00002-of-00002.bin"
    shard.write_bytes(b"version https://git-lfs.github.com/spec/v1\nsize 9\n")
    with pytest.raises(CheckpointError) as caught:
        Checkpoint.open(index)
    assert str(caught.value).startswith(f"{shard}: is a Git LFS pointer")
