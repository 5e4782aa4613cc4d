"""Every name of TensorRT's API that the code uses exists in each version it claims, or is asked for first.

Uses are found in the syntax tree: chains that begin at the module (`trt.BuilderFlag.TF32`) and attributes of variables
whose class is known by the variable's name. A use that a version lacks must stand in a function that asks, by `hasattr`
or `getattr`, for a name which that version lacks too; the number of arguments must fit every listed signature.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from tensorrt_fake import arity
from tensorrt_listing import VERSIONS, listing

ROOT = Path(__file__).parent.parent
LISTINGS = {version: listing(version)["modules"] for version in VERSIONS}
CLASSES = {
    "builder": "Builder",
    "network": "INetworkDefinition",
    "config": "IBuilderConfig",
    "parser": "OnnxParser",
    "error": "ParserError",
    "layer": "ILayer",
    "output": "ITensor",
    "made": "IOptimizationProfile",
    "runtime": "Runtime",
    "engine": "ICudaEngine",
    "raw": "ICudaEngine",
    "context": "IExecutionContext",
    "refitter": "Refitter",
}
"""What a variable of that name holds, in the files of `USERS`."""

OURS = {
    "engine": {
        "dtypes",
        "choose",
        "lane",
        "driver",
        "close",
        "inputs",
        "outputs",
        "profiles",
        "plan",
        "sidecar",
        "read",
    },
    "layer": {"get"},
    "error": {"strerror"},
}
"""Attributes of what else bears these names: this project's engines, the inspector's JSON, Python's own errors."""

SPECIAL = {"desc", "node"} | {"__version__", "__name__", "__members__", "__init__", "Severity", "name"}


def users() -> list[Path]:
    """The files that use TensorRT."""
    folders = (ROOT / "export" / "tensorrt", ROOT / "pcaseg" / "runtime", ROOT / "benchmarks")
    return [path for folder in folders for path in sorted(folder.rglob("*.py")) if "trt" in path.read_text()]


class Use:
    """One attribute of one class (or of the module), where it is used, and what is asked for around it."""

    def __init__(self, where: str, owner: str, name: str, asked: set[str], call: ast.Call | None) -> None:
        self.where, self.owner, self.name, self.asked, self.call = where, owner, name, asked, call


def uses_in(source: str, path: str) -> Iterator[Use]:
    tree = ast.parse(source)
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    outer = [f for f in functions if not any(f is not g and f in ast.walk(g) for g in functions)]
    for function in outer:
        asked = set(asked_for(function))
        calls = {id(node.func): node for node in ast.walk(function) if isinstance(node, ast.Call)}
        stored = {id(t) for n in ast.walk(function) if isinstance(n, ast.Assign) for t in n.targets}
        for node in ast.walk(function):
            if not isinstance(node, ast.Attribute) or node.attr.startswith("_"):
                continue
            owner = owner_of(node.value)
            if owner is None or node.attr in OURS.get(getattr(node.value, "id", ""), set()) | SPECIAL:
                continue
            call = None if id(node) in stored else calls.get(id(node))
            yield Use(f"{path}:{node.lineno}", owner, node.attr, asked, call)


def owner_of(value: ast.expr) -> str | None:
    """`` for the module, a class's name, or None for what is no part of TensorRT."""
    if isinstance(value, ast.Name):
        return "" if value.id == "trt" else CLASSES.get(value.id)
    if isinstance(value, ast.Attribute):
        if isinstance(value.value, ast.Name) and value.value.id == "trt":
            return value.attr
        if value.attr == "Severity":
            return "ILogger.Severity"
        if value.attr == "_trt" or value.attr == "trt":
            return ""
        if value.attr == "engine" and isinstance(value.value, ast.Name) and value.value.id in ("self",):
            return "ICudaEngine"
    return None


