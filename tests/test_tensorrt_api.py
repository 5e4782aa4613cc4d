"""Every name of TensorRT's API that the code uses exists in each version that gets to it, with those arguments."""

from __future__ import annotations

from pathlib import Path

import pytest
from tensorrt_listing import LISTINGS, VERSIONS, Api, listing, wrong_call
from tensorrt_uses import Walker

ROOT = Path(__file__).parent.parent
FOLDERS = ("export", "pcaseg/runtime", "pcaseg/commands", "benchmarks", "kernels")


def users() -> list[Path]:
    """The files that use TensorRT."""
    files = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
    return [path for path in files if any(word in path.read_text() for word in ("trt.", "trtp", "engine: Any"))]


def faults(source: str, path: str = "x.py") -> list[str]:
    """Uses that some version that gets there would refuse, and questions for what no version has."""
    found = []
    for version in LISTINGS:
        walker = Walker(source, version)
        for use in walker.walk():
            where, what = f"{path}:{use.line}", f"{use.owner.name}.{use.name}"
            if not walker.api.has(use.owner, use.name):
                found.append(f"{where}: {version} has no {what}, and gets there")
            elif use.call is not None and wrong_call(walker.api.signatures(use.owner, use.name), use.call):
                found.append(f"{where}: {what} of {version} takes no such arguments")
    for line, held, name in walker.questions():
        if not any(Api(version).has(held, name) for version in LISTINGS):
            found.append(f"{path}:{line}: no version has {held.name}.{name}")
    return found


@pytest.mark.parametrize("path", users(), ids=lambda path: path.stem)
def test_every_use_exists(path):
    assert not faults(path.read_text(encoding="utf-8"), path.name)


SEEN = {
    "export/tensorrt/builder.py": {
        "Builder.build_serialized_network",
        "Builder.create_network",
        "BuilderFlag.FP16",
        "BuilderFlag.TF32",
        "IBuilderConfig.progress_monitor",
        "IBuilderConfig.set_timing_cache",
        "ILayer.set_output_type",
        "INetworkDefinition.num_layers",
        "IOptimizationProfile.set_shape",
        "IProgressMonitor",
        "ITensor.dtype",
        "ITimingCache.serialize",
        "OnnxParser.get_error",
        "ParserError.node_name",
        "tensorrt.OnnxParser",
    },
    "export/tensorrt/inspection.py": {"EngineInspector.get_engine_information", "IExecutionContext.profiler"},
    "export/tensorrt/refit.py": {"Refitter.refit_cuda_engine", "OnnxParserRefitter.refit_from_bytes"},
    "export/plugins/qdp.py": {
        "KernelLaunchParams.grid_x",
        "tensorrt.plugin.SymInt32",
        "tensorrt.plugin.aot_impl",
        "tensorrt.plugin.from_shape_expr",
        "tensorrt.plugin.register",
    },
    "pcaseg/runtime/tensorrt_api.py": {"Runtime.deserialize_cuda_engine", "Severity.WARNING"},
    "pcaseg/runtime/tensorrt_engine.py": {
        "ICudaEngine.create_execution_context",
        "ICudaEngine.get_tensor_dtype",
        "IExecutionContext.execute_async_v3",
        "IExecutionContext.set_input_shape",
        "IExecutionContext.set_tensor_address",
    },
}
"""Some of what the walk has to find: else the test above would pass on nothing."""


def seen(path: str) -> set[str]:
    walkers = [Walker((ROOT / path).read_text(encoding="utf-8"), version) for version in LISTINGS]
    return {f"{use.owner.name}.{use.name}" for walker in walkers for use in walker.walk()}


@pytest.mark.parametrize("path", SEEN)
def test_the_walk_sees_what_is_there(path):
    found = seen(path)
    assert not {name for name in SEEN[path] if not any(use.endswith(name) for use in found)}


