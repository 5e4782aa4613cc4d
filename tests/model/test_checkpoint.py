"""Checkpoints of every published kind load whole or not at all."""

from __future__ import annotations

import io
import json
import pickle
import warnings
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file
from support import GOLDENS, SMALL_EVA, SMALL_OPENAI, small_model

from pcaseg.configs import get_preset
from pcaseg.errors import CheckpointError, OutputError, PcasegError
from pcaseg.files import sha256_of
from pcaseg.model import checkpoint_file, checkpoint_fit
from pcaseg.model.checkpoint import SeededWeightsWarning, import_checkpoint, load_model, open_model, save_model
from pcaseg.model.checkpoint_file import Checkpoint
from pcaseg.model.names import CLIP_PREFIX, DERIVED, to_published
from pcaseg.model.network import PCASeg


def state(model: PCASeg) -> dict[str, torch.Tensor]:
    return {name: t.clone() for name, t in to_published(model.state_dict(), model.preset).items()}


def same(a: PCASeg, b: PCASeg, part: str = "") -> bool:
    theirs = b.state_dict()
    return all(torch.equal(t, theirs[name]) for name, t in a.state_dict().items() if name.startswith(part))


@pytest.fixture(scope="module", params=["parallel", "serial"])
def aggregation(request):
    return request.param


@pytest.fixture(scope="module", params=[SMALL_EVA, SMALL_OPENAI], ids=lambda preset: preset.family)
def model(request, aggregation):
    return small_model(request.param, aggregation=aggregation)


@pytest.mark.parametrize("preset", ["eva-b-384", "eva-l-336"])
def test_names_and_shapes_are_the_published_ones(preset):
    names = {"eva-b-384": "eva_b", "eva-l-336": "eva_l"}[preset]
    check_published_names(preset, "parallel", names)


def test_serial_names_and_shapes_are_the_published_ones():
    check_published_names("openai-b-384", "serial", "cat_b")


def check_published_names(preset: str, aggregation: str, names: str) -> None:
    shapes = json.loads((GOLDENS / f"names_{names}.json").read_text())
    published = {name: tuple(shape) for name, shape in shapes.items() if not DERIVED.search(name)}
    with torch.device("meta"):
        built = PCASeg(get_preset(preset), aggregation=aggregation, dense_mode="csa")
    assert checkpoint_fit.expected_shapes(built) == published


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".safetensors"])
def test_whole_model_round_trip(model, tmp_path, suffix):
    path = tmp_path / f"model{suffix}"
    if suffix == ".safetensors":
        save_file({name: t.contiguous() for name, t in state(model).items()}, path)
    else:
        torch.save({"model": state(model), "iteration": 79999, "optimizer": {"lr": [5e-4]}}, path)
    loaded = load_model(model.preset, path, aggregation=model.aggregation)
    assert same(model, loaded)
    assert loaded.source.kind == "checkpoint" and loaded.source.path == str(path)
    assert not loaded.training


def test_derived_entries_and_distributed_prefix_are_accepted(model):
    given = {f"module.{name}": t for name, t in state(model).items()}
    given[f"module.{CLIP_PREFIX}logit_scale"] = torch.tensor(4.6)
    given[f"module.{CLIP_PREFIX}visual.rope.freqs_cos"] = torch.zeros(4, 64)
    assert same(model, load_model(model.preset, given, aggregation=model.aggregation))


def test_half_precision_becomes_float32(model):
    given = {name: t.half() if t.is_floating_point() else t for name, t in state(model).items()}
    loaded = load_model(model.preset, given, aggregation=model.aggregation)
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}


def clip_only(model: PCASeg) -> dict[str, torch.Tensor]:
    return {n.removeprefix(CLIP_PREFIX): t for n, t in state(model).items() if n.startswith(CLIP_PREFIX)}


def test_clip_only_file_fills_the_towers_and_says_so(model):
    with pytest.warns(SeededWeightsWarning, match="aggregator"):
        loaded = load_model(model.preset, clip_only(model), aggregation=model.aggregation, seed=3)
    assert loaded.source.kind == "clip-only" and loaded.source.seed == 3
    assert same(model, loaded, "image_tower") and same(model, loaded, "text_tower")
    assert not same(model, loaded, "aggregator")


def test_older_eva_text_names_and_whole_openai_attention():
    for preset in (SMALL_EVA, SMALL_OPENAI):
        original = small_model(preset)
        given = clip_only(original)
        if preset.family == "eva":
            given = {name.removeprefix("text."): t for name, t in given.items()}
        else:
            given = {n: t for n, t in given.items() if "_proj_weight" not in n}
            for name, t in original.state_dict().items():
                if name.endswith("in_proj_weight"):
                    name = name.replace("image_tower.trunk.", "visual.").replace("text_tower.transformer.", "")
                    given[name] = t
        with pytest.warns(SeededWeightsWarning):
            loaded = load_model(preset, given)
        assert same(original, loaded, "image_tower") and same(original, loaded, "text_tower")


