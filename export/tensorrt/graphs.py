"""The two graphs that TensorRT builds instead of a bundle's one, derived from it at build time.

A bundle's segmenter takes any number of classes: it sorts them all, keeps the best min(T, 256), and puts their logits
back. TensorRT's parsers want the K of TopK as a constant and sort only floating-point numbers. So, without a second
copy of the weights in the bundle:

- `main`, for T up to 256: keeping all classes changes nothing but their order, so sorting, picking and putting back go.
- `large`, for T above 256: K is 256, a constant; the place of a class among the kept comes from comparing indices:
  rank(t) = 256 + sum_k (k - 256) [order(k) = t], which is 256, the place of the dropped, for those not kept.

A graph with a shortlist gives the kept classes alone, so nothing is put back: `main`, for T up to K, keeps all in their
order; in `large`, for T above K, K is a constant, indices are sorted as floats, and all behind has fixed shapes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import onnx
from onnx import NodeProto, helper, numpy_helper

from pcaseg.configs import MAX_CLASSES, MOST_INDEXED
from pcaseg.errors import EngineError
from pcaseg.runtime.bundle import Bundle
from pcaseg.runtime.engines import EngineKey, GraphRole, source_file

Frames = Literal["uint8", "float32"]

_EXPORT_ANEW = "export the bundle anew with this pcaseg"


def graph_of(trt: Any, bundle: Bundle, key: EngineKey) -> onnx.ModelProto:
    """The graph that an engine with this key is built from, before any quantising.

    Raises:
        BundleError: the bundle's file is missing or altered.
        EngineError: as `derive_graph`.
    """
    name = source_file(key.graph, key.plugins)
    proto = onnx.load_from_string(bundle.read(name))
    if key.plugins and bundle.manifest.shortlist is None:
        return proto  # made for up to 256 classes
    frames: Frames = "uint8" if hasattr(trt.DataType, "INT64") else "float32"  # both came with TensorRT 10
    return derive_graph(proto, key.graph, source=f"{bundle.path / name} ({key.graph})", frames=frames)


def derive_graph(proto: onnx.ModelProto, role: GraphRole, *, source: str, frames: Frames = "uint8") -> onnx.ModelProto:
    """A graph for TensorRT.

    Args:
        proto: a bundle's segmenter or text encoder; left as it is.
        role: which graph; `text` gives the text encoder as it is.
        source: what messages call the file.
        frames: type of the images of a graph of labels; the parser of TensorRT 8.5 takes no uint8.

    Raises:
        EngineError: the segmenter does not select its classes as `pcaseg export` writes it: edited, or of an older one.
    """
    derived = onnx.ModelProto()
    derived.CopyFrom(proto)
    if role == "text":
        return derived
    _read_frames(derived.graph, frames)
    graph: _Graph
    if listed := _shortlists(derived.graph):
        graph = _Graph(derived.graph, source)
        (_list_all if role == "main" else _list_best)(graph, listed)
    else:
        graph = selection = _Selection(derived.graph, source)
        (_keep_all if role == "main" else _keep_best)(selection)
    graph.prune()
    try:
        onnx.checker.check_model(derived)
    except onnx.checker.ValidationError as error:
        raise EngineError(f"{source}: is no valid graph ({str(error).splitlines()[0]}); {_EXPORT_ANEW}") from error
    return derived


def _read_frames(graph: onnx.GraphProto, frames: Frames) -> None:
    """Lets nothing but the cast to numbers read images of bytes: parsers ask the shape of no uint8."""
    (image,) = [value for value in graph.input if value.name == "image"]
    if image.type.tensor_type.elem_type != onnx.TensorProto.UINT8:
        return
    (cast,) = [node for node in graph.node if node.op_type == "Cast" and node.input[0] == "image"]
    for node in graph.node:
        if node.op_type == "Shape" and node.input[0] == "image":
            node.input[0] = cast.output[0]
    if frames == "float32":
        image.type.tensor_type.elem_type = onnx.TensorProto.FLOAT


class _Graph:
    """An ONNX graph and edits by name."""

    def __init__(self, graph: onnx.GraphProto, source: str) -> None:
        self.graph, self.source = graph, source
        self.maker = {name: node for node in graph.node for name in node.output}

    def replace(self, old: str, new: str) -> None:
        """Lets every reader of `old` read `new`; an output of the graph keeps its name."""
        for node in self.graph.node:
            for i, name in enumerate(node.input):
                if name == old:
                    node.input[i] = new
        if any(value.name == old for value in self.graph.output):
            self.graph.node.append(helper.make_node("Identity", [new], [old]))

    def drop(self, node: NodeProto) -> None:
        """Removes a node; what it made must have been replaced before, or come from another."""
        self.graph.node.remove(node)

    def constant(self, name: str, value: np.ndarray) -> str:
        """Adds an initializer."""
        self.graph.initializer.append(numpy_helper.from_array(value, name))
        return name

    def axes(self) -> None:
        """Adds `axis_0`, `axis_1` and `axis_2`, (1,) each, which slices and reductions name."""
        for axis in range(3):
            self.constant(f"axis_{axis}", np.array([axis], np.int64))

    def prune(self) -> None:
        """Removes what no output needs any more, and sorts the nodes by need."""
        maker = {name: node for node in self.graph.node for name in node.output}
        done: dict[int, NodeProto] = {}
        stack = [(maker[value.name], False) for value in reversed(self.graph.output)]
        while stack:
            node, ready = stack.pop()
            if id(node) in done:
                continue
            if ready:
                done[id(node)] = node
                continue
            stack.append((node, True))
            stack += [(maker[name], False) for name in reversed(node.input) if name in maker]
        nodes = list(done.values())
        used = {name for node in nodes for name in node.input}
        made = {name for node in nodes for name in node.output}
        weights = [tensor for tensor in self.graph.initializer if tensor.name in used]
        values = [value for value in self.graph.value_info if value.name in made]
        for field, kept in (("node", nodes), ("initializer", weights), ("value_info", values)):
            self.graph.ClearField(field)
            getattr(self.graph, field).extend(kept)

    def depends(self, name: str, on: str) -> bool:
        """True where a value is computed from another, through at most a few nodes that change its shape."""
        while name in self.maker and name != on:
            name = self.maker[name].input[0]
        return name == on

    def reshaped(self, name: str) -> str:
        """The value that another is, apart from its shape."""
        while name in self.maker and self.maker[name].op_type in ("Reshape", "Unsqueeze", "Expand", "Identity"):
            name = self.maker[name].input[0]
        return name

    def unknown(self) -> EngineError:
        """The error of a graph that is none of ours."""
        return EngineError(f"{self.source}: does not select its classes as pcaseg writes it; {_EXPORT_ANEW}")


class _Selection(_Graph):
    """A graph that keeps the best classes and puts all logits back, with the nodes that do so found."""

    def __init__(self, graph: onnx.GraphProto, source: str) -> None:
        super().__init__(graph, source)
        best, again = self._two("TopK")
        self.order, self.rank = best.output[1], again.output[1]
        self.best = best
        self.clip = self._one("Clip", lambda node: node.input[0] == self.rank)
        self.least = self._one("Min", lambda node: len(node.input) == 2)
        gathers = [node for node in graph.node if node.op_type == "GatherElements"]
        self.restore = self._one("GatherElements", lambda node: self.depends(node.input[1], self.clip.output[0]))
        self.takes = [node for node in gathers if node is not self.restore]
        self.stack = self.maker.get(self.restore.input[0])
        if self.stack is None or self.stack.op_type != "Concat" or not self.takes:
            raise self.unknown()

    def _one(self, kind: str, test: Callable[[NodeProto], bool]) -> NodeProto:
        found = [node for node in self.graph.node if node.op_type == kind and test(node)]
        if len(found) != 1:
            raise self.unknown()
        return found[0]

    def _two(self, kind: str) -> tuple[NodeProto, NodeProto]:
        found = [node for node in self.graph.node if node.op_type == kind]
        if len(found) != 2 or found[1].input[0] != found[0].output[1]:
            raise self.unknown()
        return found[0], found[1]


def _keep_all(graph: _Selection) -> None:
    """Every class stays where it is: T is the number of classes that are kept."""
    constants = {tensor.name for tensor in graph.graph.initializer}
    (classes,) = [name for name in graph.least.input if name not in constants]
    graph.replace(graph.least.output[0], classes)
    for take in graph.takes:
        graph.replace(take.output[0], take.input[0])
    assert graph.stack is not None  # the constructor saw it
    restored, name = graph.stack.input[0], graph.restore.output[0]
    graph.drop(graph.restore)
    graph.replace(name, restored)


def _keep_best(graph: _Selection) -> None:
    """The best 256 classes are kept: K is a constant, and ranks come from comparisons instead of a second sort."""
    graph.replace(graph.least.output[0], graph.constant("kept_classes", np.array(MAX_CLASSES, np.int64)))
    graph.best.input[1] = graph.constant("kept_classes_1d", np.array([MAX_CLASSES], np.int64))
    graph.constant("classes_all", np.arange(MOST_INDEXED, dtype=np.int32))
    graph.constant("places", np.arange(MAX_CLASSES, dtype=np.float32) - MAX_CLASSES)
    graph.constant("last_place", np.array(MAX_CLASSES, np.float32))
    graph.axes()
    nodes = [
        helper.make_node("Shape", ["text"], ["text_shape"]),
        helper.make_node("Slice", ["text_shape", "axis_0", "axis_1", "axis_0"], ["text_classes"]),
        helper.make_node("Slice", ["classes_all", "axis_0", "text_classes", "axis_0"], ["classes"]),
        helper.make_node("Unsqueeze", ["classes", "axis_1"], ["classes_column"]),
        helper.make_node("Cast", [graph.order], ["order_int32"], to=onnx.TensorProto.INT32),
        helper.make_node("Unsqueeze", ["order_int32", "axis_1"], ["order_row"]),
        helper.make_node("Equal", ["order_row", "classes_column"], ["is_class"]),
        helper.make_node("Cast", ["is_class"], ["is_class_float"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Mul", ["is_class_float", "places"], ["place_or_zero"]),
        helper.make_node("ReduceSum", ["place_or_zero", "axis_2"], ["place_sum"], keepdims=0),
        helper.make_node("Add", ["place_sum", "last_place"], ["place_float"]),
        helper.make_node("Cast", ["place_float"], ["place"], to=onnx.TensorProto.INT64),
    ]
    graph.replace(graph.clip.output[0], "place")
    graph.graph.node.extend(nodes)


def _shortlists(graph: onnx.GraphProto) -> list[tuple[NodeProto, NodeProto]]:
    """Pairs of sorts that choose classes and put their indices in ascending order; none in a graph without a shortlist.

    The first pair chooses each window's classes; a second one, of a graph of labels, those that its windows share.
    """
    sorts = [node for node in graph.node if node.op_type == "TopK"]
    ascending = [any(item.name == "largest" and item.i == 0 for item in node.attribute) for node in sorts]
    pairs = list(zip(sorts[::2], sorts[1::2], strict=False))
    cut = all(second.input[0] not in first.output for first, second in pairs)  # without one all indices are sorted
    return pairs if pairs and cut and ascending == [False, True] * len(pairs) else []


def _shorter(graph: _Graph, ascending: NodeProto) -> tuple[NodeProto, int]:
    """The node that gives the smaller of T and a constant, where what `ascending` sorts was cut off, and the constant.

    Raises:
        EngineError: the graph is none of ours.
    """
    cut = graph.maker[ascending.input[0]]
    least = graph.maker.get(graph.reshaped(cut.input[2])) if cut.op_type == "Slice" else None
    constants = {tensor.name: tensor for tensor in graph.graph.initializer}
    most = [name for name in least.input if name in constants] if least else []
    if least is None or least.op_type != "Min" or len(most) != 1:
        raise graph.unknown()
    return least, int(numpy_helper.to_array(constants[most[0]]))


def _list_all(graph: _Graph, pairs: list[tuple[NodeProto, NodeProto]]) -> None:
    """Every class is kept, in its place: T is at most the shortlist's length."""
    graph.constant("classes_all", np.arange(MOST_INDEXED, dtype=np.int64)[None])
    graph.axes()
    kept = pairs[0][1].output[0]
    for node in [node for node in graph.graph.node if node.op_type == "GatherElements"]:
        if graph.reshaped(node.input[1]) == kept:
            graph.replace(node.output[0], node.input[0])
    for number, (best, ascending) in enumerate(pairs):
        least, _ = _shorter(graph, ascending)
        (classes,) = [name for name in least.input if name in graph.maker]
        graph.replace(least.output[0], classes)
        shape, count, row = (f"{name}_{number}" for name in ("ranked_shape", "ranked_classes", "ranked_row"))
        name, ascending.output[0] = ascending.output[0], f"replaced_{number}"
        graph.graph.node.extend(
            [
                helper.make_node("Shape", [best.input[0]], [shape]),
                helper.make_node("Slice", [shape, "axis_1", "axis_2", "axis_0"], [count]),
                helper.make_node("Slice", ["classes_all", "axis_0", count, "axis_1"], [row]),
                helper.make_node("Expand", [row, shape], [name]),
            ]
        )


