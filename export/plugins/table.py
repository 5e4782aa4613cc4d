"""Inputs, output and launch rule of each plugin: the one place that knows, for Python, TensorRT's expressions and C++.

A plugin is one kernel. Its inputs are the kernel's pointers in order, then come int32 scalars, then the output. Launch
rules are functions of the inputs' lengths that use `+ - * //` and the three functions of `Operations` alone, so the
same rule runs on integers, on TensorRT's symbolic lengths, and on text, which makes C++ of it.

Constexprs are fixed when a kernel is compiled: by the node's attributes, which hold the model's widths, and by the
plugin's tuning point. All float16 kernels stay within the 48 KiB of shared memory that a launch may ask for without
more ado; the cost volume in float32 does not, so it runs only where the caller raises that limit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from pcaseg.errors import PcasegError
from pcaseg.kernels import class_attention, cost_volume, expert_mix
from pcaseg.kernels.aot import Variant, arguments_of
from pcaseg.kernels.tuning import tuning_points

NAMESPACE = "pcaseg"
VERSION = "1"
PROCESSORS = 132
"""Multiprocessors that the launch of expert_mix aims to keep busy; fewer lose little by more programs."""

DTYPES = {"FP32": "fp32", "FP16": "fp16"}
"""TensorRT's names of what plugins compute in, and Triton's."""

Length = Any
"""Length of an axis: int, `SymInt32` or `Text`."""


class Operations(Protocol):
    """Functions that launch rules use beside operators."""

    def cdiv(self, a: Length, b: Length) -> Length:
        """Quotient, rounded up."""
        ...

    def maximum(self, a: Length, b: Length) -> Length:
        """The larger one."""
        ...

    def minimum(self, a: Length, b: Length) -> Length:
        """The smaller one."""
        ...


class Integers:
    """`Operations` on Python's integers."""

    def cdiv(self, a: Length, b: Length) -> Length:
        return -(-a // b)

    def maximum(self, a: Length, b: Length) -> Length:
        return max(a, b)

    def minimum(self, a: Length, b: Length) -> Length:
        return min(a, b)


class Text(str):
    """A C++ expression of int32, made by arithmetic; lengths are positive, so `/` there is `//` here."""

    def __add__(self, other: object) -> Text:
        return Text(f"({self} + {other})")

    def __radd__(self, other: object) -> Text:
        return Text(f"({other} + {self})")

    def __sub__(self, other: object) -> Text:
        return Text(f"({self} - {other})")

    def __mul__(self, other: object) -> Text:
        return Text(f"({self} * {other})")

    def __rmul__(self, other: object) -> Text:
        return Text(f"({other} * {self})")

    def __floordiv__(self, other: object) -> Text:
        return Text(f"({self} / {other})")


class TextOperations:
    """`Operations` that write C++."""

    def cdiv(self, a: Length, b: Length) -> Length:
        return Text(f"(({a} + {b} - 1) / {b})")

    def maximum(self, a: Length, b: Length) -> Length:
        return Text(f"std::max<int32_t>({a}, {b})")

    def minimum(self, a: Length, b: Length) -> Length:
        return Text(f"std::min<int32_t>({a}, {b})")


@dataclass(frozen=True)
class Launch:
    """Programs on each axis, and the kernel's int32 scalars in order."""

    grid: tuple[Length, Length, Length]
    scalars: tuple[Length, ...]


Shapes = Sequence[Sequence[Length]]
"""Shapes of all inputs."""

Fixed = Mapping[str, Any]
"""Constexprs by name."""


@dataclass(frozen=True)
class Plugin:
    """One plugin.

    Attributes:
        name: op_type of its ONNX nodes, no standard operator's.
        operator: the kernel's.
        inputs: names, in the kernel's order.
        types: of inputs and output: `T` for the type that varies, or `FP32`.
        ranks: of the inputs.
        attributes: ints on the node.
        points: tuning point for each type.
        output: shape from the inputs' shapes.
        launch: the rule.
        constexprs: of the kernel, from attributes, tuning point and type.
    """

    name: str
    operator: str
    inputs: tuple[str, ...]
    types: tuple[str, ...]
    ranks: tuple[int, ...]
    attributes: tuple[str, ...]
    points: dict[str, str]
    output: Callable[[Shapes], tuple[Length, ...]]
    launch: Callable[[Shapes, Fixed, Operations], Launch]
    constexprs: Callable[..., dict[str, Any]]

    def variant(self, dtype: str, attributes: Mapping[str, int]) -> Variant:
        """The variant that is compiled for `fp32` or `fp16` and these attributes.

        Raises:
            PcasegError: the kernel does not take such widths.
            MissingDependencyError: Triton is not installed.
        """
        if dtype not in self.points:
            raise PcasegError(f"{self.name}: dtype={dtype!r}: choose from {', '.join(self.points)}")
        point = tuning_points(self.operator)[self.points[dtype]]
        fixed = self.constexprs(point, dtype, **attributes)
        kernel, kinds = _kernel_of(self.operator), iter(self.types)
        signature = {
            argument: _pointer(next(kinds), dtype) if argument.endswith("_ptr") else "i32"
            for argument in arguments_of(kernel)
        }
        sizes = "_".join(str(attributes[name]) for name in self.attributes)
        return Variant(
            f"{self.name}_{sizes}_{dtype}", kernel, signature, fixed, "see pcaseg.export.plugins.table", point
        )

    def launch_for(self, shapes: Shapes, dtype: str, attributes: Mapping[str, int], operations: Operations) -> Launch:
        """The launch of the kernel that is compiled for this type and these attributes, on inputs of these shapes."""
        return self.launch(shapes, fixed_for(self, self.variant(dtype, attributes), attributes), operations)


def _pointer(kind: str, dtype: str) -> str:
    return f"*{dtype if kind == 'T' else DTYPES[kind]}"


def _kernel_of(operator: str) -> Any:
    from pcaseg.kernels.triton import class_attention, cost_volume, expert_mix

    return {
        "cost_volume": cost_volume._cost_volume_kernel,
        "class_attention": class_attention._class_attention_kernel,
        "expert_mix": expert_mix._expert_mix_kernel,
    }[operator]


def _cost_volume_launch(shapes: Shapes, fixed: Fixed, ops: Operations) -> Launch:
    (B, H, W, _), (T, _, _) = shapes[0], shapes[1]
    grid = ops.cdiv(H * W, fixed["BLOCK_M"]), ops.cdiv(T, fixed["CLASSES"]), B
    return Launch(grid, (T, H, W, 0))  # all images share the texts


def _class_attention_launch(shapes: Shapes, fixed: Fixed, ops: Operations) -> Launch:
    (B, T, N, _), (images, _, _) = shapes[0], shapes[1]
    step = ops.minimum(images - 1, 1) * T  # 0 where all images have the texts' shares in common
    return Launch((fixed["C"] // fixed["BLOCK_C"], N, B), (T, N, step))


def _expert_mix_launch(shapes: Shapes, fixed: Fixed, ops: Operations) -> Launch:
    B, T, H, W, _ = shapes[0]
    lanes = fixed["WIDTH"] + 1  # rows of maps lie side by side; see the kernel
    strips = fixed["BLOCK_M"] // lanes
    programs = ops.cdiv(B * T, strips) * (fixed["C"] * fixed["EXPERTS"] // fixed["COLUMNS"])
    parts = ops.minimum(ops.cdiv(2 * PROCESSORS, programs), fixed["WIDTH"] // expert_mix.MIN_ROWS)
    rows = ops.cdiv(H, ops.maximum(parts, 1))
    return Launch((programs, ops.cdiv(H, rows), 1), (B * T, H, W, lanes, rows))


def _cost_volume_constexprs(
    point: Any, dtype: str, *, width: int, dim: int, channels: int, prompts: int
) -> dict[str, Any]:
    return cost_volume.constexprs_for(point, width, dim, channels, prompts, dtype)


def _class_attention_constexprs(point: Any, dtype: str, *, channels: int, heads: int) -> dict[str, Any]:
    return class_attention.constexprs_for(point, channels, heads, dtype)


def _expert_mix_constexprs(
    point: Any, dtype: str, *, width: int, channels: int, experts: int, mapper_width: int
) -> dict[str, Any]:
    fixed = expert_mix.constexprs_for(channels, experts, mapper_width, dtype, point)
    if width >= fixed["BLOCK_M"]:
        raise PcasegError(f"width={width}: this plugin takes maps narrower than {fixed['BLOCK_M']}")
    return fixed


_WEIGHTS = ("parse_even", "parse_odd", "vectors", "mapper", "mapper_bias", "coefficients", "coefficients_bias")

PLUGINS = {
    plugin.name: plugin
    for plugin in (
        Plugin(
            name="PcasegCostVolume",
            operator="cost_volume",
            inputs=("features", "text", "weight", "bias"),
            types=("T", "FP32", "T", "T", "T"),
            ranks=(4, 3, 4, 1),
            attributes=("width", "dim", "channels", "prompts"),
            points={"fp32": "narrow", "fp16": "medium"},
            output=lambda shapes: (shapes[0][0], shapes[1][0], shapes[0][1], shapes[0][2], shapes[2][0]),
            launch=_cost_volume_launch,
            constexprs=_cost_volume_constexprs,
        ),
        Plugin(
            name="PcasegClassAttention",
            operator="class_attention",
            inputs=("z", "share", "q", "k", "v", "v_bias", "pad_matrix", "pad_normaliser"),
            types=("T", "T", "T", "T", "T", "T", "FP32", "FP32", "T"),
            ranks=(4, 3, 2, 2, 2, 1, 3, 2),
            attributes=("channels", "heads"),
            points={"fp32": "narrow", "fp16": "medium"},
            output=lambda shapes: tuple(shapes[0]),
            launch=_class_attention_launch,
            constexprs=_class_attention_constexprs,
        ),
        Plugin(
            name="PcasegExpertMix",
            operator="expert_mix",
            inputs=("spatial", "semantic", *_WEIGHTS, "residual", "residual_bias"),
            types=("T",) * 12,
            ranks=(5, 5, 2, 2, 4, 2, 1, 2, 1, 2, 1),
            attributes=("width", "channels", "experts", "mapper_width"),
            points={"fp32": "narrow", "fp16": "shallow"},
            output=lambda shapes: tuple(shapes[0]),
            launch=_expert_mix_launch,
            constexprs=_expert_mix_constexprs,
        ),
    )
}
"""Plugins by name."""


def fixed_for(plugin: Plugin, variant: Variant, attributes: Mapping[str, int]) -> dict[str, Any]:
    """A launch rule's argument `fixed`: the variant's constexprs and the width of maps, where the plugin has one."""
    return variant.constexprs | ({"WIDTH": attributes["width"]} if "width" in attributes else {})
