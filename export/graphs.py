"""ONNX graphs of a model: image windows and text to logits, and tokens to text embeddings."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx
import onnx.version_converter
import onnxslim
import torch
from torch import Tensor, nn

from pcaseg.configs import CONTEXT_LENGTH, OPSET, Preset
from pcaseg.deploy.folded import FoldedPCASeg, fold
from pcaseg.errors import PcasegError
from pcaseg.export.options import DEFAULTS, ExportOptions
from pcaseg.export.translations import translations
from pcaseg.kernels.registry import plain_operators
from pcaseg.runtime.manifest import TensorSpec

if TYPE_CHECKING:
    from pcaseg.model.network import PCASeg

FORBIDDEN_OPS = frozenset(
    {"If", "Loop", "Scan", "Range", "ScatterND", "ScatterElements", "Einsum", "NonZero", "Resize"}
)
"""Operators that edge parsers lack or that show a shape frozen or computed on the way: none may be in a graph that does
not expressly permit it."""

RESIZE_ATTRIBUTES: dict[str, object] = {
    "mode": b"linear",
    "coordinate_transformation_mode": b"half_pixel",
    "antialias": 0,
}
"""What every `Resize` must say: bilinear, align_corners=False, without antialiasing."""

OLDEST_TRACED = 18
"""The first opset that the exporter writes; older ones are converted."""

EXAMPLE_LENGTHS = {"N": 3, "T": 7, "H": 50, "W": 70}
"""Of the dynamic axes while tracing."""

_RESIZE_DEFAULTS = {"mode": b"nearest", "coordinate_transformation_mode": b"half_pixel", "antialias": 0}
_REPORT = "report this with your torch version"


@dataclass(frozen=True)
class Signature:
    """Inputs and outputs of a graph, in the manifest's words: an axis is a length or the name of a dynamic one."""

    inputs: dict[str, TensorSpec]
    outputs: dict[str, TensorSpec]


class SegmenterGraph(nn.Module):
    """Windows and class embeddings in, logits out, for any number of either."""

    def __init__(self, model: FoldedPCASeg) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor, text: Tensor) -> Tensor:
        """image (N, 3, R, R) float 0..255, text (T, D) or, with several prompts, (T, P, D) -> (N, T, 4H, 4W)."""
        features, guidance = self.model.encode_image(image)
        vocabulary = self.model.prepare_vocabulary(text[:, None] if text.dim() == 2 else text)
        return self.model.aggregator.aggregate_best(features, vocabulary, guidance).float()


class ShortlistGraph(nn.Module):
    """Windows and class embeddings in, logits of the kept classes out: no map of any other is ever made."""

    def __init__(self, model: FoldedPCASeg) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        """As `SegmenterGraph` -> logits (N, min(T, K), 4H, 4W) and their classes (N, min(T, K)) int64, ascending."""
        vocabulary = self.model.prepare_vocabulary(text[:, None] if text.dim() == 2 else text)
        features, guidance = self.model.encode_image(image)
        logits, classes = self.model.aggregator.aggregate_kept(
            features, vocabulary, guidance, shortlist=self.model.shortlist
        )
        return logits.float(), classes


def segmenter_signature(preset: Preset, shortlist: int | None = None) -> Signature:
    """Signature of the segmenter graph that ends in logits: of all classes, or of those on a shortlist."""
    R, side = preset.image_px, 4 * preset.grid
    image = TensorSpec(("N", 3, R, R), "float32", "RGB windows in 0..255")
    inputs, meaning = {"image": image, "text": text_spec(preset)}, "score of each class before the sigmoid"
    if shortlist is None:
        return Signature(inputs, {"logits": TensorSpec(("N", "T", side, side), "float32", meaning)})
    logits = TensorSpec(("N", "K", side, side), "float32", "score of each kept class before the sigmoid")
    return Signature(inputs, {"logits": logits, "classes": TensorSpec(("N", "K"), "int64", "their indices, ascending")})


def text_spec(preset: Preset) -> TensorSpec:
    """Specification of the vocabulary, as every segmenter graph takes it."""
    prompts = () if preset.prompts == 1 else (preset.prompts,)
    return TensorSpec(("T", *prompts, preset.embed_dim), "float32", "class embeddings of unit norm")


def export_segmenter(model: PCASeg, path: Path, *, options: ExportOptions = DEFAULTS) -> onnx.ModelProto:
    """Writes the segmenter graph of the folded model: `image` (N, 3, R, R) and `text` (T, D) to `logits`.

    Returns:
        The graph as written; N and T are dynamic.

    Raises:
        PcasegError: a forbidden operator or a frozen axis is in the graph.
    """
    signature = segmenter_signature(model.preset, options.shortlist)
    return export_graph(logit_module(model, options), path, signature, options=options)


