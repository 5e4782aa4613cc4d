"""The segmenter graph with plugin nodes: kernels where the plain graph has their references, for up to 256 classes, or
with a shortlist for any number. With one, maps are embedded after the choice, by plain operators."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx
import torch
from onnx import NodeProto, numpy_helper
from onnxscript import values
from torch import Tensor, nn

from pcaseg.deploy.folded import FoldedPCASeg, fold
from pcaseg.errors import PcasegError
from pcaseg.export.graphs import ShortlistGraph, export_graph, segmenter_signature
from pcaseg.export.options import DEFAULTS, ExportOptions
from pcaseg.export.plugins.table import NAMESPACE, PLUGINS, VERSION
from pcaseg.kernels.cost_volume import cost_volume
from pcaseg.kernels.expert_mix import ExpertWeights, pack_vectors
from pcaseg.kernels.tuning import tuning_points

if TYPE_CHECKING:
    from pcaseg.model.network import PCASeg


class PluginSegmenterGraph(nn.Module):
    """As `SegmenterGraph`, for at most 256 classes, through the kernels' operators."""

    def __init__(self, model: FoldedPCASeg) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor, text: Tensor) -> Tensor:
        """image (N, 3, R, R) float 0..255, text (T, D) or (T, P, D) -> (N, T, 4H, 4W)."""
        features, guidance = self.model.encode_image(image)
        aggregator = self.model.aggregator
        vocabulary = aggregator.prepare_vocabulary(text[:, None] if text.dim() == 2 else text)
        weight, bias = aggregator.cost_embedding.weight, aggregator.cost_embedding.bias
        assert bias is not None  # the cost embedding has one
        x = cost_volume(features.permute(0, 2, 3, 1).contiguous(), vocabulary.text.contiguous(), weight, bias)
        shares = [share[None] for share in vocabulary.shares]
        return aggregator.aggregate(x.flatten(2, 3), shares, guidance).float()


def export_plugin_segmenter(model: PCASeg, path: Path, *, options: ExportOptions = DEFAULTS) -> onnx.ModelProto:
    """Writes the segmenter graph with plugin nodes: the same inputs and outputs as `export_segmenter`'s.

    With a shortlist the cost volume is plain operators, since only the maps of kept classes are embedded.

    Returns:
        The graph as written; nodes of the plugins have their kernels' widths as attributes and packed weights.

    Raises:
        PcasegError: of `export_graph`, or a class attention's or expert mixing's operator is not in the graph.
    """
    folded = fold(model, dtype=options.dtype, shortlist=options.shortlist)
    module = PluginSegmenterGraph(folded) if options.shortlist is None else ShortlistGraph(folded)
    signature = segmenter_signature(model.preset, options.shortlist)
    operators = _translations(folded, model.preset.grid)
    proto = export_graph(module, path, signature, options=options, operators=operators)
    for node in [node for node in proto.graph.node if node.domain == NAMESPACE]:
        if node.op_type == "PcasegExpertMix":
            _pack(proto.graph, node)
    found = {node.op_type for node in proto.graph.node if node.domain == NAMESPACE}
    wanted = set(PLUGINS)
    if options.shortlist is not None:
        wanted.remove("PcasegCostVolume")
    if model.aggregation != "parallel":
        wanted.remove("PcasegExpertMix")
    if not model.preset.class_padding:  # the kernel's operator is for models with padding
        wanted.remove("PcasegClassAttention")
    if found != wanted:
        raise PcasegError(f"the exported graph holds the plugins {sorted(found)}, not {sorted(wanted)}; report this")
    onnx.checker.check_model(proto)
    onnx.save(proto, path)
    return proto


def _translations(folded: FoldedPCASeg, grid: int) -> dict[Callable[..., Any], Callable[..., Any]]:
    """Translations of the kernels' operators: plugin nodes with the model's widths."""
    aggregator = folded.aggregator
    channels, prompts = aggregator.cost_embedding.weight.shape[:2]
    heads = aggregator.steps[0].semantic.heads

    def volume(features: Any, text: Any, weight: Any, bias: Any) -> Any:
        sizes = {"width": grid, "dim": features.shape[-1], "channels": channels, "prompts": prompts}
        return _node("PcasegCostVolume", features, text, weight, bias, **sizes)

    def attention(*tensors: Any) -> Any:
        return _node("PcasegClassAttention", *tensors, channels=channels, heads=heads)

    def mix(spatial: Any, semantic: Any, weights: Any) -> Any:
        sizes = {"width": grid, "channels": channels, "experts": 0, "mapper_width": 0}  # known when weights are packed
        return _node("PcasegExpertMix", spatial, semantic, *weights, **sizes)

    own = torch.ops.pcaseg
    return {own.cost_volume.default: volume, own.class_attention.default: attention, own.expert_mix.default: mix}


def _node(name: str, *tensors: Any, **sizes: int) -> Any:
    """A plugin's node, as the exporter's translations make them."""
    defs, attribute = onnx.defs, onnx.defs.OpSchema.Attribute
    kinds = {key: defs.OpSchema.AttrType.INT for key in (*sizes, "aot")}
    kinds |= {key: defs.OpSchema.AttrType.STRING for key in ("plugin_namespace", "plugin_version")}
    schema = defs.OpSchema(
        name,
        NAMESPACE,
        1,
        inputs=[defs.OpSchema.FormalParameter(f"input_{i}", f"T{i}") for i in range(len(tensors))],
        outputs=[defs.OpSchema.FormalParameter("output", "T0")],
        type_constraints=[(f"T{i}", ["tensor(float)", "tensor(float16)"], "") for i in range(len(tensors))],
        attributes=[attribute(key, kind, "") for key, kind in kinds.items()],
    )
    common = {"plugin_namespace": NAMESPACE, "plugin_version": VERSION, "aot": 1}
    return values.Op(values.Opset(NAMESPACE, 1), name, schema)(*tensors, **sizes, **common)


def _pack(graph: onnx.GraphProto, node: NodeProto) -> None:
    """Replaces the thirteen weights of an expert mixing by the kernel's nine: per-column vectors are one tensor."""
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    names = node.input[2:]
    missing = [name for name in names if name not in tensors]
    if missing:
        raise PcasegError(f"the weights {', '.join(missing)} of an expert mixing are no constants; report this")
    weights = ExpertWeights(*(torch.from_numpy(numpy_helper.to_array(tensors[name]).copy()) for name in names))
    experts, mapper = weights.coefficients.shape
    dtype = "fp16" if weights.mapper.dtype == torch.float16 else "fp32"
    point = tuning_points("expert_mix")[PLUGINS[node.op_type].points[dtype]]
    columns = min(point.constexprs["COLUMNS"], weights.parse_even.shape[0])
    packed = f"{names[4]}_vectors"
    graph.initializer.append(numpy_helper.from_array(pack_vectors(weights, columns).numpy(), packed))
    by_name = dict(zip(ExpertWeights._fields, names, strict=True)) | {"vectors": packed}
    inputs = [*node.input[:2], *(by_name[name] for name in PLUGINS[node.op_type].inputs[2:])]
    del node.input[:]
    node.input.extend(inputs)
    for attribute in node.attribute:
        if attribute.name in ("experts", "mapper_width"):
            attribute.i = experts if attribute.name == "experts" else mapper
    used = {name for other in graph.node for name in other.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
