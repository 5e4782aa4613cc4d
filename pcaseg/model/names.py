"""Published checkpoint names and ours, both ways.

Ours follow the paper's terms; the published ones are those of the detectron2 files of PCA-Seg and CAT-Seg.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from pcaseg.configs import Preset

CLIP_PREFIX = "sem_seg_head.predictor.clip_model."
AGGREGATOR_PREFIX = "sem_seg_head.predictor.transformer."

_COMMON = (
    (r"^tap_upsample\.0\.", "upsample1."),
    (r"^tap_upsample\.1\.", "upsample2."),
    (r"^aggregator\.decoder\.up(\d)\.up\.", AGGREGATOR_PREFIX + r"decoder\1.up."),
    (r"^aggregator\.decoder\.up(\d)\.conv\.", AGGREGATOR_PREFIX + r"decoder\1.conv.double_conv."),
    (r"^aggregator\.decoder\.head\.", AGGREGATOR_PREFIX + "head."),
    (r"^aggregator\.cost_embedding\.", AGGREGATOR_PREFIX + "conv1."),
    (r"^aggregator\.image_guidance\.", AGGREGATOR_PREFIX + "guidance_projection.0."),
    (r"^aggregator\.text_guidance\.", AGGREGATOR_PREFIX + "text_guidance_projection.0."),
    (r"^aggregator\.decoder_guidance\.(\d)\.", AGGREGATOR_PREFIX + r"decoder_guidance_projection.\1.0."),
    (r"^aggregator\.layers\.", AGGREGATOR_PREFIX + "layers."),
    (r"(?<=\.)semantic_proj\.", "class_proj."),
    (r"(?<=\.)spatial(?=(_first|_second)?\.)", "swin_block"),
    (r"(?<=\.)(semantic(?:_first|_second)?)\.mlp\.", r"\1.MLP."),
    (r"(?<=\.)semantic(?=(_first|_second)?\.)", "attention"),
    (r"(?<=\.)epl_", "fusion_by_channel_"),
    (r"(?<=\.)experts\.", "expert_layers."),
    (r"(?<=\.)coefficient_mapper\.", "gate_net."),
)
_EVA = (
    (r"^(image_tower\..*)\.attn\.([qv])_proj\.bias$", r"\1.attn.\2_bias"),
    (r"^(image_tower\..*)\.attn\.norm\.", r"\1.attn.inner_attn_ln."),
    (r"^(image_tower\..*)\.mlp\.norm\.", r"\1.mlp.ffn_ln."),
    (r"^(image_tower\..*)\.mlp\.fc1_g\.", r"\1.mlp.w1."),
    (r"^(image_tower\..*)\.mlp\.fc1_x\.", r"\1.mlp.w2."),
    (r"^(image_tower\..*)\.mlp\.fc2\.", r"\1.mlp.w3."),
    (r"^image_tower\.trunk\.", CLIP_PREFIX + "visual."),
    (r"^text_tower\.transformer\.", CLIP_PREFIX + "text."),
)
_OPENAI = (
    (r"^image_tower\.trunk\.", CLIP_PREFIX + "visual."),
    (r"^text_tower\.transformer\.", CLIP_PREFIX),
)
_SPLIT = ("q_proj_weight", "k_proj_weight", "v_proj_weight")

SEED_ENTRY = "pcaseg_seed"
"""An entry of ours: the seed that a checkpoint's weights were drawn from, so that no one takes them for trained."""

DERIVED = re.compile(
    r"(rope\.freqs_(cos|sin)|attn_mask|logit_scale|num_batches_tracked|pixel_(mean|std)"
    r"|input_resolution|context_length|vocab_size|pcaseg_seed)$"
)
"""Published entries that are recomputed, counted anew or unused: never required, never loaded."""


_WRAPPERS = re.compile(
    r"(?:^|(?<=\.))(?:module|_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module|_forward_module)\."
)
"""Segments that DistributedDataParallel, `torch.compile`, FSDP, activation checkpointing and Lightning's Fabric write
before the name of what they wrap, at any depth."""

