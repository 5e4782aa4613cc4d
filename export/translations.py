"""Translations of some of PyTorch's operators to a graph: attention, norms, softmax and stable sorting.

In a float16 graph these are the float32 regions: float32 from a Cast at their input to a Cast at their output, whatever
the engine would choose. `python -m pcaseg.benchmarks.studies.mixed_precision` measures the reason of each. (Unit
norms, the cost volume and the sums of linear attention are float32 in the model itself.)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from onnxscript import opset18

from pcaseg.configs import LayerNormForm, Precision

op: Any = opset18  # what the exporter itself is written in; it converts to newer opsets
Translations = dict[Callable[..., Any], Callable[..., Any]]


def translations(precision: Precision, layer_norm: LayerNormForm) -> Translations:
    """The table for `torch.onnx.export`: operators that it would write otherwise."""
    half = precision == "float16"
    aten = torch.ops.aten
    table: Translations = {aten.scaled_dot_product_attention.default: _attention, aten.sort.stable: _stable_sort}
    if half or layer_norm == "decomposed":
        table[aten.layer_norm.default] = _layer_norm(layer_norm)
    if half:
        table |= {
            aten.softmax.int: _softmax,
            aten.group_norm.default: _group_norm,
        }
    return table


def _attention(
    query: Any,
    key: Any,
    value: Any,
    attn_mask: None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Any:
    """Two products around a softmax, which ONNX Runtime fuses with the transpose of the keys."""
    scale = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    scaled = query if scale == 1 else op.Mul(query, _narrow(op.Constant(value_float=scale), query))
    scores = op.MatMul(scaled, op.Transpose(key, perm=[0, 1, 3, 2]))
    if attn_mask is not None:
        scores = op.Add(scores, attn_mask)
    return op.MatMul(_narrow(op.Softmax(_wide(scores, query), axis=-1), query), value)


def _stable_sort(self: Any, *, stable: bool | None = None, dim: int = -1, descending: bool = False) -> Any:
    """All of an axis by TopK, which by ONNX's definition leaves equal values in order."""
    axis = dim % len(self.shape)
    return op.TopK(self, op.Shape(self, start=axis, end=axis + 1), axis=axis, largest=int(descending), sorted=1)


def _layer_norm(form: LayerNormForm) -> Callable[..., Any]:
    def layer_norm(
        input: Any,
        normalized_shape: Sequence[int],
        weight: Any = None,
        bias: Any = None,
        eps: float = 1e-5,
        cudnn_enable: bool = True,
    ) -> Any:
        x = _wide(input, input)
        weight, bias = (None if tensor is None else _wide(tensor, input) for tensor in (weight, bias))
        axes = list(range(-len(normalized_shape), 0))
        if form == "operator":
            if weight is None:
                weight = op.Constant(value=onnx.numpy_helper.from_array(np.ones(normalized_shape, np.float32)))
            normed, _, _ = op.LayerNormalization(x, weight, bias, axis=axes[0], epsilon=eps)
            return _narrow(normed, input)
        where = op.Constant(value_ints=axes)
        centred = op.Sub(x, op.ReduceMean(x, where, keepdims=1))
        variance = op.ReduceMean(op.Mul(centred, centred), where, keepdims=1)
        normed = op.Div(centred, op.Sqrt(op.Add(variance, op.Constant(value_float=eps))))
        normed = normed if weight is None else op.Mul(normed, weight)
        return _narrow(normed if bias is None else op.Add(normed, bias), input)

    return layer_norm


def _softmax(self: Any, dim: int, dtype: int | None = None) -> Any:
    return _narrow(op.Softmax(_wide(self, self), axis=dim), self)


def _group_norm(
    input: Any, num_groups: int, weight: Any, bias: Any, eps: float = 1e-5, cudnn_enabled: bool = True
) -> Any:
    x = _wide(input, input)
    ones, zeros = (op.Constant(value_floats=[value] * num_groups) for value in (1.0, 0.0))
    grouped = op.Reshape(x, op.Constant(value_ints=[0, num_groups, -1]))
    normed = op.Reshape(op.InstanceNormalization(grouped, ones, zeros, epsilon=eps), op.Shape(x))
    shape = op.Constant(value_ints=[-1, 1, 1])
    weight, bias = (op.Reshape(_wide(tensor, input), shape) for tensor in (weight, bias))
    return _narrow(op.Add(op.Mul(normed, weight), bias), input)


def _wide(tensor: Any, like: Any) -> Any:
    """To float32 where `like`, what the operator was given, is float16."""
    return op.Cast(tensor, to=onnx.TensorProto.FLOAT) if like.dtype == onnx.TensorProto.FLOAT16 else tensor


def _narrow(tensor: Any, like: Any) -> Any:
    """Back to float16 where `like` is."""
    return op.Cast(tensor, to=onnx.TensorProto.FLOAT16) if like.dtype == onnx.TensorProto.FLOAT16 else tensor
