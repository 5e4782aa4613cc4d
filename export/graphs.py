"""ONNX graphs of a model: image windows and text to logits, and tokens to text embeddings."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import onnx
import torch
from torch import Tensor, nn

from pcaseg.configs import CONTEXT_LENGTH
from pcaseg.errors import PcasegError

if TYPE_CHECKING:
    from pcaseg.model.network import PCASeg

OPSET = 20
"""The first opset with GELU as one operator."""

FORBIDDEN_OPS = frozenset(
    {"If", "Loop", "Scan", "Range", "ScatterND", "ScatterElements", "Einsum", "NonZero", "Resize"}
)
"""Operators that edge parsers lack or that show a shape frozen or computed on the way: none may be in a graph."""


class SegmenterGraph(nn.Module):
    """Windows and class embeddings in, logits out, for any number of either."""

    def __init__(self, model: PCASeg) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor, text: Tensor) -> Tensor:
        """image (N, 3, R, R) float 0..255, text (T, D) or, with several prompts, (T, P, D) -> (N, T, 4H, 4W)."""
        features, guidance = self.model.encode_image(image)
        text = text[:, None] if text.dim() == 2 else text
        return self.model.aggregator.aggregate_best(features, text, guidance)


def export_segmenter(model: PCASeg, path: Path) -> onnx.ModelProto:
    """Writes the segmenter graph: inputs `image` (N, 3, R, R) and `text` (T, D), output `logits`; N and T dynamic.

    Returns:
        The graph as written.

    Raises:
        PcasegError: a forbidden operator or a frozen axis is in the graph.
    """
    preset = model.preset
    images = torch.zeros(3, 3, preset.image_px, preset.image_px)
    shape = (7, preset.embed_dim) if preset.prompts == 1 else (7, preset.prompts, preset.embed_dim)
    with model.image_tower.fixed_positions((preset.grid, preset.grid)):
        return _export(
            SegmenterGraph(model),
            (images, torch.ones(shape)),
            path,
            dynamic={"image": {0: "N"}, "text": {0: "T"}},
            output="logits",
        )


def export_text_encoder(model: PCASeg, path: Path) -> onnx.ModelProto:
    """Writes the text encoder: input `tokens` (T, 77) int64, output `text` (T, D) of unit norm; T dynamic."""
    tokens = torch.ones(5, CONTEXT_LENGTH, dtype=torch.int64)
    return _export(model.text_tower, (tokens,), path, dynamic={"tokens": {0: "T"}}, output="text")


def audit_graph(graph: onnx.GraphProto) -> Counter[str]:
    """Counts a graph's operators.

    Raises:
        PcasegError: one of `FORBIDDEN_OPS` is among them, or an input's or output's first axis is fixed.
    """
    operators = Counter(node.op_type for node in graph.node)
    forbidden = sorted(FORBIDDEN_OPS & operators.keys())
    if forbidden:
        raise PcasegError(f"the exported graph holds {', '.join(forbidden)}; report this with your torch version")
    for value in (*graph.input, *graph.output):
        if not value.type.tensor_type.shape.dim[0].dim_param:
            raise PcasegError(f"the exported graph froze an axis of {value.name}; report this with your torch version")
    return operators


def _export(
    module: nn.Module, inputs: tuple[Tensor, ...], path: Path, *, dynamic: dict[str, dict[int, str]], output: str
) -> onnx.ModelProto:
    with torch.no_grad(), _quiet():
        program = torch.onnx.export(
            module.eval(),
            inputs,
            dynamo=True,
            opset_version=OPSET,
            input_names=list(dynamic),
            output_names=[output],
            dynamic_shapes=tuple(dynamic.values()),
            verbose=False,
        )
        assert program is not None  # with dynamo=True there always is one
        proto = program.model_proto
    _strip_traces(proto)
    audit_graph(proto.graph)
    onnx.save(proto, path)
    return proto


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
