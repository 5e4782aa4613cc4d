"""Import rules of the folders, and what importing the package costs."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import pcaseg

ROOT = Path(__file__).parent.parent
FOLDERS = {"pcaseg": ROOT / "pcaseg"} | {f"pcaseg.{name}": ROOT / name for name in ("kernels", "export", "benchmarks")}

BASE = {
    "arguments",
    "class_lists",
    "class_names",
    "class_syntax",
    "cleaning",
    "configs",
    "environment",
    "errors",
    "files",
    "image_files",
    "images",
    "paths",
    "pictures",
    "stand_ins",
    "streams",
    "text_files",
    "text_tables",
    "typed_json",
    "versions",
}
"""Modules that all others may import; they import no package of the project."""

MAY_IMPORT = {
    "kernels": {"kernels"},
    "model": {"model"},
    "deploy": {"deploy", "model", "kernels"},
    "data": {"data", "model"},
    "training": {"training", "data", "model"},
    "runtime": {"runtime"},
    "serving": {"serving", "runtime"},
    "export": {"export", "deploy", "runtime", "kernels", "model"},
    "evaluation": {"evaluation", "model", "deploy", "data", "runtime", "export", "kernels"},
    "doctor": {"runtime", "kernels"},
}
MAY_IMPORT["benchmarks"] = {*MAY_IMPORT["evaluation"], "benchmarks", "serving", "training"}
MAY_IMPORT["commands"] = {*MAY_IMPORT["benchmarks"], "commands", "doctor", "serving"}
MAY_IMPORT["cli"] = {"commands"}
MAY_IMPORT["__main__"] = {"cli"}
MAY_IMPORT[""] = MAY_IMPORT["benchmarks"]  # `pcaseg` itself, whose public names are loaded when they are first used
"""What each package or module of the project may name of it beside `BASE`."""

TORCH_SIDE = {"torch", "torchvision", "open_clip", "timm", "triton", "onnx", "onnxscript"}
WITHOUT_TORCH = {"runtime", "serving", "doctor", "", *BASE}


def modules() -> dict[str, Path]:
    found = {}
    for package, folder in FOLDERS.items():
        for path in folder.rglob("*.py"):
            parts = path.relative_to(folder).with_suffix("").parts
            found[".".join([package, *(part for part in parts if part != "__init__")])] = path
    return found


def named_in(source: str) -> set[str]:
    """Every module that a file imports at run time, wherever it does, or names in a string that is no docstring."""
    tree = ast.parse(source)
    skipped = set()
    for node in ast.walk(tree):
        typing_only = isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if typing_only or docstring:
            skipped |= {id(child) for child in ast.walk(node)}
    names = set()
    for node in ast.walk(tree):
        if id(node) not in skipped:
            names |= _named_by(node)
    return names


def _named_by(node: ast.AST) -> set[str]:
    if isinstance(node, ast.Import):
        return {alias.name for alias in node.names}
    if isinstance(node, ast.ImportFrom):
        assert node.level == 0, "relative import"
        if node.module == "pcaseg":  # a package, a public name, or a plain one
            return {_public(alias.name) or f"pcaseg.{alias.name}" for alias in node.names}
        return {str(node.module)}
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "pcaseg":
        return {name for name in [_public(node.attr)] if name}
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return set(re.findall(r"\bpcaseg(?:\.[A-Za-z_]\w*)+", node.value))
    return set()


def _public(name: str) -> str | None:
    """The module that holds a public name of `pcaseg` that is loaded late."""
    return pcaseg._LAZY[name][0] if name in pcaseg._LAZY else None


def wrong_names(module: str, source: str) -> set[str]:
    """The modules of the project that a module names and may not."""
    own = module.partition(".")[2].partition(".")[0]
    allowed = MAY_IMPORT.get(own, set()) | BASE
    tops = {name: name.split(".")[1] for name in named_in(source) if name.startswith("pcaseg.")}
    return {name for name, top in tops.items() if top in KNOWN and top not in allowed}


KNOWN = {module.split(".")[1] for module in modules() if "." in module}


def test_the_table_names_every_package():
    assert BASE | (MAY_IMPORT.keys() - {""}) == KNOWN


@pytest.mark.parametrize("module", sorted(modules()))
def test_import_rules(module):
    source = modules()[module].read_text(encoding="utf-8")
    assert not wrong_names(module, source)
    if module.partition(".")[2].partition(".")[0] in WITHOUT_TORCH:
        assert not {name.split(".")[0] for name in named_in(source)} & TORCH_SIDE


@pytest.mark.parametrize(
    ("module", "source", "wrong"),
    [
        ("pcaseg.runtime.x", "def f():\n    from pcaseg.export.bundle import g", {"pcaseg.export.bundle"}),
        ("pcaseg.runtime.x", "A = 'pcaseg.export.torch_backend:B'", {"pcaseg.export.torch_backend"}),
        ("pcaseg.runtime.x", "import_module('pcaseg.model')", {"pcaseg.model"}),
        ("pcaseg.runtime.x", "import_module(f'pcaseg.kernels.{name}')", {"pcaseg.kernels"}),
        ("pcaseg.runtime.x", "from pcaseg import export", {"pcaseg.export"}),
        ("pcaseg.runtime.x", "import pcaseg\npcaseg.load_model('tiny')", {"pcaseg.model.checkpoint"}),
        ("pcaseg.files", "import pcaseg.runtime.bundle", {"pcaseg.runtime.bundle"}),
        ("pcaseg.benchmarks.bench", "from pcaseg.commands.options import gate", {"pcaseg.commands.options"}),
        ("pcaseg", "_LAZY = {'main': ('pcaseg.cli', '')}", {"pcaseg.cli"}),
        ("pcaseg.runtime.x", '"""See pcaseg.export.bundle."""\nA = 1\n"""As `pcaseg.model.names`."""', set()),
        ("pcaseg.runtime.x", "if TYPE_CHECKING:\n    from pcaseg.model.pcaseg import PCASeg", set()),
        ("pcaseg.evaluation.x", "from pcaseg.runtime.bundle import Bundle\nA = 'pcaseg.export.bundle'", set()),
        ("pcaseg.runtime.x", "from pcaseg import __version__\nA = 'scene.pcaseg.zip'", set()),
    ],
)
def test_what_the_rules_refuse(module, source, wrong):
    assert wrong_names(module, source) == wrong


@pytest.mark.timing
def test_import_is_light_and_fast():
    """Under 0.3 s of processor time in a warm interpreter; the least of five, since others may share the machine."""
    code = (
        "import sys, time; start = time.process_time(); import pcaseg; took = time.process_time() - start\n"
        "assert not {'torch', 'onnxruntime', 'tokenizers', 'numpy'} & set(sys.modules), 'heavy import'\n"
        "print(took)"
    )
    seconds = [float(subprocess.check_output([sys.executable, "-c", code])) for _ in range(5)]
    assert min(seconds) < 0.3


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


def test_every_public_name_is_there():
    for name in pcaseg.__all__:
        assert getattr(pcaseg, name).__doc__, name
    assert set(pcaseg._LAZY) <= set(pcaseg.__all__)