def _list_best(graph: _Graph, pairs: list[tuple[NodeProto, NodeProto]]) -> None:
    """The best K classes are kept, a constant.

    Where the windows of an image may share more classes than there are, their number stays a constant too, and the last
    class is repeated: it has the same scores each time.
    """
    graph.axes()
    kept = 0
    for number, (best, ascending) in enumerate(pairs):
        least, most = _shorter(graph, ascending)
        kept = kept or most
        graph.replace(least.output[0], graph.constant(f"kept_{number}", np.array(most, np.int64)))
        length = graph.constant(f"kept_1d_{number}", np.array([most], np.int64))
        order, sorted_, last = (f"{name}_{number}" for name in ("order_float", "ascending", "at_most_last"))
        name, ascending.input[0], ascending.output[0] = ascending.output[0], order, sorted_
        nodes = [helper.make_node("Cast", [best.output[1]], [order], to=onnx.TensorProto.FLOAT)]
        if most > kept + 1:
            nodes += _repeat_last(graph, best, length, sorted_, last)
            sorted_ = last
        nodes.append(helper.make_node("Cast", [sorted_], [name], to=onnx.TensorProto.INT64))
        best.input[1] = ascending.input[1] = length
        graph.graph.node.extend(nodes)


def _repeat_last(graph: _Graph, best: NodeProto, length: str, ascending: str, out: str) -> list[NodeProto]:
    """Lets `best` sort `length` places more, behind all others, and names the last class in those that it takes."""
    scores, best.input[0] = best.input[0], "scores_and_none"
    graph.constant("none", np.array([[-1]], np.float32))  # scores are numbers of windows
    graph.constant("one", np.array(1, np.float32))
    return [
        helper.make_node("Shape", [scores], ["scores_shape"]),
        helper.make_node("Slice", ["scores_shape", "axis_0", "axis_1", "axis_0"], ["scores_images"]),
        helper.make_node("Concat", ["scores_images", length], ["none_shape"], axis=0),
        helper.make_node("Expand", ["none", "none_shape"], ["none_places"]),
        helper.make_node("Concat", [scores, "none_places"], [best.input[0]], axis=1),
        helper.make_node("Slice", ["scores_shape", "axis_1", "axis_2", "axis_0"], ["scores_classes"]),
        helper.make_node("Cast", ["scores_classes"], ["scores_classes_float"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Sub", ["scores_classes_float", "one"], ["last_class"]),
        helper.make_node("Min", [ascending, "last_class"], [out]),
    ]
