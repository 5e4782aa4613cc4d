"""Listings of TensorRT's Python API: what names, members and signatures a version has.

    python tests/tensorrt_listing.py tests/data/tensorrt/api_11.4.json

writes the listing of the installed `tensorrt`; only importing is needed, no GPU.
"""

from __future__ import annotations

import enum
import importlib
import inspect
import json
import re
import sys
from pathlib import Path
from typing import Any

DATA = Path(__file__).parent / "data" / "tensorrt"
VERSIONS = ("8.5", "10.3", "10.13", "11.4")
MODULES = ("tensorrt", "tensorrt.plugin")


def listing(version: str) -> dict[str, Any]:
    """Of a version: its `modules`, each with classes, which have `members` or `attributes`, and functions."""
    return json.loads((DATA / f"api_{version}.json").read_text())


def operators(version: str) -> dict[str, dict[str, Any]]:
    """What the ONNX parser of 8.5, 10.1 or 10.15 says of each operator."""
    return json.loads((DATA / f"onnx_ops_{version}.json").read_text())["ops"]


def dump() -> dict[str, Any]:
    """The installed version's listing."""
    found = {}
    for name in MODULES:
        try:
            module = importlib.import_module(name)
        except ImportError:
            continue
        public = {key: value for key, value in sorted(vars(module).items()) if key[0] != "_"}
        found[name] = {key: _described(value) for key, value in public.items() if not inspect.ismodule(value)}
        for key, value in public.items():
            found[name] |= {f"{key}.{inner}": _described(kind) for inner, kind in _enums_within(value)}
    return {"version": importlib.import_module("tensorrt").__version__, "modules": found}


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
    Path(sys.argv[1]).write_text(json.dumps(dump(), indent=0, sort_keys=True) + "\n")