def test_every_mismatch_is_listed_at_once(model, tmp_path):
    given = state(model)
    renamed = "sem_seg_head.predictor.transformer.conv1.weight"
    given[renamed.replace("conv1", "conv_1")] = given.pop(renamed)
    misshaped = "upsample1.bias"
    given[misshaped] = torch.zeros(7)
    path = tmp_path / "odd.pth"
    torch.save({"model": given}, path)
    with pytest.raises(CheckpointError) as caught:
        load_model(model.preset, path, aggregation=model.aggregation)
    message = str(caught.value)
    assert str(path) in message
    assert f"1 missing: {renamed}" in message
    assert f"conv_1.weight (nearest: {renamed})" in message
    assert f"{misshaped} [7] instead of [{model.preset.tap_widths[0]}]" in message


def published_zeros(names: str) -> dict[str, torch.Tensor]:
    shapes = json.loads((GOLDENS / f"names_{names}.json").read_text())
    return {name: torch.zeros(()).expand(shape) for name, shape in shapes.items() if not DERIVED.search(name)}


def test_wrong_preset_names_the_right_one():
    with pytest.raises(CheckpointError, match="it is one of preset eva-b-384 with aggregation parallel: use that"):
        load_model("eva-l-336", published_zeros("eva_b"))


def test_wrong_aggregation_names_the_right_one():
    with pytest.raises(CheckpointError, match="it is one of preset openai-b-384 with aggregation serial: use that"):
        load_model("openai-b-384", published_zeros("cat_b"))


def test_values_that_are_not_finite_are_refused(model, tmp_path):
    given = state(model)
    given["upsample1.bias"][0] = float("nan")
    torch.save(given, tmp_path / "nan.pth")
    with pytest.raises(CheckpointError, match=r"nan\.pth: upsample1\.bias holds values that are not finite"):
        load_model(model.preset, tmp_path / "nan.pth", aggregation=model.aggregation)


class Evil:
    def __reduce__(self):
        return (open, ("/tmp/pcaseg-evil", "w"))


def test_bad_files(tmp_path):
    model = small_model()
    torch.save(state(model), tmp_path / "good.pth")
    save_model(model, tmp_path / "good.safetensors")
    bad = {
        "absent.pth": None,
        "empty.pth": b"",
        "text.pth": b"not a checkpoint",
        "half.pth": (tmp_path / "good.pth").read_bytes()[:5000],
        "half.safetensors": (tmp_path / "good.safetensors").read_bytes()[:5000],
        "empty.safetensors": b"",
        "pickle.pth": pickle.dumps({"model": Evil()}),
    }
    for name, content in bad.items():
        path = tmp_path / name
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(CheckpointError) as caught:
            load_model(SMALL_EVA, path)
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(CheckpointError, match="is a folder"):
        load_model(SMALL_EVA, tmp_path)
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(CheckpointError, match="holds no tensors by name"):
        load_model(SMALL_EVA, tmp_path / "list.pth")


def test_a_flipped_bit_is_noticed(tmp_path):
    model = small_model()
    torch.save(state(model), tmp_path / "flip.pth")
    data = bytearray((tmp_path / "flip.pth").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "flip.pth").write_bytes(data)
    with pytest.raises(CheckpointError, match=r"flip\.pth: damaged"):
        load_model(SMALL_EVA, tmp_path / "flip.pth")


def test_only_plain_floating_weights(tmp_path):
    good = state(small_model())
    name = "upsample1.bias"
    odd = {
        "whole": good[name].long(),
        "complex": good[name].to(torch.complex64),
        "sparse": good[name].to_sparse(),
        "meta": good[name].to("meta"),
        "huge": torch.full_like(good[name], 1.0, dtype=torch.float64) * 1e300,
    }
    for kind, tensor in odd.items():
        torch.save(good | {name: tensor}, tmp_path / f"{kind}.pth")
        with pytest.raises(CheckpointError, match=rf"{kind}\.pth: {name} holds"):
            load_model(SMALL_EVA, tmp_path / f"{kind}.pth")
    with pytest.raises(CheckpointError, match="pcaseg_seed is not one whole number"):
        load_model(SMALL_EVA, good | {"pcaseg_seed": torch.zeros(3)})


def test_kind_of_file_goes_by_content(tmp_path):
    model = small_model()
    save_file({name: t.contiguous() for name, t in state(model).items()}, tmp_path / "model.pth")
    assert same(model, load_model(SMALL_EVA, tmp_path / "model.pth"))


EDITS = [
    {"source": "{"},
    {"source": "[]"},
    {"source": '{"kind": "real", "seed": 1}'},
    {"preset": "nope"},
    {"dense_mode": None},
]


@pytest.mark.parametrize("change", EDITS)
def test_edited_metadata(tmp_path, small_preset, change):
    from safetensors import safe_open

    save_model(small_model(), tmp_path / "m.safetensors")
    with safe_open(tmp_path / "m.safetensors", framework="pt") as file:
        metadata = file.metadata() | change
    tensors = {name: t.contiguous() for name, t in state(small_model()).items()}
    save_file(tensors, tmp_path / "edited.safetensors", {k: v for k, v in metadata.items() if v is not None})
    with pytest.raises(CheckpointError, match=r"edited\.safetensors: its metadata"):
        load_model(SMALL_EVA, tmp_path / "edited.safetensors")


