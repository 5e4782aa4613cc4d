"""The folded semantic stream: padding as a constant, guidance once per class, no copy of the sequence to 256.

The 256 - T padding tokens of the reference are all the same token with the same guidance, and nothing reads their
outputs. In linear attention they only add (256 - T) phi(k0)^T v0 to the matrix and (256 - T) phi(k0) to the
normaliser, with k0 and v0 of the padding token: constants of the weights. Cost then follows T. A preset without
padding has none of these terms.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pcaseg.configs import MAX_CLASSES
from pcaseg.deploy.algebra import buffers, fold_layer_norm, split_guidance, weights_of
from pcaseg.kernels.class_attention import attend, class_attention, class_sums
from pcaseg.model.semantic_stream import SemanticStream


@dataclass(frozen=True)
class ClassSums:
    """Sums over all classes that attention needs: matrix (B, HW, h, d, d) and normaliser (B, HW, h, d).

    Float32 or float64, whatever the weights are: they grow with the number of classes.
    """

    matrix: Tensor
    normaliser: Tensor

    def __add__(self, other: ClassSums) -> ClassSums:
        return ClassSums(self.matrix + other.matrix, self.normaliser + other.normaliser)


class FoldedSemanticStream(nn.Module):
    """Linear attention over classes: by the operator `class_attention`, or in two passes for chunks of classes."""

    q: Tensor
    k: Tensor
    v: Tensor
    v_bias: Tensor
    guidance: Tensor
    guidance_bias: Tensor
    fc1: Tensor
    fc1_bias: Tensor
    fc2: Tensor
    fc2_bias: Tensor
    pad_matrix: Tensor
    pad_normaliser: Tensor

    def __init__(self, stream: SemanticStream, dtype: torch.dtype) -> None:
        super().__init__()
        self.heads, self.padded = stream.attention.heads, stream.padding > 0
        fc1, fc1_bias = fold_layer_norm(*weights_of(stream.mlp[0]), stream.norm2)  # type: ignore[arg-type]
        fc2, fc2_bias = weights_of(stream.mlp[2])  # type: ignore[arg-type]
        buffers(self, dtype, fc1=fc1, fc1_bias=fc1_bias, fc2=fc2, fc2_bias=fc2_bias)
        buffers(self, dtype, **fold_class_attention(stream))
        buffers(self, torch.promote_types(dtype, torch.float32), **padding_constants(stream))

    def share(self, guidance: Tensor) -> Tensor:
        """Share of a class's text in q and k, with their biases: (..., T, C) -> (..., T, 2C); once per vocabulary."""
        return F.linear(guidance, self.guidance, self.guidance_bias)

    def padding(self, T: int) -> ClassSums:
        """The sums of the 256 - T padding tokens, or zeros; they broadcast over images and positions."""
        return ClassSums((MAX_CLASSES - T) * self.pad_matrix, (MAX_CLASSES - T) * self.pad_normaliser)

    def forward(self, z: Tensor, share: Tensor) -> Tensor:
        """All classes at once: z (B, T, HW, C) after attention and MLP, share (B or 1, T, 2C)."""
        if not self.padded:
            return self.attend(z, share, self.sums(z, share))
        weights = self.q, self.k, self.v, self.v_bias, self.pad_matrix, self.pad_normaliser
        return self._mlp(class_attention(z.contiguous(), share.contiguous(), *weights))

    def sums(self, z: Tensor, share: Tensor) -> ClassSums:
        """First pass, over any chunk of classes: z (B, T, HW, C), share (B or 1, T, 2C)."""
        return ClassSums(*class_sums(z, share, self.k, self.v, self.v_bias, self.heads))

    def attend(self, z: Tensor, share: Tensor, sums: ClassSums) -> Tensor:
        """Second pass, over any chunk of classes: z after attention and MLP, (B, T, HW, C) in and out."""
        return self._mlp(attend(z, share, self.q, (sums.matrix, sums.normaliser)))

    def _mlp(self, z: Tensor) -> Tensor:
        n = F.layer_norm(z, z.shape[-1:])
        return z + F.linear(F.relu(F.linear(n, self.fc1, self.fc1_bias)), self.fc2, self.fc2_bias)


def fold_class_attention(stream: SemanticStream) -> dict[str, Tensor]:
    """The weights of the class attention: LayerNorm folded, guidance split off with the biases of q and k."""
    attention = stream.attention
    no_bias = weights_of(attention.v)[1]
    q_weight, q_bias = weights_of(attention.q)
    k_weight, k_bias = weights_of(attention.k)
    (q_x, q_g), (k_x, k_g) = split_guidance(q_weight), split_guidance(k_weight)
    q_x, q_bias = fold_layer_norm(q_x, q_bias, stream.norm1)
    k_x, k_bias = fold_layer_norm(k_x, k_bias, stream.norm1)
    v_x, v_bias = fold_layer_norm(weights_of(attention.v)[0], no_bias, stream.norm1)
    return {
        "q": q_x,
        "k": k_x,
        "v": v_x,
        "v_bias": v_bias,
        "guidance": torch.cat([q_g, k_g]),
        "guidance_bias": torch.cat([q_bias, k_bias]),
    }


def padding_constants(stream: SemanticStream) -> dict[str, Tensor]:
    """Share of one padding token in the sums: phi(k0)^T v0 (h, d, d) and phi(k0) (h, d); zeros without padding."""
    attention, C = stream.attention, stream.attention.v.in_features
    if not stream.padding:
        zeros = weights_of(attention.v)[1].unflatten(0, (attention.heads, -1)).mul(0)
        return {"pad_matrix": zeros[:, :, None] * zeros[:, None, :], "pad_normaliser": zeros}
    gain, shift = stream.norm1.weight.double(), stream.norm1.bias.double()
    token = F.layer_norm(stream.padding_tokens.detach().double()[0, 0], (C,), gain, shift, stream.norm1.eps)
    joined = torch.cat([token, stream.padding_guidance.detach().double()[0, 0]])
    k = (F.elu(F.linear(joined, *weights_of(attention.k))) + 1).unflatten(0, (attention.heads, -1))
    v = F.linear(token, *weights_of(attention.v)).unflatten(0, (attention.heads, -1))
    return {"pad_matrix": (k[:, :, None] * v[:, None, :]).detach(), "pad_normaliser": k.detach()}
