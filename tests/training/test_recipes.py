"""Recipes: rates, stages, and which weights learn."""

from __future__ import annotations

import json
import re

import pytest
import torch
from support import GOLDENS

from pcaseg.configs import get_preset
from pcaseg.errors import PcasegError
from pcaseg.model.names import CLIP_PREFIX, DERIVED, to_published
from pcaseg.model.network import PCASeg
from pcaseg.training.learner import Learner
from pcaseg.training.parameters import build_optimizer, held_rows, learning_names, set_learning, set_rate
from pcaseg.training.recipes import TINY, recipe_of

LEARNS = {
    "eva": r"visual\.blocks\.\d+\.attn\.[qv]_proj\.weight|text\.transformer\.resblocks\.\d+\.attn\.in_proj_weight",
    "openai": r"(visual\.)?transformer\.resblocks\.\d+\.attn\.[qv]_proj_weight|(visual\.)?positional_embedding",
}


@pytest.mark.parametrize(
    ("preset", "aggregation", "golden"),
    [("eva-b-384", "parallel", "eva_b"), ("eva-l-336", "parallel", "eva_l"), ("openai-b-384", "serial", "cat_b")],
)
def test_published_names_that_learn(preset, aggregation, golden):
    """Against the list of names of the published checkpoints; OpenAI's q, k and v are one weight here."""
    preset = get_preset(preset)
    with torch.device("meta"):
        learner = Learner(PCASeg(preset, aggregation=aggregation, dense_mode="csa"), recipe_of(preset))
    (stage,) = learner.recipe.stages
    names = {name.removeprefix("model.") for name in learning_names(learner, learner.recipe, stage)}
    state = {name: tensor for name, tensor in learner.model.state_dict().items() if name in names}
    found = {name for name in to_published(state, preset) if not name.endswith("k_proj_weight")}
    published = [
        name for name in json.loads((GOLDENS / f"names_{golden}.json").read_text()) if not DERIVED.search(name)
    ]
    clip = re.compile(re.escape(CLIP_PREFIX) + f"({LEARNS[preset.family]})")
    expected = {
        name for name in published if (clip.fullmatch(name) if name.startswith(CLIP_PREFIX) else "running_" not in name)
    }
    assert found == expected


def test_k_of_openai_is_held(small):
    """One step with decay and gradients everywhere: q and v move, k does not, nor q where it has no use."""
    from support import SMALL_OPENAI, small_model

    model = small_model(SMALL_OPENAI)
    recipe = recipe_of("openai-b-384")
    learner = Learner(model, recipe)
    set_learning(learner, recipe, recipe.stages[0])
    optimizer = build_optimizer(learner, recipe)
    held = held_rows(model, recipe)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.ones_like(parameter)
    for one in held:
        one.drop_gradient()
    set_rate(optimizer, recipe.stages[0], 0)
    optimizer.step()
    for one in held:
        one.restore()
    for name, after in model.named_parameters():
        if not name.endswith("attn.in_proj_weight"):
            continue
        moved = [not torch.equal(a, b) for a, b in zip(after.chunk(3), before[name].chunk(3), strict=True)]
        last = name.startswith("image_tower.trunk.transformer.resblocks.3.")
        assert moved == [not last, False, True], name


def test_published_rates():
    for preset, rate in (("eva-b-384", 5e-4), ("openai-b-384", 5e-4), ("eva-l-336", 3e-4), ("openai-l-336", 3e-4)):
        (stage,) = recipe_of(preset).stages
        assert (stage.steps, stage.batch, stage.tower_rate, stage.warm_up) == (80_000, 8, 0.01, 0)
        assert stage.rate_at(0) == rate
        assert stage.rate_at(40_000) == pytest.approx(rate / 2)
        assert 0 < stage.rate_at(79_999) < rate * 1e-8


def test_rates_by_group(small):
    recipe = recipe_of("eva-b-384")
    optimizer = build_optimizer(Learner(small, recipe), recipe)
    set_rate(optimizer, recipe.stages[0], 0)
    assert {group["kind"]: group["lr"] for group in optimizer.param_groups} == {
        "towers": pytest.approx(5e-6),
        "rest": pytest.approx(5e-4),
    }
    assert all(group["weight_decay"] == 1e-4 for group in optimizer.param_groups)


def test_stages_and_scaling():
    assert TINY.at(0)[0].name == "towers"
    assert TINY.at(TINY.stages[0].steps) == (TINY.stages[1], 0)
    with pytest.raises(IndexError):
        TINY.at(TINY.steps)
    for steps in (2, 3, 200, 100_000):
        assert TINY.scaled(steps).steps == steps
        assert all(stage.steps > 0 and stage.warm_up <= stage.steps for stage in TINY.scaled(steps).stages)
    with pytest.raises(PcasegError, match="give 2 or more"):
        TINY.scaled(1)


def test_what_learns_gets_a_gradient():
    """In every stage of tiny each weight that learns has a gradient, as several processes require."""
    from support_training import short_recipe

    from pcaseg.data.scene_stream import TinyStream
    from pcaseg.model.checkpoint import load_model
    from pcaseg.training.learner import learner_inputs

    recipe = short_recipe()
    learner = Learner(load_model("tiny", {}).train(), recipe)
    batch = TinyStream(0, usual=(3, 3), long_share=0.0).batch(0, size=1)
    for stage in recipe.stages:
        set_learning(learner, recipe, stage)
        learner.zero_grad()
        learner(*learner_inputs(batch, torch.device("cpu")), stage)["loss"].backward()
        without = [name for name, p in learner.named_parameters() if p.requires_grad and p.grad is None]
        assert not without, stage.name
