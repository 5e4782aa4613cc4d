"""The two image towers: dense features joined to the text space, and two taps for the decoder.

The patch embedding and all blocks but the last are open_clip's (EVA02 through timm, OpenAI's own).
What differs from classification stands here: the position embedding's resize, the taps, and the last
block's dense path. Facts: PCA-Seg and CAT-Seg, published code and configurations.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from open_clip.transformer import QuickGELU, VisionTransformer
from timm.models.eva import Eva
from torch import Tensor, nn

from pcaseg.configs import DenseMode, Preset
from pcaseg.model.positions import ROTARY_REFERENCE_GRID, resize_position_embedding, rotary_table
from pcaseg.model.precision import unit_norm


class ImageTower(nn.Module):
    """Base of both towers; `forward` is the public call.

    Subclasses give `forward_tokens` and say through `normalised_features` whether features have unit norm.
    """

    normalised_features: bool
    trunk: Any
    """open_clip's or timm's module, whose attributes have no types."""

    def __init__(self, preset: Preset) -> None:
        super().__init__()
        self.patch_px = preset.patch_px
        self.tap_blocks = preset.taps

    def forward(self, images: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Dense features and taps, class token dropped.

        Args:
            images: (B, 3, R, R') float, normalised; both sides multiples of the patch.

        Returns:
            features (B, H * W, D), of unit norm for EVA02 and not normalised for OpenAI; two taps (B, H * W, width).
        """
        dense, taps = self.forward_tokens(images)
        features = dense[:, 1:]
        if self.normalised_features:
            features = unit_norm(features, dim=-1)
        return features, (taps[0][:, 1:], taps[1][:, 1:])

    def forward_tokens(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """As `forward`, with the class token first and features not normalised."""
        raise NotImplementedError

    @property
    def position_table(self) -> nn.Parameter:
        """The learned position embedding, (..., 1 + N, width)."""
        raise NotImplementedError

    def grid_of(self, images: Tensor) -> tuple[int, int]:
        """(H, W) of the feature grid for these images.

        Raises:
            ValueError: a side is not a multiple of the patch.
        """
        height, width = images.shape[-2:]
        if height % self.patch_px or width % self.patch_px:
            raise ValueError(f"image of {height} x {width}: both sides must be multiples of {self.patch_px}")
        return height // self.patch_px, width // self.patch_px


class EvaTower(ImageTower):
    """EVA02-CLIP's image tower with the dense last block of `csa` or `qq` attention."""

    normalised_features = True
    rotary: Tensor

    def __init__(self, preset: Preset, dense_mode: DenseMode) -> None:
        super().__init__(preset)
        self.dense_mode = dense_mode
        self.trunk = Eva(
            img_size=preset.pretrain_grid * preset.patch_px,
            patch_size=preset.patch_px,
            embed_dim=preset.vision_width,
            depth=preset.vision_blocks,
            num_heads=preset.vision_heads,
            num_classes=preset.embed_dim,
            global_pool="token",
            qkv_fused=False,
            mlp_ratio=4 * 2 / 3,
            swiglu_mlp=True,
            scale_mlp=True,
            scale_attn_inner=True,
            use_rot_pos_emb=True,
            ref_feat_shape=(ROTARY_REFERENCE_GRID, ROTARY_REFERENCE_GRID),
        )
        self.head_dim = preset.vision_width // preset.vision_heads
        self.grid = (preset.grid, preset.grid)
        self.register_buffer("rotary", rotary_table(self.grid, self.head_dim), persistent=False)

    @property
    def position_table(self) -> nn.Parameter:
        result: nn.Parameter = self.trunk.pos_embed
        return result

    def forward_tokens(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        trunk, grid = self.trunk, self.grid_of(images)
        x = trunk.patch_embed.proj(images).flatten(2).transpose(1, 2)
        x = torch.cat([trunk.cls_token.expand(x.shape[0], -1, -1), x], dim=1)
        x = x + resize_position_embedding(trunk.pos_embed[0], grid)
        rotary = self.rotary if grid == self.grid else rotary_table(grid, self.head_dim).to(x)
        taps = []
        for index, block in enumerate(trunk.blocks[:-1]):
            x = block(x, rope=rotary)
            if index in self.tap_blocks:
                taps.append(x)
        x = self._dense_last_block(x)
        return trunk.head(trunk.norm(x)), taps

    def _dense_last_block(self, x: Tensor) -> Tensor:
        """The last block's attention alone: (B, 1 + H * W, width) in and out, no residual, no MLP.

        Tokens attend by self-similarity: softmax(q q^T) + softmax(k k^T) (`csa`) or softmax(q q^T) (`qq`),
        per head, without scale and without rotary embedding.
        """
        block = self.trunk.blocks[-1]
        attention, x = block.attn, block.norm1(x)
        q, k, v = (
            project(x).unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)
            for project in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        weights = (q @ q.transpose(-1, -2)).softmax(dim=-1)
        if self.dense_mode == "csa":
            weights = weights + (k @ k.transpose(-1, -2)).softmax(dim=-1)
        result: Tensor = attention.proj(attention.norm((weights @ v).transpose(1, 2).flatten(2)))
        return result


class OpenAITower(ImageTower):
    """OpenAI CLIP's image tower with MaskCLIP's attention-free last block, as CAT-Seg has it."""

    normalised_features = False

    def __init__(self, preset: Preset) -> None:
        super().__init__(preset)
        self.trunk = VisionTransformer(
            image_size=preset.pretrain_grid * preset.patch_px,
            patch_size=preset.patch_px,
            width=preset.vision_width,
            layers=preset.vision_blocks,
            heads=preset.vision_heads,
            mlp_ratio=4.0,
            output_dim=preset.embed_dim,
            act_layer=QuickGELU,
        )

    @property
    def position_table(self) -> nn.Parameter:
        result: nn.Parameter = self.trunk.positional_embedding
        return result

    def forward_tokens(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        trunk, grid = self.trunk, self.grid_of(images)
        x = trunk.conv1(images).flatten(2).transpose(1, 2)
        x = torch.cat([trunk.class_embedding.expand(x.shape[0], 1, -1), x], dim=1)
        x = trunk.ln_pre(x + resize_position_embedding(trunk.positional_embedding, grid))
        taps = []
        for index, block in enumerate(trunk.transformer.resblocks[:-1]):
            x = block(x)
            if index in self.tap_blocks:
                taps.append(x)
        x = self._dense_last_block(x)
        return trunk.ln_post(x) @ trunk.proj, taps

    def _dense_last_block(self, x: Tensor) -> Tensor:
        """Every token's own value, (B, 1 + H * W, width) in and out.

        As published, the residual of every token is the class token's input to the block, not its own.
        """
        block = self.trunk.transformer.resblocks[-1]
        weight, bias = block.attn.in_proj_weight, block.attn.in_proj_bias
        width = x.shape[-1]
        value = F.linear(block.ln_1(x), weight[2 * width :], bias[2 * width :])
        x = x[:, :1] + block.attn.out_proj(value)
        result: Tensor = x + block.mlp(block.ln_2(x))
        return result


def build_image_tower(preset: Preset, dense_mode: DenseMode) -> ImageTower:
    """The tower of the preset's family."""
    return EvaTower(preset, dense_mode) if preset.family == "eva" else OpenAITower(preset)
