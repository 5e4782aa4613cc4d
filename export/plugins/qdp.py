"""The plugins in Python, for TensorRT 10.9 and newer: compiled when an engine is built, and part of it from then on.

TensorRT calls these "quickly deployable plugins", compiled ahead of time: it takes a kernel's PTX and symbolic launch
parameters, so that the finished engine runs in any process, without Python and without Triton.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from typing import Any, Literal

from pcaseg.errors import EngineError
from pcaseg.export.plugins.table import DTYPES, NAMESPACE, PLUGINS, Operations, Plugin
from pcaseg.kernels.aot import PluginEntry, plugin_entry

Registration = Literal["registered", "lazy"]
"""Known to TensorRT's registry at once, which needs its libraries, or only to its Python layer."""

MOST_SHARED_BYTES = 48 * 1024
"""Limit of a launch by TensorRT's Python plugins: nothing there asks the driver for more."""

_entries: dict[tuple[str, str], PluginEntry] = {}


def import_plugin_module(trt: Any) -> Any:
    """The module `tensorrt.plugin`.

    Raises:
        EngineError: this TensorRT has none that compiles ahead of time.
    """
    try:
        module = importlib.import_module("tensorrt.plugin")
    except ImportError as error:
        raise EngineError(
            f"TensorRT {trt.__version__} takes no plugins in Python ({error}); use 10.9 or newer, or --plugin-library"
        ) from error
    if not hasattr(module, "aot_impl"):
        raise EngineError(f"TensorRT {trt.__version__} compiles no plugins ahead of time; use 10.9 or newer")
    return module


class Symbols(Operations):
    """`Operations` on TensorRT's symbolic lengths."""

    def __init__(self, trtp: Any) -> None:
        self._trtp = trtp

    def cdiv(self, a: Any, b: Any) -> Any:
        return self._trtp.cdiv(a, b)

    def maximum(self, a: Any, b: Any) -> Any:
        return self._trtp.max(a, b)

    def minimum(self, a: Any, b: Any) -> Any:
        return self._trtp.min(a, b)


def register_plugins(trt: Any, arch: str, *, registration: Registration = "registered") -> None:
    """Tells TensorRT of every plugin; again in the same process it changes nothing.

    Args:
        trt: the module `tensorrt`.
        arch: what kernels are compiled for, such as `sm_90`.
        registration: see there.

    Raises:
        EngineError: this TensorRT has no such plugins.
    """
    trtp = import_plugin_module(trt)
    for plugin in PLUGINS.values():
        if not hasattr(getattr(trtp.op, NAMESPACE, None), plugin.name):
            _register(trtp, plugin, arch, registration)


def _register(trtp: Any, plugin: Plugin, arch: str, registration: Registration) -> None:
    name = f"{NAMESPACE}::{plugin.name}"
    count = len(plugin.inputs)

    def describe(*arguments: Any) -> Any:
        inputs = arguments[:count]
        shape = plugin.output([tensor.shape_expr for tensor in inputs])
        return trtp.from_shape_expr(shape, dtype=inputs[0].dtype)

    def combinations(*arguments: Any) -> Any:
        return [trtp.AutoTuneCombination(types, "LINEAR") for types in io_types(plugin)]

    def implement(*arguments: Any) -> Any:
        inputs, (outputs, _) = arguments[:count], arguments[-2:]
        attributes = dict(zip(plugin.attributes, arguments[count:-2], strict=True))
        dtype = DTYPES["FP16" if outputs[0].dtype.name == "HALF" else "FP32"]
        return _implementation(trtp, plugin, inputs, attributes, dtype, arch)

    tensors = dict.fromkeys(plugin.inputs, trtp.TensorDesc)
    attributes = dict.fromkeys(plugin.attributes, int)
    outputs = {"outputs": tuple[trtp.TensorDesc]}
    built = tuple[str, str, trtp.KernelLaunchParams, trtp.SymExprs]
    lazy = registration == "lazy"
    trtp.register(name, lazy_register=lazy)(_signed(describe, tensors | attributes, trtp.TensorDesc))
    trtp.autotune(name)(_signed(combinations, tensors | attributes | outputs, list[trtp.AutoTuneCombination]))
    trtp.aot_impl(name)(_signed(implement, tensors | attributes | outputs | {"tactic": int}, built))


def io_types(plugin: Plugin) -> list[str]:
    """The types of inputs and output that a plugin takes, one string for each of `DTYPES`."""
    return [", ".join(wide if kind == "T" else kind for kind in plugin.types) for wide in DTYPES]


def _implementation(
    trtp: Any, plugin: Plugin, inputs: Any, attributes: Mapping[str, int], dtype: str, arch: str
) -> tuple[Any, ...]:
    """Entry, PTX, launch parameters and scalars of one node."""
    entry = entry_for(plugin, dtype, attributes, arch)
    if entry.shared_bytes > MOST_SHARED_BYTES:
        raise EngineError(
            f"{plugin.name} in {dtype} needs {entry.shared_bytes} bytes of shared memory, and TensorRT launches "
            f"plugins with at most {MOST_SHARED_BYTES}; build a float16 bundle, or use the C++ library"
        )
    launch = plugin.launch_for([tensor.shape_expr for tensor in inputs], dtype, attributes, Symbols(trtp))
    params = trtp.KernelLaunchParams()
    params.grid_x, params.grid_y, params.grid_z = launch.grid
    params.block_x, params.shared_mem = entry.threads, entry.shared_bytes
    scalars = trtp.SymIntExprs(len(launch.scalars))
    for i, scalar in enumerate(launch.scalars):
        scalars[i] = trtp.SymInt32(scalar)
    return entry.name, entry.ptx, params, scalars


def entry_for(plugin: Plugin, dtype: str, attributes: Mapping[str, int], arch: str) -> PluginEntry:
    """The compiled kernel of a node, compiled once in a process."""
    variant = plugin.variant(dtype, attributes)
    key = (variant.name, arch)
    if key not in _entries:
        _entries[key] = plugin_entry(variant, arch)
    return _entries[key]


def _signed(function: Any, parameters: Mapping[str, Any], returns: Any) -> Any:
    """The function with the signature that TensorRT reads: a name and a type for each argument."""
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    listed = [inspect.Parameter(name, kind, annotation=annotation) for name, annotation in parameters.items()]
    function.__signature__ = inspect.Signature(listed, return_annotation=returns)
    return function
