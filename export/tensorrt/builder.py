"""From a graph to a plan: one code path for TensorRT 8.5 to 11, which asks for each feature before it uses it.

Precision is written in the graph. TensorRT 10 and 11 build strongly typed networks, which keep it; 8.5 has none, so
there every layer that computes is told its type, and the builder is told to obey.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tqdm import tqdm

from pcaseg.errors import EngineError, PcasegError
from pcaseg.export.tensorrt.rtx import set_targets
from pcaseg.runtime.engines import EnginePrecision, Hardware, ShapeProfile
from pcaseg.runtime.tensorrt_api import last_error, start, title

SHUNNED_TACTICS = ("CUBLAS", "CUBLAS_LT", "CUDNN")
"""External libraries that TensorRT does not need; left out, engines neither load nor depend on them."""

_REPORT = "report this with your TensorRT version"
_UNTYPED = ("CONSTANT", "SHAPE", "SHUFFLE", "IDENTITY", "CAST", "SLICE", "CONCATENATION", "GATHER", "SELECT", "TOPK")
"""Layer types that compute nothing in floating point: they follow their inputs."""


@dataclass(frozen=True)
class BuildOptions:
    """Options of a build.

    Attributes:
        workspace_mib: device memory that tactics may use while they are tried and run.
        hardware: what GPUs the engine is to run on.
        version_compatible: run on newer TensorRT versions of the same major one too.
        weight_stripped: leave the weights out of the plan; they are taken from the bundle when it is opened.
        optimization_level: 0 (fast build) to 5 (long search).
        compute_capabilities: of TensorRT-RTX, GPUs that the engine is to run on, such as `8.9`; none for its own
            choice, 8.0 and newer.

    Raises:
        PcasegError: a number out of range.
    """

    workspace_mib: int = 4096
    hardware: Hardware = "this-gpu"
    version_compatible: bool = False
    weight_stripped: bool = False
    optimization_level: int = 3
    compute_capabilities: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 1 <= self.workspace_mib <= 1 << 20:
            raise PcasegError(f"workspace={self.workspace_mib}: give MiB from 1 to {1 << 20}")
        if not 0 <= self.optimization_level <= 5:
            raise PcasegError(f"optimization_level={self.optimization_level}: give 0 to 5")


def build_plan(
    trt: Any,
    onnx_bytes: bytes,
    profiles: tuple[ShapeProfile, ...],
    *,
    precision: EnginePrecision,
    options: BuildOptions,
    timing_cache: bytes,
    log: Any,
    source: str,
    progress: bool,
) -> tuple[bytes, bytes]:
    """Builds a plan.

    Args:
        trt: the module.
        onnx_bytes: a graph of `derive_graph`.
        profiles: at least one.
        precision: of the graph; float16 graphs hold regions in float32.
        options: see there.
        timing_cache: what a former build returned, or nothing.
        log: of `capture_log`.
        source: what messages call the graph.
        progress: whether to show it on standard error.

    Returns:
        The plan, and the timing cache with what was learned.

    Raises:
        EngineError: TensorRT has no usable GPU, cannot parse the graph, lacks an option, or fails to build.
    """
    builder = start(trt.Builder, log, trt)
    network = parse_graph(trt, builder, onnx_bytes, log=log, source=source)
    config = builder.create_builder_config()
    _configure(trt, config, options)
    _constrain(trt, network, config, precision)
    for profile in profiles:
        if config.add_optimization_profile(_profile(builder, profile)) < 0:
            raise EngineError(f"{source}: {title(trt)} refuses profile {profile.name}: {last_error(log)}")
    _use_timings(trt, config, timing_cache, log, source)
    began = log.error_count
    with _progress(trt, config, source, show=progress):
        plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise EngineError(f"{source}: {title(trt)} builds no engine: {_reasons(log, began)}")
    return bytes(plan), bytes(config.get_timing_cache().serialize())


def parse_graph(trt: Any, builder: Any, onnx_bytes: bytes, *, log: Any, source: str) -> Any:
    """A network of a graph; it refers to memory of the builder.

    Raises:
        EngineError: the parser refuses the graph.
    """
    network = builder.create_network(_network_flags(trt))
    _parse(trt, network, onnx_bytes, log, source)
    return network


def _use_timings(trt: Any, config: Any, timing_cache: bytes, log: Any, source: str) -> None:
    """Takes the timings of former builds.

    Raises:
        EngineError: they are of another GPU or version, or damaged.
    """
    cache = config.create_timing_cache(timing_cache)
    if cache is None or not config.set_timing_cache(cache, False):
        raise EngineError(
            f"{source}: {title(trt)} refuses the timing cache ({last_error(log)}); name another with "
            "--timing-cache, or delete it"
        )


def _network_flags(trt: Any) -> int:
    kinds = trt.NetworkDefinitionCreationFlag
    flags = 1 << int(kinds.EXPLICIT_BATCH) if hasattr(kinds, "EXPLICIT_BATCH") else 0
    if hasattr(kinds, "STRONGLY_TYPED"):
        flags |= 1 << int(kinds.STRONGLY_TYPED)
    if hasattr(kinds, "PREFER_AOT_PYTHON_PLUGINS"):
        flags |= 1 << int(kinds.PREFER_AOT_PYTHON_PLUGINS)
    return flags


def _strongly_typed(trt: Any) -> bool:
    return hasattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED")


def _parse(trt: Any, network: Any, onnx_bytes: bytes, log: Any, source: str) -> None:
    parser = trt.OnnxParser(network, log)
    if parser.parse(onnx_bytes):
        if network.num_layers == 0:
            raise EngineError(f"{source}: {title(trt)} finds no layer in the graph; export the bundle anew")
        return
    errors = [parser.get_error(i) for i in range(parser.num_errors)]
    described = "; ".join(_parser_error(error) for error in errors[:3]) or last_error(log)
    mend = "install a newer TensorRT" if _strongly_typed(trt) else "export with --opset 17 --layer-norm decomposed"
    raise EngineError(f"{source}: the parser of {title(trt)} refuses the graph: {described}; {mend}")


def _parser_error(error: Any) -> str:
    """A parser's error, with the node's name where the version tells it."""
    name = error.node_name() if hasattr(error, "node_name") else ""
    operator = error.node_operator() if hasattr(error, "node_operator") else ""
    node = f"node {error.node()}" + (f" {name}" if name else "") + (f" ({operator})" if operator else "")
    return f"{node}: {' '.join(error.desc().split())}"


def _configure(trt: Any, config: Any, options: BuildOptions) -> None:
    """Sets what does not depend on the graph.

    Raises:
        EngineError: this TensorRT lacks an option that was asked for.
    """
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_mib << 20)
    config.clear_flag(trt.BuilderFlag.TF32)  # float32 in the manifest means float32
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    tactics = trt.TacticSource.__members__.items()
    if not config.set_tactic_sources(sum(1 << int(value) for name, value in tactics if name not in SHUNNED_TACTICS)):
        raise EngineError(f"{title(trt)} refuses to leave out {', '.join(SHUNNED_TACTICS)}; {_REPORT}")
    if hasattr(config, "builder_optimization_level"):
        config.builder_optimization_level = options.optimization_level
    for name in ("FASTER_DYNAMIC_SHAPES_0805", "DISABLE_EXTERNAL_TACTIC_SOURCES_FOR_CORE_0805"):
        if hasattr(trt.PreviewFeature, name):
            config.set_preview_feature(getattr(trt.PreviewFeature, name), True)
    if options.version_compatible:
        config.set_flag(_wanted(trt, trt.BuilderFlag, "VERSION_COMPATIBLE", "version-compatible engines"))
    if options.weight_stripped:
        config.set_flag(_wanted(trt, trt.BuilderFlag, "STRIP_PLAN", "weight-stripped engines"))
        config.set_flag(trt.BuilderFlag.REFIT_IDENTICAL)
    if options.hardware != "this-gpu":
        names = {"same-compute-capability": "SAME_COMPUTE_CAPABILITY", "ampere-and-newer": "AMPERE_PLUS"}
        levels = getattr(trt, "HardwareCompatibilityLevel", None)
        what = f"engines for {options.hardware}"
        config.hardware_compatibility_level = _wanted(trt, levels, names[options.hardware], what)
    if options.compute_capabilities:
        set_targets(trt, config, options.compute_capabilities)


def _wanted(trt: Any, kinds: Any, name: str, what: str) -> Any:
    if not hasattr(kinds, name):
        raise EngineError(f"{title(trt)} has no {what}; leave the option out or install a newer one")
    return getattr(kinds, name)


def _constrain(trt: Any, network: Any, config: Any, precision: EnginePrecision) -> None:
    """Allows half precision where networks are weakly typed, and holds every layer to the type it has in the graph."""
    weak = hasattr(trt.BuilderFlag, "OBEY_PRECISION_CONSTRAINTS") and not _strongly_typed(trt)
    if not weak or precision == "fp32":
        return
    if precision == "int8":  # the graph says what is quantised
        config.set_flag(trt.BuilderFlag.INT8)
        return
    config.set_flag(trt.BuilderFlag.FP16)
    config.set_flag(trt.BuilderFlag.OBEY_PRECISION_CONSTRAINTS)
    floating = (trt.DataType.FLOAT, trt.DataType.HALF)
    for i in range(network.num_layers):
        layer = network.get_layer(i)
        outputs = [layer.get_output(k) for k in range(layer.num_outputs)]
        kinds = {output.dtype for output in outputs}
        if layer.type.name in _UNTYPED or len(kinds) != 1 or not kinds <= set(floating):
            continue
        layer.precision = outputs[0].dtype
        for k, output in enumerate(outputs):
            layer.set_output_type(k, output.dtype)


def _profile(builder: Any, profile: ShapeProfile) -> Any:
    made = builder.create_optimization_profile()
    for name, (low, usual, high) in profile.shapes.items():
        made.set_shape(name, low, usual, high)
    return made


def _reasons(log: Any, began: int) -> str:
    """The last errors that TensorRT logged since it had logged `began` of them, and what may help."""
    new = log.error_count - began
    errors = log.errors[-new:] if new else log.problems
    said = "; ".join(" ".join(message.split()) for message in errors[-3:]) or "it gives no reason"
    text = said.lower()
    if "memory" in text or "workspace" in text:
        return f"{said}; lower --workspace or take a smaller --profile, and close what else uses the GPU"
    if "plugin" in text:
        return f"{said}; build without --plugins"
    return f"{said}; its whole log lies beside the engines"


@contextlib.contextmanager
def _progress(trt: Any, config: Any, source: str, *, show: bool) -> Iterator[None]:
    """A bar on standard error: TensorRT's own phases where it reports them, else the seconds that pass."""
    with tqdm(desc=f"build {source}", unit="step", disable=not show) as bar:
        if hasattr(config, "progress_monitor"):
            config.progress_monitor = _monitor(trt, bar)
            yield
            return
        done = threading.Event()
        ticker = threading.Thread(target=_tick, args=(bar, done), daemon=True)
        bar.unit = "s"
        ticker.start()
        try:
            yield
        finally:
            done.set()
            ticker.join()


def _tick(bar: Any, done: threading.Event) -> None:
    began = time.monotonic()
    while not done.wait(1):
        bar.n = int(time.monotonic() - began)
        bar.refresh()


def _monitor(trt: Any, bar: Any) -> Any:
    assert hasattr(trt, "IProgressMonitor")  # it came with the setting

    class Monitor(trt.IProgressMonitor):
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            bar.set_postfix_str(phase_name, refresh=False)
            bar.total = (bar.total or 0) + num_steps

        def step_complete(self, phase_name: str, step: int) -> bool:
            bar.update()
            return True

        def phase_finish(self, phase_name: str) -> None:
            bar.refresh()

    return Monitor()
