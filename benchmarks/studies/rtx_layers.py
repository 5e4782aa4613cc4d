"""Kernels that TensorRT-RTX makes of a bundle: `python -m pcaseg.benchmarks.studies.rtx_layers BUNDLE --out rows.json`.

Builds each graph with one profile, without a GPU, and reads the builder's own report: how many ONNX nodes went into how
many kernels, and which operators got kernels of their own.
"""

from __future__ import annotations

import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pcaseg.arguments import Parser, rows_file, some_path
from pcaseg.environment import write_rows
from pcaseg.errors import reported
from pcaseg.export.tensorrt.builder import BuildOptions, build_plan
from pcaseg.export.tensorrt.graphs import derive_graph
from pcaseg.export.tensorrt.inspection import reported_layers
from pcaseg.export.tensorrt.profiles import shape_profiles
from pcaseg.runtime.bundle import Bundle
from pcaseg.runtime.engines import GRAPH_PRECISION, GraphRole, source_file
from pcaseg.runtime.tensorrt_api import capture_log, import_tensorrt, title

ROLES: tuple[GraphRole, ...] = ("main", "text")


@dataclass(frozen=True)
class LayersRow:
    """One graph, built.

    Attributes:
        preset: of the bundle.
        precision: of the bundle.
        opset, layer_norm: of the bundle.
        graph: which of the engines' graphs.
        built_by: library and version.
        nodes: of the ONNX graph, by operator.
        kernels: of the engine, by the builder's kind: `gemm`, `runtime_fusion` (a product with what follows it), `kgen`
            (generated) and so on.
        alone: nodes that share no kernel with another, by operator.
        kept: nodes that are named in some kernel; the others were computed beforehand, or only name or shape data.
        weights_bytes: of the engine.
        plan_bytes: of the file.
        seconds: of the build.
    """

    preset: str
    precision: str
    opset: int
    layer_norm: str
    graph: GraphRole
    built_by: str
    nodes: dict[str, int]
    kernels: dict[str, int]
    alone: dict[str, int]
    kept: int
    weights_bytes: int
    plan_bytes: int
    seconds: float


def roles_of(bundle: Bundle) -> tuple[GraphRole, ...]:
    """The graphs to be measured: a float16 bundle has the text encoder of the float32 one."""
    return ROLES if bundle.manifest.precision == "float32" else ROLES[:1]


def measure(bundle: Bundle, role: GraphRole) -> LayersRow:
    """Builds one graph and reads what the builder says.

    Raises:
        MissingDependencyError: TensorRT-RTX is not installed.
        EngineError: it refuses the graph.
    """
    import onnx

    trt = import_tensorrt("rtx")
    name = source_file(role, None)
    graph = derive_graph(onnx.load_from_string(bundle.read(name)), role, source=str(bundle.path / name))
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "log"
        log = capture_log(trt, file)
        plan, _ = build_plan(
            trt,
            graph.SerializeToString(),
            shape_profiles(bundle.manifest, role, "edge")[:1],
            precision=GRAPH_PRECISION[bundle.manifest.precision],
            options=BuildOptions(),
            timing_cache=b"",
            log=log,
            source=str(bundle.path / name),
            progress=True,
        )
        seconds = time.monotonic() - began
        log.close()
        weights = re.findall(r"Total Weights Memory: (\d+) bytes", file.read_text(encoding="utf-8"))
    layers = reported_layers(log.report, source=str(bundle.path / name))
    kinds = {node.name: node.op_type for node in graph.graph.node}
    return LayersRow(
        preset=bundle.manifest.preset,
        precision=bundle.manifest.precision,
        opset=bundle.manifest.opset,
        layer_norm=bundle.manifest.layer_norm,
        graph=role,
        built_by=title(trt),
        nodes=_sorted(Counter(kinds[node.name] for node in graph.graph.node)),
        kernels=_sorted(Counter(layer["LayerType"] for layer in layers)),
        alone=_sorted(_alone(layers, kinds)),
        kept=len({name for layer in layers for name in layer["Made of"]} & {*kinds}),
        weights_bytes=int(weights[-1]),
        plan_bytes=len(plan),
        seconds=seconds,
    )


def _alone(layers: list[dict[str, Any]], kinds: dict[str, str]) -> Counter[str]:
    parts = [set(layer["Made of"]) for layer in layers]
    shared = {name for names in parts if len(names) > 1 for name in names}
    return Counter(kinds[name] for name in set().union(*parts) - shared if name in kinds)


def _sorted(counted: Counter[str]) -> dict[str, int]:
    return dict(counted.most_common())


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes the rows."""
    parser = Parser(prog="python -m pcaseg.benchmarks.studies.rtx_layers", description=__doc__)
    parser.add_argument("bundle", nargs="+", type=some_path, help="bundles of `pcaseg export`")
    parser.add_argument("--out", type=rows_file, required=True, help="the JSON file")
    options = parser.parse_args(arguments)
    bundles = [Bundle(path) for path in options.bundle]
    rows = [measure(bundle, role) for bundle in bundles for role in roles_of(bundle)]
    write_rows(options.out, rows, subject="layers of engines")
    return 0


if __name__ == "__main__":
    sys.exit(reported(main))