def logit_module(model: PCASeg, options: ExportOptions) -> SegmenterGraph | ShortlistGraph:
    """The folded model as a graph that ends in logits takes it."""
    if options.shortlist is None:
        return SegmenterGraph(fold(model, dtype=options.dtype))
    return ShortlistGraph(fold(model, dtype=options.dtype, shortlist=options.shortlist))


def export_text_encoder(model: PCASeg, path: Path, *, options: ExportOptions = DEFAULTS) -> onnx.ModelProto:
    """Writes the text encoder: input `tokens` (T, 77) int64, output `text` (T, D) of unit norm; T dynamic.

    Always in float32, so that vocabulary files fit every bundle of a model, and in any of `OPSETS`.
    """
    tokens = TensorSpec(("T", CONTEXT_LENGTH), "int64", "token ids of prompts")
    signature = Signature({"tokens": tokens}, {"text": text_spec(model.preset)})
    return export_graph(model.text_tower, path, signature, options=replace(options, precision="float32"))


def export_graph(
    module: nn.Module,
    path: Path,
    signature: Signature,
    *,
    options: ExportOptions = DEFAULTS,
    permitted: Set[str] = frozenset(),
    operators: Mapping[Callable[..., Any], Callable[..., Any]] | None = None,
) -> onnx.ModelProto:
    """Traces a module and writes its graph, cleaned and audited.

    Args:
        module: takes and returns tensors in the signature's order.
        path: the `.onnx` file.
        signature: its axes with names become dynamic.
        options: how it is written; the module's weights have their precision already.
        permitted: see `audit_graph`.
        operators: how the kernels' operators are written; None for plain operators instead of them.

    Returns:
        The graph as written.

    Raises:
        PcasegError: of `audit_graph`, or the installed packages cannot write the opset.
    """
    proto = _to_opset(trace(module.eval(), signature, options, operators), options.opset)
    _strip_traces(proto)
    _centre_pixels(proto.graph)
    _name_derived_axes(proto.graph, signature)
    audit_graph(proto.graph, signature, permitted=permitted)
    onnx.save(proto, path)
    return proto


def trace(
    module: nn.Module,
    signature: Signature,
    options: ExportOptions,
    operators: Mapping[Callable[..., Any], Callable[..., Any]] | None,
) -> onnx.ModelProto:
    """The graph as the exporter writes it, cleaned, in the options' opset or `OLDEST_TRACED`; for `export_graph`."""
    tracing = plain_operators() if operators is None else contextlib.nullcontext()
    with torch.no_grad(), tracing, _quiet():
        program = torch.onnx.export(
            module,
            example_inputs(signature),
            dynamo=True,
            opset_version=max(options.opset, OLDEST_TRACED),
            input_names=list(signature.inputs),
            output_names=list(signature.outputs),
            dynamic_shapes=tuple(_dynamic_axes(spec) for spec in signature.inputs.values()),
            custom_translation_table=translations(options.precision, options.layer_norm) | dict(operators or {}),
            verbose=False,
        )
        assert program is not None  # with dynamo=True there always is one
        proto: onnx.ModelProto = onnxslim.slim(program.model_proto)
    return proto


