"""Names behind the wrappers of trainings are read; messages name entries as the file does."""

from __future__ import annotations

import warnings

import pytest
import torch
from support import SMALL_EVA, SMALL_OPENAI, small_model
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

from pcaseg.errors import CheckpointError
from pcaseg.model.checkpoint import SeededWeightsWarning, load_model
from pcaseg.model.checkpoint_file import Checkpoint
from pcaseg.model.names import CLIP_PREFIX, SEED_ENTRY, to_published

HEAD = "sem_seg_head.predictor.transformer.head.weight"
CONV = "sem_seg_head.predictor.transformer.conv1.weight"


@pytest.fixture(scope="module")
def model():
    return small_model()


@pytest.fixture(scope="module")
def published(model):
    return {name: t.clone() for name, t in to_published(model.state_dict(), model.preset).items()}


def loads(given, model) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = load_model(model.preset, given).state_dict()
    return all(torch.equal(t, loaded[name]) for name, t in model.state_dict().items())


PREFIXES = [
    *("module.", "_orig_mod.", "model.", "net.", "network.", "ema.", "ema_model.", "model_ema.", "_forward_module."),
    *("module._orig_mod.", "_orig_mod.module.", "model.module._orig_mod.", "net.model.", "module.module."),
    *("_orig_mod.model._orig_mod.", "ema_model.module.", "_forward_module._orig_mod.model.", "module.net."),
]


def test_prefixes_of_any_mix_and_depth(model, published):
    """Each prefix stands before a share of the names, as where parts were wrapped."""
    assert loads({PREFIXES[i % len(PREFIXES)] + name: t for i, (name, t) in enumerate(published.items())}, model)
    for prefix in PREFIXES[-4:]:
        assert loads({prefix + name: t for name, t in published.items()}, model)


def test_wrapped_parts_have_the_wrapper_within_the_name(model, published):
    wrappers = ("module.", "_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.module.")
    given = {}
    for i, (name, tensor) in enumerate(published.items()):
        parts = name.split(".")
        parts.insert(i % len(parts), wrappers[i % 4].removesuffix("."))
        given[".".join(parts)] = tensor
    assert loads(given, model)


@pytest.mark.parametrize("preset", [SMALL_EVA, SMALL_OPENAI], ids=lambda preset: preset.family)
def test_our_own_names_as_torch_saves_them(preset, tmp_path):
    """The state of a `PCASeg` whose parts were compiled, checkpointed and held by another module."""
    model = small_model(preset, aggregation="serial")
    wrapped = small_model(preset, aggregation="serial")
    wrapped.image_tower = torch.compile(wrapped.image_tower)
    wrapped.aggregator = checkpoint_wrapper(torch.nn.ModuleDict({"module": wrapped.aggregator}))
    torch.save({"state_dict": torch.nn.ModuleDict({"net": wrapped}).state_dict()}, tmp_path / "c.ckpt")
    opened = Checkpoint.open(tmp_path / "c.ckpt")
    assert any("_orig_mod" in name for name in opened.tensors) and opened.aggregation == "serial"
    loaded = load_model(preset, opened, aggregation="serial").state_dict()
    assert all(torch.equal(t, loaded[name]) for name, t in model.state_dict().items())


def test_clip_alone_behind_a_prefix(model, published):
    given = {f"module.{n.removeprefix(CLIP_PREFIX)}": t for n, t in published.items() if n.startswith(CLIP_PREFIX)}
    with pytest.warns(SeededWeightsWarning, match="aggregator"):
        assert load_model(model.preset, given).source.kind == "clip-only"


def test_a_seed_is_seen_behind_a_prefix(model, published):
    given = {f"module.{name}": t for name, t in published.items()} | {f"module.{SEED_ENTRY}": torch.tensor(5)}
    with pytest.warns(SeededWeightsWarning, match="seed 5"):
        load_model(model.preset, given)


CONTAINERS = [
    *(
        "state_dict",
        "model",
        "model_state_dict",
        "module",
        "net",
        "model_ema",
        "state_dict_ema",
        "ema",
        "ema_state_dict",
    ),
    "params_ema",
]


def test_containers(tmp_path):
    weights, others = {"a.b": torch.ones(2)}, {"a.b": torch.zeros(2)}
    for name in CONTAINERS:
        for content in ({name: weights}, {name: {"model": weights}, "optimizer": {"state": {}}}):
            torch.save({"epoch": 1, **content}, tmp_path / "c.pt")
            assert torch.equal(Checkpoint.open(tmp_path / "c.pt").tensors["a.b"], weights["a.b"])
    torch.save({"model_ema": others, "model": weights}, tmp_path / "c.pt")
    assert torch.equal(Checkpoint.open(tmp_path / "c.pt").tensors["a.b"], weights["a.b"])
    torch.save({"model": None, "ema": weights, "module": {}}, tmp_path / "c.pt")
    assert Checkpoint.open(tmp_path / "c.pt").tensors.keys() == {"a.b"}
    torch.save({"student": weights, "teacher": others}, tmp_path / "c.pt")
    with pytest.raises(CheckpointError, match="no tensors by name, but .*student.*teacher"):
        Checkpoint.open(tmp_path / "c.pt")


def refusal(model, given) -> str:
    with pytest.raises(CheckpointError) as caught:
        load_model(model.preset, given)
    return str(caught.value)


@pytest.mark.parametrize("prefix", ["module.", "model._orig_mod.", "_orig_mod.net."])
def test_one_entry_under_two_names_is_refused_with_both(model, published, prefix):
    message = refusal(model, published | {prefix + HEAD: published[HEAD]})
    assert f"{HEAD} and {prefix}{HEAD} are the same entry" in message


@pytest.mark.parametrize("prefix", ["", "module.", "model.module._orig_mod."])
def test_messages_name_entries_as_the_file_does(model, published, prefix):
    given = {prefix + name: t for name, t in published.items() if name != HEAD}
    given[f"{prefix}{CONV}"] = torch.ones(3)
    given[f"{prefix}{HEAD}s"] = torch.ones(3)
    message = refusal(model, given)
    assert f"1 missing: {prefix}{HEAD};" in message
    assert f"1 unexpected: {prefix}{HEAD}s (nearest: {prefix}{HEAD});" in message
    assert f"1 of another shape: {prefix}{CONV} [3] instead of {list(published[CONV].shape)}" in message


def test_a_missing_entry_is_spelt_as_its_neighbours(model, published):
    block = "sem_seg_head.predictor.clip_model.visual.blocks.0."
    given = {n.replace(block, f"{block}_orig_mod."): t for n, t in published.items()}
    gone = next(name for name in given if "_orig_mod." in name)
    del given[gone]
    assert f"1 missing: {gone}" in refusal(model, given)
    clip = {n.removeprefix(CLIP_PREFIX): t for n, t in published.items() if n.startswith(CLIP_PREFIX)}
    del clip["text.positional_embedding"]
    assert "1 missing: text.positional_embedding" in refusal(model, clip)


def test_whole_attention_of_another_shape_is_named_whole():
    model = small_model(SMALL_OPENAI)
    clip = {}
    for name, tensor in model.state_dict().items():
        if name.startswith(("image_tower", "text_tower")):
            clip[name.replace("image_tower.trunk.", "visual.").replace("text_tower.transformer.", "")] = tensor
    key = next(name for name in clip if name.endswith("in_proj_weight"))
    clip[key] = torch.ones(6, 2)
    message = refusal(model, clip)
    assert f"3 of another shape: q_proj_weight of {key} [2, 2] instead of" in message
