"""Listings of TensorRT's Python API: what names, members and signatures a version has.

    python tests/tensorrt_listing.py tests/data/tensorrt/api_11.4.json
    python tests/tensorrt_listing.py tests/data/tensorrt/api_rtx-1.7.json tensorrt_rtx

writes the listing of the installed `tensorrt`, or of TensorRT-RTX under the same names; no GPU is needed.
"""

from __future__ import annotations

import ast
import enum
import importlib
import inspect
import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

DATA = Path(__file__).parent / "data" / "tensorrt"
VERSIONS = ("8.5", "10.3", "10.13", "11.4")
RTX = "rtx-1.7"
LISTINGS = (*VERSIONS, RTX)
MODULES = ("tensorrt", "tensorrt.plugin")


def listing(version: str) -> dict[str, Any]:
    """Of a version: its `modules`, each with classes, which have `members` or `attributes`, and functions."""
    return json.loads((DATA / f"api_{version}.json").read_text())


def operators(version: str) -> dict[str, dict[str, Any]]:
    """What the ONNX parser of 8.5, 10.1 or 10.15 says of each operator."""
    return json.loads((DATA / f"onnx_ops_{version}.json").read_text())["ops"]


def parameters(signature: str) -> list[tuple[str, bool]]:
    """Names of a signature's arguments, self left out, and whether each must be given.

    >>> parameters("parse(self: tensorrt.OnnxParser, model: buffer, path: str = None) -> bool")
    [('model', True), ('path', False)]
    """
    depth, parts = 0, [""]
    for letter in signature[signature.index("(") + 1 :]:
        if letter == ")" and depth == 0:
            break
        depth += (letter in "([{<") - (letter in ")]}>")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    names = [part.strip() for part in parts if part.strip() and not re.match(r"\s*(self\b|/|\*)", part)]
    return [(re.split(r"[:=]", name)[0].strip(), "=" not in name) for name in names]


def arity(signature: str) -> tuple[int, int]:
    """Fewest and most arguments of a signature, self left out."""
    listed = parameters(signature)
    return sum(required for _, required in listed), len(listed)


@dataclass(frozen=True)
class Held:
    """What an expression is: a module or an object of a class (or a list of such), or a class itself."""

    name: str
    kind: str  # "module", "object", "class", "member" or "list"


class Api:
    """The names of one version."""

    def __init__(self, version: str) -> None:
        self.version, self.modules = version, listing(version)["modules"]

    def entry(self, held: Held) -> dict[str, Any]:
        """Of a class, with `attributes` or `members`."""
        return next((names[held.name] for names in self.modules.values() if held.name in names), {})

    def has(self, held: Held, name: str) -> bool:
        if held.kind == "module":
            return name in self.modules.get(held.name, {}) or name.startswith("__")
        entry = self.entry(held)
        nested = any(f"{held.name}.{name}" in names for names in self.modules.values())
        return name in entry.get("attributes", {}) or name in entry.get("members", {}) or nested or name[:2] == "__"

    def get(self, held: Held, name: str) -> Held | None:
        """What an attribute is, if it has to be followed further."""
        if held.kind == "module":
            found = self.modules.get(held.name, {}).get(name, {})
            return Held(name, "class") if "members" in found or "attributes" in found else None
        if any(f"{held.name}.{name}" in names for names in self.modules.values()):
            return Held(f"{held.name}.{name}", "class")
        return Held(held.name, "member") if name in self.entry(held).get("members", {}) else None

    def signatures(self, held: Held, name: str | None) -> list[str]:
        """Of a method or function; with no name, of making an object."""
        if name is None:
            return self.entry(held).get("init", [])
        if held.kind == "module":
            found = self.modules.get(held.name, {}).get(name, {})
            return found.get("signatures", found.get("init", []))
        return self.entry(held).get("attributes", {}).get(name, [])

    def returned(self, held: Held, name: str) -> Held | None:
        for signature in self.signatures(held, name):
            found = re.search(r"-> (?:tensorrt\.|nvinfer1::)*(\w+)$", signature)
            for known in (found[1], found[1].removeprefix("I")) if found else ():
                if entry := self.entry(Held(known, "object")):
                    return Held(known, "member" if "members" in entry else "object")
        return None


def wrong_call(signatures: list[str], call: ast.Call) -> bool:
    """Whether no signature takes these arguments: by number, and keywords by name."""
    if not signatures or any(isinstance(item, ast.Starred) for item in call.args):
        return False
    keywords = {keyword.arg for keyword in call.keywords if keyword.arg}
    for signature in signatures:
        listed = parameters(signature)
        behind = listed[len(call.args) :]
        names = {name for name, _ in behind}
        needed = {name for name, required in behind if required}
        if len(call.args) <= len(listed) and keywords <= names and needed <= keywords:
            return False
    return True


def dump(package: str = "tensorrt") -> dict[str, Any]:
    """The installed version's listing."""
    found = {}
    for name in MODULES:
        try:
            module = importlib.import_module(name.replace("tensorrt", package))
        except (
            ImportError,
            AttributeError,
        ):  # TensorRT-RTX brings a plugin module that cannot be imported
            continue
        public = {key: value for key, value in sorted(vars(module).items()) if key[0] != "_"}
        found[name] = {key: _described(value) for key, value in public.items() if type(value) is not ModuleType}
        for key, value in public.items():
            found[name] |= {f"{key}.{inner}": _described(kind) for inner, kind in _enums_within(value)}
    return {"version": importlib.import_module(package).__version__, "modules": found}


def _described(value: Any) -> Any:
    if not isinstance(value, type):
        return {"signatures": _signatures(value)} if callable(value) else {"value": type(value).__name__}
    members = getattr(value, "__members__", None)
    if members is not None or issubclass(value, enum.Enum):
        return {"members": {name: int(member) for name, member in members.items()}}
    names = {name for base in value.__mro__[:-1] for name in vars(base) if name[0] != "_"}
    attributes = {name: _signatures(inspect.getattr_static(value, name)) for name in sorted(names)}
    return {"attributes": attributes, "init": _signatures(vars(value).get("__init__"))}


def _enums_within(value: Any) -> list[tuple[str, Any]]:
    """`ILogger.Severity` and its like."""
    inner = vars(value).items() if isinstance(value, type) and not hasattr(value, "__members__") else ()
    return [(name, kind) for name, kind in inner if isinstance(kind, type) and hasattr(kind, "__members__")]


def _signatures(value: Any) -> list[str]:
    """Those that compiled bindings write into the docstring, or a Python function's own; of properties none."""
    if isinstance(value, staticmethod):
        value = value.__func__
    if inspect.isfunction(value):
        parameters = [p.replace(annotation=p.empty) for p in inspect.signature(value).parameters.values()]
        return [f"{value.__name__}{inspect.Signature(parameters)}"]
    lines = (getattr(value, "__doc__", None) or "").splitlines()
    name = getattr(value, "__name__", "")
    if isinstance(value, property) or not name:
        return []
    return [
        re.sub(r"^\d+\. ", "", line) for line in lines if re.match(rf"(\d+\. )?{name}\(", line) and "*args" not in line
    ]


if __name__ == "__main__":
    text = json.dumps(dump(*sys.argv[2:]), indent=0, sort_keys=True)
    Path(sys.argv[1]).write_text(text.replace("tensorrt_rtx_bindings.tensorrt_rtx.", "tensorrt.tensorrt.") + "\n")
