"""Names and sizes: a class name means one thing in the whole package, and a file is short enough to be read."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parent.parent
FOLDERS = ("pcaseg", "kernels", "export", "benchmarks")
MOST_LINES = 400


def sources() -> list[Path]:
    """Every file of the package once: the links within `pcaseg` are left out."""
    found = {path.resolve() for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")}
    assert len(found) > 150, "the folders are not where this test looks"
    return sorted(found)


def public_classes(source: str) -> list[str]:
    """Names of the classes of a module that others may use."""
    classes = [node.name for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ClassDef)]
    return [name for name in classes if not name.startswith("_")]


def test_every_class_has_a_name_of_its_own():
    places = defaultdict(list)
    for path in sources():
        for name in public_classes(path.read_text(encoding="utf-8")):
            places[name].append(str(path.relative_to(ROOT)))
    assert {name: paths for name, paths in places.items() if len(paths) > 1} == {}


def test_no_file_is_longer_than_can_be_read():
    others = [path for pattern in ("tests/**/*.py", "export/**/*.cpp", "export/**/*.h") for path in ROOT.glob(pattern)]
    assert len(others) > 80
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in (*sources(), *others)}
    assert {str(path.relative_to(ROOT)): n for path, n in lengths.items() if n > MOST_LINES} == {}


def test_classes_within_functions_and_classes_count():
    assert public_classes("class A:\n    class B: ...\ndef f():\n    class C: ...\nclass _D: ...") == ["A", "B", "C"]


NO_NOUN_OR_VERB = ("How", "Of", "What", "When", "Where", "Whether", "Which", "Who")


def docstrings(source: str) -> list[str]:
    """First lines of the docstrings of a module, its classes and its functions."""
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    found = [ast.get_docstring(node) for node in ast.walk(ast.parse(source)) if isinstance(node, kinds)]
    return [text.partition("\n")[0] for text in found if text]


def test_docstrings_begin_with_a_noun_or_a_verb():
    assert docstrings('"""What it is."""\nclass A:\n    """Of a."""') == ["What it is.", "Of a."]
    lines = {str(path.relative_to(ROOT)): docstrings(path.read_text(encoding="utf-8")) for path in sources()}
    wrong = [(path, line) for path, found in lines.items() for line in found if line.split()[0] in NO_NOUN_OR_VERB]
    assert wrong == []
