"""The same input twice is the same bytes, wherever and in whatever process it is written."""

from __future__ import annotations

import os
import random
import subprocess
import sys

import numpy as np
import pytest
import torch
from support import small_model

from pcaseg import cli
from pcaseg.files import order_header, sha256_of
from pcaseg.model.checkpoint import SHIPPED, import_checkpoint, save_model
from pcaseg.model.checkpoint_file import write_tensors
from pcaseg.runtime.vocabulary import Vocabulary


def test_imports_are_equal_wherever_they_stand(tmp_path, monkeypatch):
    import safetensors.torch

    tensors = safetensors.torch.load_file(SHIPPED / "tiny.safetensors")
    found = set()
    for number in range(6):
        folder = tmp_path / str(number % 3)
        folder.mkdir(exist_ok=True)
        monkeypatch.chdir(folder)
        torch.save(tensors, "c.pth")
        out = f"out{number}.safetensors"
        assert cli.main(["import", "c.pth", "--preset", "tiny", "--out", out]) == 0
        found.add(sha256_of(out))
    assert len(found) == 1
    assert import_checkpoint(out, tmp_path / "again.safetensors", preset="tiny").source.kind == "checkpoint"


def test_saved_models_and_vocabularies_are_equal(tmp_path):
    values = np.eye(3, dtype=np.float32)
    models, vocabularies = set(), set()
    for number in range(6):
        save_model(small_model(), tmp_path / f"{number}.safetensors")
        models.add(sha256_of(tmp_path / f"{number}.safetensors"))
        Vocabulary(("cat", "草 '\"", "élève"), values, "e" * 64).save(tmp_path / "v.safetensors")
        vocabularies.add(sha256_of(tmp_path / "v.safetensors"))
    assert len(models) == len(vocabularies) == 1
    assert Vocabulary.load(tmp_path / "v.safetensors").names[1] == "草 '\""


def test_metadata_of_odd_characters_keeps_its_length_and_meaning(tmp_path):
    from safetensors import safe_open

    metadata = {"".join(random.Random(i).sample('ab"\\/\n\t\x01\x1f\x7f\u2028é草😀', 6)): str(i) for i in range(20)}
    found = set()
    for _ in range(4):
        write_tensors({"b": torch.ones(3), "a": torch.zeros(2)}, tmp_path / "x.safetensors", metadata)
        found.add(sha256_of(tmp_path / "x.safetensors"))
    order_header(tmp_path / "x.safetensors")
    assert found == {sha256_of(tmp_path / "x.safetensors")}
    with safe_open(tmp_path / "x.safetensors", framework="pt") as file:
        assert file.metadata() == metadata and torch.equal(file.get_tensor("b"), torch.ones(3))


@pytest.mark.slow
def test_exports_of_two_processes(tmp_path):
    for number in (1, 2):
        folder = tmp_path / str(number)
        folder.mkdir()
        command = [sys.executable, "-m", "pcaseg", "export", "tiny", "--out", f"{'b' * number}.pcaseg.zip"]
        subprocess.run(command, check=True, cwd=folder, env=os.environ | {"PYTHONHASHSEED": str(number)})
    assert sha256_of(tmp_path / "1" / "b.pcaseg.zip") == sha256_of(tmp_path / "2" / "bb.pcaseg.zip")