def asked_for(function: ast.FunctionDef) -> Iterator[str]:
    """Names that a function asks for: hasattr, getattr, `_wanted`; and those it loops over to ask."""
    for node in ast.walk(function):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("hasattr", "getattr", "_wanted"):
            yield from (a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "_strongly_typed":
            yield "STRONGLY_TYPED"


def exists(version: str, owner: str, name: str) -> bool:
    classes = LISTINGS[version]["tensorrt"]
    if not owner:
        return name in classes or name in ("init_libnvinfer_plugins",)
    entry = classes.get(owner, {})
    return name in entry.get("members", {}) or name in entry.get("attributes", {})


def anywhere(version: str, name: str) -> bool:
    """Whether any class or enum of a version has that name."""
    classes = LISTINGS[version]["tensorrt"]
    return name in classes or any(
        name in entry.get("members", ()) or name in entry.get("attributes", ()) for entry in classes.values()
    )


def faults(source: str, path: str = "x.py") -> list[str]:
    """Uses that some version would refuse."""
    found = []
    for use in uses_in(source, path):
        known = [version for version in VERSIONS if exists(version, use.owner, use.name)]
        if not known:
            found.append(f"{use.where}: no version has {use.owner}.{use.name}")
            continue
        for version in set(VERSIONS) - set(known):
            if not any(not anywhere(version, name) for name in use.asked):
                found.append(f"{use.where}: {version} has no {use.owner}.{use.name}, and nothing asks for it")
        found += [text for version in known if (text := wrong_call(version, use))]
    return found


def wrong_call(version: str, use: Use) -> str | None:
    """What is wrong with the number of arguments."""
    entry = LISTINGS[version]["tensorrt"].get(use.owner, {})
    signatures = entry.get("attributes", {}).get(use.name) or []
    if use.call is None or not signatures or any(isinstance(a, ast.Starred) for a in use.call.args):
        return None
    given = len(use.call.args) + len(use.call.keywords)
    if any(low <= given <= high for low, high in map(arity, signatures)):
        return None
    return f"{use.where}: {use.owner}.{use.name} of {version} takes {signatures}, {given} arguments are given"


@pytest.mark.parametrize("path", users(), ids=lambda path: path.stem)
def test_every_use_exists(path):
    assert not faults(path.read_text(encoding="utf-8"), path.name)


def test_names_that_are_asked_for_exist_somewhere():
    for path in users():
        for function in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(function, ast.FunctionDef) and "tensorrt" in str(path):
                for name in asked_for(function):
                    if name.isidentifier() and name.isupper():
                        assert any(anywhere(version, name) for version in VERSIONS), f"{path.name}: {name}"


def test_the_builder_is_seen():
    """The walk finds what is there: else the tests above would pass on nothing."""
    path = ROOT / "export" / "tensorrt" / "network.py"
    found = {(use.owner, use.name) for use in uses_in(path.read_text(), "network.py")}
    assert {
        ("Builder", "build_serialized_network"),
        ("IBuilderConfig", "set_timing_cache"),
        ("BuilderFlag", "TF32"),
        ("BuilderFlag", "FP16"),
        ("", "OnnxParser"),
        ("ILayer", "set_output_type"),
        ("IOptimizationProfile", "set_shape"),
    } <= found
    assert len(found) > 40


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("config.set_flag(trt.BuilderFlag.FP17)", "no version has BuilderFlag.FP17"),
        ("config.set_flag(trt.BuilderFlag.FP16)", "11.4 has no BuilderFlag.FP16"),
        ("config.max_workspace_bytes = 3", "no version has IBuilderConfig.max_workspace_bytes"),
        ("config.progress_monitor = monitor", "8.5 has no IBuilderConfig.progress_monitor"),
        ("engine.device_memory_size", "11.4 has no ICudaEngine.device_memory_size"),
        ("context.set_input_shape('image')", "takes"),
        ("network.add_plugin_v3(a, b)", "8.5 has no INetworkDefinition.add_plugin_v3"),
        ("trt.Bilder(log)", "no version has .Bilder"),
    ],
)
def test_a_planted_fault_is_found(line, fault):
    assert fault in " ".join(faults(f"def f(trt, config, engine, context, network, log):\n    {line}\n"))


def test_what_is_asked_for_is_allowed():
    asked = (
        "def f(trt, config):\n    if hasattr(trt.BuilderFlag, 'FP16'):\n        config.set_flag(trt.BuilderFlag.FP16)\n"
    )
    assert not faults(asked)