def _to_opset(proto: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    """Writes a graph in an older opset than it was traced in; checks the version in any case."""
    if opset < OLDEST_TRACED:
        if any(node.domain for node in proto.graph.node):
            _declare_older(proto, opset)  # the converter refuses plugin nodes
        else:
            proto = onnx.version_converter.convert_version(proto, opset)
        _write_older_reductions(proto.graph)
    found = [entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")]
    if found != [opset]:
        raise PcasegError(
            f"opset={opset}: the installed torch and onnx write {found[0]} instead; choose that or {OPSET}"
        )
    return proto


def _declare_older(proto: onnx.ModelProto, opset: int) -> None:
    """Writes the older opset down, where reductions are all that it changes.

    Raises:
        PcasegError: the graph holds another operator that opset 18 changed.
    """
    changed = {"Split", "Pad", "Resize", "ScatterElements", "ScatterND", "Mod"} & {n.op_type for n in proto.graph.node}
    if changed:
        raise PcasegError(f"opset={opset}: the exported graph holds {', '.join(sorted(changed))}; {_REPORT}")
    for entry in proto.opset_import:
        if entry.domain in ("", "ai.onnx"):
            entry.version = opset


def _write_older_reductions(graph: onnx.GraphProto) -> None:
    """Before opset 18 axes were an attribute, where the converter has not made them one, and one attribute was not."""
    values = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type.startswith("Reduce") and node.op_type != "ReduceSum":
            kept = [item for item in node.attribute if item.name != "noop_with_empty_axes"]
            if len(node.input) == 2:
                axes = onnx.numpy_helper.to_array(values[node.input.pop()])
                kept.append(onnx.helper.make_attribute("axes", axes.tolist()))
            del node.attribute[:]
            node.attribute.extend(kept)


def example_inputs(signature: Signature) -> tuple[Tensor, ...]:
    """Inputs to trace a module with: ones, dynamic axes as `EXAMPLE_LENGTHS` has them."""
    return tuple(
        torch.ones([axis if isinstance(axis, int) else EXAMPLE_LENGTHS[axis] for axis in spec.shape]).to(
            getattr(torch, spec.dtype)
        )
        for spec in signature.inputs.values()
    )


def audit_graph(graph: onnx.GraphProto, signature: Signature, *, permitted: Set[str] = frozenset()) -> Counter[str]:
    """Counts a graph's operators.

    Args:
        graph: as exported.
        signature: what it must take and return.
        permitted: those of `FORBIDDEN_OPS` that have their place in this graph.

    Raises:
        PcasegError: a forbidden operator is in the graph, an axis is frozen or loose against the signature, a type
            differs from it, or a `Resize` is not as `RESIZE_ATTRIBUTES`.
    """
    operators = Counter(node.op_type for node in graph.node)
    forbidden = sorted((FORBIDDEN_OPS - permitted) & operators.keys())
    if forbidden:
        raise PcasegError(f"the exported graph holds {', '.join(forbidden)}; {_REPORT}")
    for values, specs in ((graph.input, signature.inputs), (graph.output, signature.outputs)):
        found = {value.name: _described(value) for value in values}
        wanted = {name: (spec.shape, spec.dtype) for name, spec in specs.items()}
        for name in found.keys() | wanted.keys():
            if found.get(name) != wanted.get(name):
                raise PcasegError(
                    f"the exported graph has {name} as {found.get(name)}, not {wanted.get(name)}; {_REPORT}"
                )
    for node in graph.node:
        if node.op_type == "Resize":
            _check_resize(node)
    return operators


def _described(value: onnx.ValueInfoProto) -> tuple[tuple[int | str, ...], str]:
    """Shape and type of an input or output, as a `TensorSpec` writes them."""
    tensor = value.type.tensor_type
    shape = tuple(dim.dim_param or dim.dim_value for dim in tensor.shape.dim)
    return shape, onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name


def _check_resize(node: onnx.NodeProto) -> None:
    attributes = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
    for name, wanted in RESIZE_ATTRIBUTES.items():
        found = attributes.get(name, _RESIZE_DEFAULTS[name])
        if found != wanted:
            raise PcasegError(f"the exported graph resizes with {name} {found!r}, not {wanted!r}; {_REPORT}")


def _dynamic_axes(spec: TensorSpec) -> dict[int, str]:
    return {axis: length for axis, length in enumerate(spec.shape) if isinstance(length, str)}


def _centre_pixels(graph: onnx.GraphProto) -> None:
    """Corrects the exporter's `pytorch_half_pixel`: PyTorch treats outputs of one pixel as it does all others."""
    for node in graph.node:
        for item in node.attribute:
            if node.op_type == "Resize" and item.s == b"pytorch_half_pixel":
                item.s = b"half_pixel"


def _name_derived_axes(graph: onnx.GraphProto, signature: Signature) -> None:
    """Names the outputs' axes that are computed from inputs', which the exporter calls by their formulas."""
    for value in graph.output:
        axes = signature.outputs[value.name].shape if value.name in signature.outputs else ()
        for dim, axis in zip(value.type.tensor_type.shape.dim, axes, strict=False):
            if isinstance(axis, str) and dim.dim_param and not dim.dim_param.isidentifier():
                dim.dim_param = axis


def _strip_traces(proto: onnx.ModelProto) -> None:
    """Drops the source lines and local paths that tracing leaves in a graph."""
    del proto.metadata_props[:]
    for item in (*proto.graph.node, *proto.graph.input, *proto.graph.output, *proto.graph.value_info):
        item.doc_string = ""
        del item.metadata_props[:]
    for tensor in proto.graph.initializer:
        tensor.doc_string = ""
        del tensor.metadata_props[:]
    proto.doc_string = proto.graph.doc_string = ""
    del proto.graph.metadata_props[:]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the exporter's own chatter off the terminal; its errors still raise."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
