"""Makes the plugins known before a graph that holds them is parsed, and says what they are, for the engine's key."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import onnx

from pcaseg.export.plugins.qdp import entry_for, register_plugins
from pcaseg.export.plugins.table import NAMESPACE, PLUGINS
from pcaseg.runtime.bundle import PLUGIN_SEGMENTER_NAME, Bundle
from pcaseg.runtime.cuda import Gpu
from pcaseg.runtime.engines import GRAPH_PRECISION
from pcaseg.runtime.tensorrt_api import load_plugin_library


def prepare_plugins(trt: Any, bundle: Bundle, gpu: Gpu, library: Path | None) -> str:
    """Registers or loads the plugins that a bundle's graph needs.

    Args:
        trt: the module `tensorrt`.
        bundle: exported with plugins.
        gpu: what kernels are compiled for.
        library: the C++ plugins; None compiles the kernels into the engine.

    Returns:
        What an `EngineKey` says of them.

    Raises:
        EngineError: the library cannot be loaded, or this TensorRT takes no such plugins.
    """
    if library is not None:
        return f"library-{load_plugin_library(library)}"
    register_plugins(trt, gpu.arch)
    return f"inside-{_hash_of_kernels(bundle, gpu.arch)}"


def _hash_of_kernels(bundle: Bundle, arch: str) -> str:
    """Over the PTX of all nodes: it is what becomes part of the engine."""
    graph = onnx.load_from_string(bundle.read(PLUGIN_SEGMENTER_NAME)).graph
    dtype = GRAPH_PRECISION[bundle.manifest.precision]
    found = set()
    for node in graph.node:
        if node.domain == NAMESPACE:
            plugin = PLUGINS[node.op_type]
            sizes = {item.name: item.i for item in node.attribute if item.name in plugin.attributes}
            found.add(entry_for(plugin, dtype, sizes, arch).ptx)
    return hashlib.sha256("\n".join(sorted(found)).encode()).hexdigest()