_HOLDERS = re.compile(r"^(?:(?:model|net|network|ema|ema_model|model_ema)\.)+")
"""Fields of Lightning modules and of holders of averages, in front of a whole model."""

_OURS = re.compile(r"(image_tower|text_tower|tap_upsample|aggregator)\.")
"""Beginnings of our own names, as of a `PCASeg`'s state dict."""


def unwrapped(name: str) -> str:
    """A checkpoint's name without what wrapped the model or a part of it.

    >>> unwrapped("model.module._orig_mod.sem_seg_head.predictor.transformer._orig_mod.head.bias")
    'sem_seg_head.predictor.transformer.head.bias'
    """
    return _HOLDERS.sub("", _WRAPPERS.sub("", name))


def published_name(name: str, preset: Preset) -> str:
    """The published name of one of our parameters (for OpenAI attention, with `in_proj_weight` still whole)."""
    for pattern, replacement in (_EVA if preset.family == "eva" else _OPENAI) + _COMMON:
        name = re.sub(pattern, replacement, name)
    return name


def to_published(state: Mapping[str, Tensor], preset: Preset) -> dict[str, Tensor]:
    """Renames a model's state to the published names and splits OpenAI attention as CAT-Seg stores it."""
    published = {}
    for name, tensor in state.items():
        name = published_name(name, preset)
        if preset.family == "openai" and name.endswith("attn.in_proj_weight"):
            for part, piece in zip(_SPLIT, tensor.chunk(3), strict=True):
                published[name.replace("in_proj_weight", part)] = piece
        else:
            published[name] = tensor
    return published


def canonical_name(name: str, preset: Preset) -> str:
    """The published name of a checkpoint's entry, as `to_published` writes it (but `in_proj_weight` still whole).

    Leaves out what wrapped the model; adds the CLIP prefix to CLIP-only files and `text.` to older EVA files; turns
    our own names into the published ones.
    """
    name = unwrapped(name)
    if _OURS.match(name):
        return published_name(name, preset)
    if not name.startswith(("sem_seg_head.", "upsample1.", "upsample2.")):
        name = CLIP_PREFIX + name
    tail = name.removeprefix(CLIP_PREFIX)
    if preset.family == "eva" and name != tail and not tail.startswith(("visual.", "text.")):
        name = f"{CLIP_PREFIX}text.{tail}"
    return name


def canonical(state: Mapping[str, Tensor], preset: Preset) -> tuple[dict[str, Tensor], dict[str, list[str]]]:
    """Brings a checkpoint's entries to the one spelling that `to_published` writes, derived ones left out.

    Returns:
        The tensors by canonical name, whole `in_proj_weight`s of OpenAI files split; and of each its names in `state`,
        more than one where a wrapper's prefix hides that they are the same.
    """
    tensors: dict[str, Tensor] = {}
    keys: dict[str, list[str]] = {}
    for key, tensor in state.items():
        if DERIVED.search(key):
            continue
        name = canonical_name(key, preset)
        pieces = {name: tensor}
        if preset.family == "openai" and name.endswith("attn.in_proj_weight") and tensor.ndim and len(tensor) % 3 == 0:
            parts = zip(_SPLIT, tensor.chunk(3), strict=True)
            pieces = {name.replace("in_proj_weight", part): piece for part, piece in parts}
        for name, piece in pieces.items():
            tensors[name] = piece
            keys.setdefault(name, []).append(key)
    return tensors, keys


def from_published(published: Mapping[str, Tensor], names: list[str], preset: Preset) -> dict[str, Tensor]:
    """The inverse of `to_published` for the given names of ours; raises KeyError where one is missing."""
    state = {}
    for name in names:
        theirs = published_name(name, preset)
        if preset.family == "openai" and theirs.endswith("attn.in_proj_weight"):
            state[name] = torch.cat([published[theirs.replace("in_proj_weight", part)] for part in _SPLIT])
        else:
            state[name] = published[theirs]
    return state
