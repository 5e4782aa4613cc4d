"""Import rules of the folders, and what importing the package costs."""

from __future__ import annotations

import ast
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = {"pcaseg": ROOT / "pcaseg"} | {f"pcaseg.{name}": ROOT / name for name in ("kernels", "export", "benchmarks")}

BASE = {"pcaseg"} | {
    f"pcaseg.{name}"
    for name in (
        "arguments",
        "class_lists",
        "class_names",
        "configs",
        "environment",
        "errors",
        "files",
        "images",
        "text_tables",
        "typed_json",
        "versions",
    )
}
TORCH_SIDE = {"torch", "torchvision", "open_clip", "timm", "triton", "onnx", "onnxscript"}
MAY_IMPORT = {
    "pcaseg.model": {"pcaseg.model"},
    "pcaseg.deploy": {"pcaseg.deploy", "pcaseg.model", "pcaseg.kernels"},
    "pcaseg.training": {"pcaseg.training", "pcaseg.data", "pcaseg.model"},
    "pcaseg.runtime": {"pcaseg.runtime"},
    "pcaseg.kernels": {"pcaseg.kernels"},
    "pcaseg.data": {"pcaseg.data", "pcaseg.model"},
    "pcaseg.export": {"pcaseg.export", "pcaseg.deploy", "pcaseg.runtime", "pcaseg.kernels", "pcaseg.model"},
    "pcaseg.evaluation": {
        f"pcaseg.{name}" for name in ("evaluation", "model", "deploy", "kernels", "data", "runtime", "export")
    },
}
"""What each package may import of this project beside `BASE`; benchmarks and the command line may import all."""


def modules() -> dict[str, Path]:
    found = {}
    for package, folder in FOLDERS.items():
        for path in folder.rglob("*.py"):
            parts = path.relative_to(folder).with_suffix("").parts
            found[".".join([package, *(part for part in parts if part != "__init__")])] = path
    return found


def imports_of(path: Path) -> set[str]:
    """Every module that a file imports at run time, at the top or within functions."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing_only = {
        id(child)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        for child in ast.walk(node)
    }
    names = set()
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add(node.module)
    return names


@pytest.mark.parametrize("module", sorted(modules()))
def test_import_rules(module):
    imported = imports_of(modules()[module])
    package = next((name for name in MAY_IMPORT if module == name or module.startswith(name + ".")), None)
    if package is not None:
        allowed = BASE | MAY_IMPORT[package]
        for name in imported:
            if name.split(".")[0] == "pcaseg" and name not in BASE:
                assert any(name == other or name.startswith(other + ".") for other in allowed - {"pcaseg"}), name
    if package in (None, "pcaseg.runtime") and module.split(".")[1:2] not in (["benchmarks"], ["cli"], ["commands"]):
        assert not {name.split(".")[0] for name in imported} & TORCH_SIDE


@pytest.mark.timing
def test_import_is_light_and_fast():
    """Under 0.3 s for a warm interpreter; the median of five, since other work may share the machine."""
    code = (
        "import sys, time; start = time.perf_counter(); import pcaseg; took = time.perf_counter() - start\n"
        "assert not {'torch', 'onnxruntime', 'tokenizers', 'numpy'} & set(sys.modules), 'heavy import'\n"
        "print(took)"
    )
    seconds = [float(subprocess.check_output([sys.executable, "-c", code])) for _ in range(5)]
    assert statistics.median(seconds) < 0.3


def test_command_line_starts_without_torch():
    code = (
        "import sys; sys.modules['torch'] = None; sys.modules['onnxruntime'] = None\n"
        "from pcaseg.cli import main; assert main(['presets']) == 0"
    )
    assert "eva-b-384" in subprocess.check_output([sys.executable, "-c", code], text=True)


def test_missing_package_names_the_extra():
    code = "import sys; sys.modules['torch'] = None\nimport pcaseg\npcaseg.load_model"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode != 0
    assert 'pip install ".[torch]"' in run.stderr


def test_project_speaks_of_itself_alone():
    """No path of a developer's machine in what is shipped."""
    for path in modules().values():
        assert str(ROOT) not in path.read_text(encoding="utf-8"), path
