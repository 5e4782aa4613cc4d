"""The Python plugins over TensorRT's real bindings: registration, types, and what is handed over for an engine."""

from __future__ import annotations

import json

import pytest

SCRIPT = """
import json, sys, types
import tensorrt as trt
import tensorrt.plugin as trtp
from tensorrt.plugin import _lib, _tensor
from pcaseg.export.plugins import qdp
from pcaseg.export.plugins.library import attributes_of
from pcaseg.export.plugins.table import PLUGINS, Integers, fixed_for
from pcaseg.kernels.ptx import entry_parameters

class Number(trt.IDimensionExpr):
    "A symbolic length with a value."
    def __new__(cls, value):
        made = trt.IDimensionExpr.__new__(cls)
        made.value = value
        return made
    def __init__(self, value):
        pass

class Builder:
    "Evaluates what TensorRT would write down."
    def constant(self, value):
        return number(value)
    def operation(self, op, a, b):
        a, b = a.value, b.value
        names = {"SUM": a + b, "SUB": a - b, "PROD": a * b, "MAX": max(a, b), "MIN": min(a, b)}
        names |= {"FLOOR_DIV": a // b, "CEIL_DIV": -(-a // b)} if b else {}
        return number(names[op.name])

def number(value):
    made = Number.__new__(Number, value)
    return made

class Tensor:
    "What aot_impl reads of a TensorDesc."
    def __init__(self, shape, dtype):
        self.shape_expr, self.dtype = [trtp.SymInt32(length) for length in shape], dtype

_tensor.SymIntExpr._exprBuilder = Builder()
qdp.register_plugins(trt, "sm_90", registration="lazy")
qdp.register_plugins(trt, "sm_90", registration="lazy")
sizes = attributes_of("eva-b-384")
found = {}
shapes = json.loads(sys.argv[1])
for name, plugin in PLUGINS.items():
    definition = _lib.QDP_REGISTRY[f"pcaseg::{name}"]
    assert definition.input_tensor_names == list(plugin.inputs)
    assert list(definition.input_attrs) == list(plugin.attributes)
    combos = definition.autotune_func()
    expanded = [[t.name for t in c.types] for combo in combos for c in combo._get_combinations()]
    for T in (1, 20, 150):
        own = [[T if length == "T" else length for length in shape] for shape in shapes[name]]
        kinds = [trt.DataType.HALF if k == "T" else trt.DataType.FLOAT for k in plugin.types]
        inputs = [Tensor(shape, kind) for shape, kind in zip(own, kinds)]
        outputs = (Tensor([1], trt.DataType.HALF),)
        attributes = [sizes[name][key] for key in plugin.attributes]
        entry, ptx, params, extra = definition.aot_impl_func(*inputs, *attributes, outputs, 0)
        grid = [g._expr.value if hasattr(g, "_expr") else g for g in (params.grid_x, params.grid_y, params.grid_z)]
        scalars = [extra[i]._expr.value for i in range(len(extra))]
        variant = plugin.variant("fp16", sizes[name])
        launch = plugin.launch(own, fixed_for(plugin, variant, sizes[name]), Integers())
        assert (tuple(grid), tuple(scalars)) == (launch.grid, launch.scalars), (name, grid, scalars, launch)
        assert f".entry {entry}(" in ptx
        assert len(entry_parameters(ptx)) == len(plugin.inputs) + len(scalars) + 1
    try:
        if name == "PcasegCostVolume":
            definition.aot_impl_func(*inputs, *attributes, (Tensor([1], trt.DataType.FLOAT),), 0)
            raise SystemExit("a launch above 48 KiB was let through")
    except qdp.EngineError as error:
        assert "shared memory" in str(error)
    found[name] = expanded
print(json.dumps(found))
"""


@pytest.mark.parametrize("version", [pytest.param("10.13", marks=pytest.mark.slow), "11.4"])
def test_plugins_over_the_real_bindings(real_tensorrt, version):
    C, W, D, E, M, d = 128, 24, 512, 4, 32, 32
    maps = [1, "T", W, W, C]
    shapes = {
        "PcasegCostVolume": [[1, W, W, D], ["T", 1, D], [C, 1, 7, 7], [C]],
        "PcasegClassAttention": [[2, "T", W * W, C], [2, "T", 2 * C], *[[C, C]] * 3, [C], [4, d, d], [4, d]],
        "PcasegExpertMix": [
            maps, maps, [E * C, 2 * C], [E * C, 2 * C], [1, 21, E, C], [M, 2 * C], [M], [E, M], [E], [C, 2 * C], [C]
        ],
    }  # fmt: skip
    done = real_tensorrt.run(version, SCRIPT, json.dumps(shapes))
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["PcasegCostVolume"] == [["FLOAT"] * 5, ["HALF", "FLOAT", "HALF", "HALF", "HALF"]]
    assert found["PcasegExpertMix"] == [["FLOAT"] * 12, ["HALF"] * 12]