def test_saved_model_remembers_what_it_is(tmp_path, small_preset):
    path = tmp_path / "model.safetensors"
    original = small_model(SMALL_EVA, aggregation="serial", dense_mode="qq", seed=5)
    save_model(original, path)
    with pytest.warns(SeededWeightsWarning):
        loaded = open_model(path)
    assert same(original, loaded)
    assert (loaded.aggregation, loaded.dense_mode) == ("serial", "qq")
    assert (loaded.source.kind, loaded.source.seed) == ("seeded", 5)
    with pytest.raises(CheckpointError, match="dense_mode='qq'"):
        load_model(SMALL_EVA, path, aggregation="serial")


def test_unwritable_output(small, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        save_model(small, tmp_path / "file" / "model.safetensors")


def test_unknown_options():
    for options in ({"aggregation": "both"}, {"dense_mode": "kk"}):
        with pytest.raises(PcasegError, match="choose one of"):
            load_model(SMALL_EVA, **options)
    with pytest.raises(PcasegError, match="no such preset; choose one of eva-b-384"):
        load_model("eva-xl")


def test_building_a_model_draws_nothing_from_torch():
    """Weights are read, or drawn by name: what layers draw for themselves would be thrown away."""
    before = torch.get_rng_state()
    model = small_model(seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.isfinite(tensor).all() for tensor in model.state_dict().values())


def test_seeded_weights_depend_on_the_seed_alone():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(1)
        a = load_model(SMALL_EVA, seed=1)
        torch.manual_seed(2)
        b, c = load_model(SMALL_EVA, seed=1), load_model(SMALL_EVA, seed=2)
    assert same(a, b) and a.source == b.source
    assert not same(a, c, "image_tower") and a.source.sha256 != c.source.sha256
    with pytest.warns(SeededWeightsWarning, match="drawn from seed 1, not trained"):
        load_model(SMALL_EVA, seed=1)


def test_the_checkpoint_of_a_training_is_no_model(tmp_path):
    save_file(
        {"learner.x": torch.ones(1)}, tmp_path / "checkpoint.safetensors", metadata={"format": "pcaseg-training-1"}
    )
    for load in (open_model, lambda path: load_model("tiny", path)):
        with pytest.raises(CheckpointError, match=r"where a training goes on.*take the model\.safetensors beside it"):
            load(tmp_path / "checkpoint.safetensors")


def test_shipped_weights_are_those_of_the_very_preset():
    assert load_model("tiny").source.kind == "shipped"
    changed = replace(get_preset("tiny"), class_padding=256)
    for preset, aggregation in ((changed, "parallel"), ("tiny", "serial")):
        with pytest.warns(SeededWeightsWarning):
            assert load_model(preset, aggregation=aggregation).source.kind == "seeded"


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_import_reads_its_file_once(tmp_path, small_preset, monkeypatch, suffix):
    path, model = tmp_path / f"published{suffix}", small_model(SMALL_EVA, aggregation="serial")
    (save_file if suffix == ".safetensors" else torch.save)(state(model), path)
    opened = []

    def counted(name, real):
        def read(*arguments, **options):
            opened.append((name, str(arguments[0])))
            return real(*arguments, **options)

        return read

    with monkeypatch.context() as patch:
        patch.setattr(io, "open", counted("open", io.open))  # what `Path.read_bytes` calls
        patch.setattr("builtins.open", counted("open", open))
        patch.setattr(checkpoint_file, "safe_open", counted("safe_open", checkpoint_file.safe_open))
        patch.setattr(torch, "load", counted("torch.load", torch.load))
        imported = import_checkpoint(path, tmp_path / "m.safetensors", preset=SMALL_EVA.name)
    assert [name for name, source in opened if source == str(path)] == ["open"]
    assert imported.aggregation == "serial" and same(imported, model)
    assert imported.source.sha256 == sha256_of(path)
    assert same(open_model(tmp_path / "m.safetensors"), model)


def test_a_checkpoint_is_opened_once_and_passed_along(tmp_path, small_preset):
    model = small_model(SMALL_EVA)
    save_model(model, tmp_path / "m.safetensors")
    opened = Checkpoint.open(tmp_path / "m.safetensors")
    assert (opened.aggregation, opened.metadata["aggregation"]) == ("parallel", "parallel")
    (tmp_path / "m.safetensors").unlink()
    loaded = load_model(SMALL_EVA, opened)
    assert same(loaded, model) and loaded.source.sha256 == opened.sha256


def test_models_are_opened_by_name_or_by_file(tmp_path, small_preset):
    assert open_model("tiny").source.kind == "shipped"
    with pytest.warns(SeededWeightsWarning):
        assert open_model(SMALL_EVA.name).preset == SMALL_EVA
    save_file(state(small_model(SMALL_EVA)), tmp_path / "published.safetensors")
    with pytest.raises(CheckpointError, match=r"published\.safetensors: does not say its preset; import it first"):
        open_model(tmp_path / "published.safetensors")
    with pytest.raises(CheckpointError, match="missing: no such file"):
        open_model(tmp_path / "missing")