FUNCTION = "def f(trt, trtp, config, engine, network, log, size):\n    {}\n"


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("config.set_flag(trt.BuilderFlag.FP17)", "8.5 has no BuilderFlag.FP17"),
        ("config.set_flag(trt.BuilderFlag.FP16)", "11.4 has no BuilderFlag.FP16"),
        ("config.max_workspace_bytes = 3", "11.4 has no IBuilderConfig.max_workspace_bytes"),
        ("config.progress_monitor = log", "8.5 has no IBuilderConfig.progress_monitor"),
        ("engine.device_memory_size", "11.4 has no ICudaEngine.device_memory_size"),
        ("engine.create_execution_context().set_input_shape('image')", "takes no such arguments"),
        ("trt.OnnxParser(network, log).parse(b'', file='x')", "OnnxParser.parse of 10.13 takes no such arguments"),
        ("trt.OnnxParser(network)", "OnnxParser of 8.5 takes no such arguments"),
        ("network.add_plugin_v3(a, b)", "8.5 has no INetworkDefinition.add_plugin_v3"),
        ("trt.Bilder(log)", "8.5 has no tensorrt.Bilder"),
        ("trtp.aot_implement('a::b')", "10.13 has no tensorrt.plugin.aot_implement"),
        ("trtp.register('a::b', lazy=True)(f)", "plugin.register of 11.4 takes no such arguments"),
        ("for layer in [network.get_layer(0)]: layer.set_precision(1)", "8.5 has no ILayer.set_precision"),
        ("if hasattr(trt.BuilderFlag, 'FP16'): pass\n    trt.BuilderFlag.FP16", "11.4 has no BuilderFlag.FP16"),
        ("if hasattr(trt.BuilderFlag, 'INT8'): trt.BuilderFlag.BF16", "8.5 has no BuilderFlag.BF16"),
        ("if not hasattr(trt.BuilderFlag, 'FP16'): trt.BuilderFlag.FP16", "11.4 has no BuilderFlag.FP16"),
        ("if hasattr(trt.BuilderFlag, 'FP17'): pass", "no version has BuilderFlag.FP17"),
        ("for name in ('TF32', 'TF33'): hasattr(trt.BuilderFlag, name)", "no version has BuilderFlag.TF33"),
        ("_wanted(trt, trt.BuilderFlag, 'STRIP_PLANS', 'x')", "no version has BuilderFlag.STRIP_PLANS"),
        ("_wanted(trt, trt.BuilderFlag, 'FP16', 'x')\n    trt.BuilderFlag.FP8", "8.5 has no BuilderFlag.FP8"),
    ],
)
def test_a_planted_fault_is_found(line, fault):
    assert fault in " ".join(faults(FUNCTION.format(line)))


@pytest.mark.parametrize(
    "line",
    [
        "if hasattr(trt.BuilderFlag, 'FP16'): trt.BuilderFlag.FP16",
        "x = trt.BuilderFlag.FP16 if hasattr(trt.BuilderFlag, 'FP16') else 0",
        "x = hasattr(trt.BuilderFlag, 'FP16') and trt.BuilderFlag.FP16",
        "if not hasattr(trt.BuilderFlag, 'FP16'):\n        return\n    trt.BuilderFlag.FP16",
        "weak = hasattr(trt.BuilderFlag, 'FP16')\n    if not weak or size:\n        return\n    trt.BuilderFlag.FP16",
        "_wanted(trt, trt.BuilderFlag, 'STRIP_PLAN', 'x')\n    trt.BuilderFlag.REFIT_IDENTICAL",
        "x = getattr(engine, 'device_memory_size_v2', None)\n    return engine.device_memory_size if x is None else x",
        "if hasattr(trt, 'IProgressMonitor'): _g(trt)\n\ndef _g(trt):\n    return trt.IProgressMonitor",
        "if _old(trt): trt.BuilderFlag.FP16\n\ndef _old(trt):\n    return hasattr(trt.BuilderFlag, 'FP16')",
    ],
)
def test_what_is_asked_for_is_allowed(line):
    assert not faults(FUNCTION.format(line))


def test_private_functions_count_where_a_caller_gets_to_them():
    asked = "def f(trt):\n    if hasattr(trt, 'IProgressMonitor'):\n        _g(trt)\n"
    unasked = "def _g(trt):\n    trt.IProgressMonitor\n\ndef h(trt):\n    _g(trt)\n"
    assert "8.5 has no tensorrt.IProgressMonitor" in " ".join(faults(asked + unasked))


def test_listings_differ_as_they_should():
    flags = {version: set(listing(version)["modules"]["tensorrt"]["BuilderFlag"]["members"]) for version in VERSIONS}
    assert "FP16" in flags["8.5"] & flags["10.13"] and "FP16" not in flags["11.4"]
