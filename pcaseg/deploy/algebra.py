"""The rewrites that several parts share, each exact up to rounding. Weights are taken and given in float64."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def weights_of(layer: nn.Linear | nn.Conv2d | nn.ConvTranspose2d) -> tuple[Tensor, Tensor]:
    """A layer's weight and bias (zeros where it has none), float64."""
    weight = layer.weight.detach().double()
    outputs = weight.shape[1] if isinstance(layer, nn.ConvTranspose2d) else weight.shape[0]
    bias = weight.new_zeros(outputs) if layer.bias is None else layer.bias.detach().double()
    return weight, bias


def fold_statistics(weight: Tensor, bias: Tensor, mean: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
    """Normalisation into a convolution without padding behind it.

    W ((x - m) / s) + b = (W / s) x + (b - sum over the kernel of W m / s).

    Args:
        weight: (O, I, k, k); bias: (O).
        mean, std: (I).
    """
    scaled = weight / std[:, None, None]
    return scaled, bias - (scaled * mean[:, None, None]).sum(dim=(1, 2, 3))


def fold_layer_norm(weight: Tensor, bias: Tensor, norm: nn.LayerNorm) -> tuple[Tensor, Tensor]:
    """The affine part of a LayerNorm into the linear layer behind it.

    W (g * n + h) + b = (W g) n + (W h + b), n the normalised input.
    """
    gain, shift = norm.weight.detach().double(), norm.bias.detach().double()
    return weight * gain, bias + weight @ shift


def fold_batch_norm(weight: Tensor, bias: Tensor, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """A BatchNorm in evaluation mode into the linear map before it.

    g (W x + b - mu) / sqrt(v + eps) + h = (a W) x + a (b - mu) + h, a = g / sqrt(v + eps).
    """
    running_mean, running_var = norm.running_mean, norm.running_var
    assert running_mean is not None and running_var is not None  # the reference's BatchNorms track them
    scale = norm.weight.detach().double() / (running_var.double() + norm.eps).sqrt()
    return scale[:, None] * weight, scale * (bias - running_mean.double()) + norm.bias.detach().double()


def compose(outer: tuple[Tensor, Tensor], inner: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Two linear maps as one: W2 (W1 x + b1) + b2 = (W2 W1) x + (W2 b1 + b2)."""
    return outer[0] @ inner[0], outer[0] @ inner[1] + outer[1]


def split_guidance(weight: Tensor) -> tuple[Tensor, Tensor]:
    """A linear map of cat(x, g), x and g of equal width, as two: W cat(x, g) = Wx x + Wg g.

    Wg g is computed once per position (spatial) or per class (semantic), never once per pair of them.
    """
    return tuple(weight.chunk(2, dim=1))  # type: ignore[return-value]


def buffers(module: nn.Module, dtype: torch.dtype, **tensors: Tensor) -> None:
    """Registers tensors as buffers of `module` in `dtype`."""
    for name, tensor in tensors.items():
        module.register_buffer(name, tensor.to(dtype).contiguous())
