"""Finds in a file's syntax tree what of TensorRT's API it uses, and which versions would get there.

The walk knows what variables hold: the module, objects made from it, what their methods return by the listing, and
arguments by their usual names. It decides `hasattr` and `getattr` for each version as that version would, so that a
use behind such a question counts only where the question lets it through; private functions count where some caller
gets to them.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tensorrt_listing import Api, Held

ARGUMENTS = {
    "trt": "tensorrt",
    "trtp": "tensorrt.plugin",
    "builder": "Builder",
    "network": "INetworkDefinition",
    "config": "IBuilderConfig",
    "engine": "ICudaEngine",
    "error": "ParserError",
}
"""What an argument of that name holds, where its annotation is `Any`."""

MEMBERS = {"trt": "tensorrt", "_trt": "tensorrt", "trtp": "tensorrt.plugin", "_trtp": "tensorrt.plugin"}
"""Attributes of this project's own objects that hold a module, whatever the object is called."""

RETURNS = {
    "import_tensorrt": "tensorrt",
    "import_plugin_module": "tensorrt.plugin",
    "deserialize": "ICudaEngine",
    "context": "IExecutionContext",
}
"""What functions of this project return."""

MAKERS = ("start",)
"""Functions of this project that return an object of the class they are given first."""

REQUIRERS = {"_wanted": (1, 2)}
"""Functions that raise where a class, an argument, lacks a name, the next one: nothing behind them is reached then."""


@dataclass
class Use:
    """A name asked of a class or module, in one version that gets there; `call` where it is called."""

    line: int
    version: str
    owner: Held
    name: str
    call: ast.Call | None


@dataclass
class Scope:
    """A function as one version walks through it."""

    names: dict[str, Any] = field(default_factory=dict)  # Held, or a bool or text that is known
    found: dict[str, bool] = field(default_factory=dict)  # variables of `getattr(..., None)`: whether it found it


class Walker:
    """Walks through a file as one version."""

    def __init__(self, source: str, version: str) -> None:
        self.api, self.tree = Api(version), ast.parse(source)
        self.functions: dict[str, list[ast.FunctionDef]] = defaultdict(list)  # methods of several classes share names
        for node in ast.walk(self.tree):
            if isinstance(node, ast.FunctionDef):
                self.functions[node.name].append(node)
        self.uses: list[Use] = []
        self.members = {name: self._known(held) for name, held in MEMBERS.items()}
        self._reached: set[str] = set()
        self._depth = 0

    def walk(self) -> list[Use]:
        """All uses in public functions and methods, and in the private ones that they get to."""
        every = [node for nodes in self.functions.values() for node in nodes]
        within = {id(inner) for node in every for inner in ast.walk(node) if inner is not node}
        called = {_called(node) for node in ast.walk(self.tree) if isinstance(node, ast.Call)}
        for _ in range(2):  # the first time shows what objects are given to keep
            self.uses, self._reached = [], set()
            for node in every:
                if id(node) not in within and not (self._private(node.name) and node.name in called):
                    self._enter(node.name)
        return self.uses

    def _known(self, name: str) -> Held | None:
        """What a name of the tables stands for; a module only where the version has it, for importing it raises."""
        held = Held(name, "module" if name.startswith("tensorrt") else "object")
        return held if held.kind == "object" or name in self.api.modules else None

    def _enter(self, name: str) -> None:
        if name not in self._reached and name in self.functions:
            self._reached.add(name)
            for node in self.functions[name]:
                self._function(node, Scope())

    def _function(self, node: ast.FunctionDef, scope: Scope) -> None:
        inner = Scope(dict(scope.names), dict(scope.found))
        arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        for argument in arguments:
            inner.names.pop(argument.arg, None)
            note = argument.annotation
            if argument.arg in ARGUMENTS and (note is None or ast.unparse(note) == "Any"):
                self._bind(ast.Name(argument.arg), self._known(ARGUMENTS[argument.arg]), inner)
        self._block(node.body, inner)

    def _block(self, body: list[ast.stmt], scope: Scope) -> bool:
        """Walks statements; whether the end may be reached."""
        return all(self._statement(node, scope) for node in body)

    def _statement(self, node: ast.stmt, scope: Scope) -> bool:
        if isinstance(node, ast.FunctionDef):
            self._function(node, scope)
        elif isinstance(node, ast.ClassDef):
            for base in node.bases:
                self._value(base, scope)
            self._block(node.body, scope)
        elif isinstance(node, ast.If):
            return self._if(node, scope)
        elif isinstance(node, (ast.For, ast.While)):
            self._loop(node, scope)
        elif isinstance(node, ast.With):
            for item in node.items:
                self._value(item.context_expr, scope)
            return self._block(node.body, scope)
        elif isinstance(node, ast.Try):
            reached = self._block(node.body, scope) and self._block(node.orelse, scope)
            caught = [self._block(handler.body, _without(scope, handler.name)) for handler in node.handlers]
            return self._block(node.finalbody, scope) and (reached or any(caught))
        elif isinstance(node, (ast.Return, ast.Raise)):
            self._children(node, scope)
            return False
        elif self._stopped(node, scope):
            self._children(node.value if isinstance(node, ast.Assign) else node, scope)
            return False
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            self._assign(node, scope)
        else:
            self._children(node, scope)
        return True

    def _if(self, node: ast.If, scope: Scope) -> bool:
        self._value(node.test, scope)
        truth = self._truth(node.test, scope)
        ends = []
        if truth is not False:
            ends.append(self._block(node.body, scope))
        if truth is not True:
            ends.append(self._block(node.orelse, scope))
        return any(ends)

    def _loop(self, node: ast.For | ast.While, scope: Scope) -> None:
        if isinstance(node, ast.While):
            self._value(node.test, scope)
            self._block(node.body, scope)
            return
        for value in self._items(node.iter, scope):
            self._bind(node.target, value, scope)
            self._block(node.body, scope)

    def _items(self, iterable: ast.expr, scope: Scope) -> list[Any]:
        """What a loop's variable holds in turn: constant texts, or objects of one class, or nothing that is known."""
        if isinstance(iterable, ast.Tuple) and all(isinstance(item, ast.Constant) for item in iterable.elts):
            return [item.value for item in iterable.elts if isinstance(item, ast.Constant)]
        if isinstance(iterable, ast.Call) and _called(iterable) == "enumerate" and iterable.args:
            return [(None, value) for value in self._items(iterable.args[0], scope)]
        held = self._value(iterable, scope)
        return [Held(held.name, "object") if isinstance(held, Held) and held.kind == "list" else None]

    def _bind(self, target: ast.expr, value: Any, scope: Scope) -> None:
        if isinstance(target, ast.Tuple):
            values = value if isinstance(value, tuple) and len(value) == len(target.elts) else [None] * len(target.elts)
            for element, part in zip(target.elts, values, strict=True):
                self._bind(element, part, scope)
        elif isinstance(target, ast.Name):
            scope.names.pop(target.id, None)
            scope.found.pop(target.id, None)
            if value is not None:
                scope.names[target.id] = value

    def _assign(self, node: ast.Assign | ast.AnnAssign, scope: Scope) -> None:
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        if node.value is None:
            return
        value = self._value(node.value, scope)
        value = self._truth(node.value, scope) if value is None else value
        for target in targets:
            if isinstance(target, ast.Tuple) and len(target.elts) == len(getattr(node.value, "elts", ())):
                for element, part in zip(target.elts, node.value.elts, strict=True):
                    self._store(element, self._value(part, scope), scope)
            else:
                self._store(target, value, scope)
            asked = self._finds(node.value, scope)
            if isinstance(target, ast.Name) and asked is not None:
                scope.found[target.id] = asked

    def _store(self, target: ast.expr, value: Any, scope: Scope) -> None:
        """To a variable, or to an attribute: what `self.engine` was given is what `parent.engine` holds elsewhere."""
        if isinstance(target, ast.Name):
            self._bind(target, value, scope)
            return
        self._value(target, scope)
        if isinstance(value, Held) and value.kind == "object":
            if isinstance(target, ast.Attribute) and not isinstance(self._quiet(target.value, scope), Held):
                self.members.setdefault(target.attr, value)
            elif isinstance(target, ast.Subscript) and isinstance(target.value, ast.Attribute):
                self.members.setdefault(target.value.attr, Held(value.name, "list"))

    def _stopped(self, node: ast.stmt, scope: Scope) -> bool:
        """Whether a function of `REQUIRERS` raises here."""
        for call in (child for child in ast.walk(node) if isinstance(child, ast.Call)):
            where = REQUIRERS.get(_called(call))
            if where and len(call.args) > where[1]:
                kinds = call.args[where[0]]
                held, name = self._quiet(kinds, scope), self._text(call.args[where[1]], scope)
                if isinstance(kinds, ast.Name) and scope.found.get(kinds.id) is False:
                    return True
                if isinstance(held, Held) and name is not None and not self.api.has(held, name):
                    return True
        return False

    def _children(self, node: ast.AST, scope: Scope) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.expr):
                self._value(child, scope)

    def _quiet(self, node: ast.expr, scope: Scope) -> Any:
        """As `_value`, without noting uses."""
        kept = list(self.uses)
        value = self._value(node, scope)
        self.uses = kept
        return value

    def _value(self, node: ast.expr, scope: Scope) -> Any:
        """What an expression holds, as far as it is known; notes what is used on the way."""
        if isinstance(node, ast.Name):
            return scope.names.get(node.id)
        if isinstance(node, ast.Attribute):
            return self._attribute(node, scope, call=None)
        if isinstance(node, ast.Call):
            return self._call(node, scope)
        if isinstance(node, ast.IfExp):
            return self._choice(node, scope)
        if isinstance(node, ast.BoolOp):
            return self._chain(node, scope)
        if isinstance(node, (ast.ListComp, ast.GeneratorExp, ast.SetComp, ast.DictComp)):
            return self._comprehension(node, scope)
        if isinstance(node, ast.Subscript):
            held = self._value(node.value, scope)
            self._value(node.slice, scope)
            return Held(held.name, "object") if isinstance(held, Held) and held.kind == "list" else None
        if isinstance(node, ast.List) and node.elts:
            held = self._value(node.elts[0], scope)
            self._children(node, scope)
            return Held(held.name, "list") if isinstance(held, Held) and held.kind == "object" else None
        if isinstance(node, ast.Lambda):
            return self._value(node.body, scope)
        self._children(node, scope)
        return None

    def _choice(self, node: ast.IfExp, scope: Scope) -> Any:
        self._value(node.test, scope)
        truth = self._truth(node.test, scope)
        values = []
        if truth is not False:
            values.append(self._value(node.body, scope))
        if truth is not True:
            values.append(self._value(node.orelse, scope))
        return next((value for value in values if value is not None), None)

    def _chain(self, node: ast.BoolOp, scope: Scope) -> None:
        """What stands behind `and` is reached only where what stands before it may be true; with `or`, false."""
        stopper = isinstance(node.op, ast.Or)
        for value in node.values:
            self._value(value, scope)
            if self._truth(value, scope) is stopper:
                return

    def _comprehension(self, node: Any, scope: Scope) -> Held | None:
        inner = Scope(dict(scope.names), dict(scope.found))
        for generator in node.generators:
            self._bind(generator.target, self._items(generator.iter, inner)[0], inner)
            for condition in generator.ifs:
                self._value(condition, inner)
        parts = [node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]
        found = [self._value(part, inner) for part in parts][-1]
        return Held(found.name, "list") if isinstance(found, Held) and found.kind == "object" else None

    def _attribute(self, node: ast.Attribute, scope: Scope, call: ast.Call | None) -> Any:
        owner = self._value(node.value, scope)
        if not isinstance(owner, Held):
            return self.members.get(node.attr)
        if owner.kind in ("member", "list"):
            return None
        self.uses.append(Use(node.lineno, self.api.version, owner, node.attr, call))
        return self.api.get(owner, node.attr)

    def _call(self, node: ast.Call, scope: Scope) -> Any:
        name = _called(node)
        for argument in (*node.args, *(keyword.value for keyword in node.keywords)):
            self._value(argument, scope)
        if isinstance(node.func, ast.Attribute):
            owner = self._quiet(node.func.value, scope)
            made = self._attribute(node.func, scope, call=node)
            if isinstance(owner, Held):
                return Held(made.name, "object") if made is not None else self.api.returned(owner, name)
        elif not isinstance(node.func, ast.Name):
            self._value(node.func, scope)
        elif name == "getattr":
            held, text = self._value(node.args[0], scope), self._text(node.args[1], scope)
            if not isinstance(held, Held) or text is None or not self.api.has(held, text):
                return None
            return self.api.get(held, text)
        elif name in MAKERS:
            held = self._value(node.args[0], scope)
            return Held(held.name, "object") if isinstance(held, Held) else None
        if name in self.functions and self._private(name):
            self._enter(name)
        return self._known(RETURNS[name]) if name in RETURNS else None

    def _private(self, name: str) -> bool:
        return name.startswith("_") and not name.startswith("__")

    def _text(self, node: ast.expr, scope: Scope) -> str | None:
        value = node.value if isinstance(node, ast.Constant) else None
        value = scope.names.get(node.id) if isinstance(node, ast.Name) else value
        return value if isinstance(value, str) else None

    def _finds(self, node: ast.expr, scope: Scope) -> bool | None:
        """Whether a `getattr(..., None)` finds something; None if it is no such question."""
        if not (isinstance(node, ast.Call) and _called(node) == "getattr" and len(node.args) == 3):
            return None
        held, text = self._quiet(node.args[0], scope), self._text(node.args[1], scope)
        empty = isinstance(node.args[2], ast.Constant) and node.args[2].value is None
        return self.api.has(held, text) if empty and isinstance(held, Held) and text is not None else None

    def _truth(self, node: ast.expr, scope: Scope) -> bool | None:
        """What a condition is in this version; None where that is not decided by it."""
        if isinstance(node, ast.Name):
            known = scope.names.get(node.id)
            return known if isinstance(known, bool) else None
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            truth = self._truth(node.operand, scope)
            return None if truth is None else not truth
        if isinstance(node, ast.BoolOp):
            truths, stopper = [self._truth(value, scope) for value in node.values], isinstance(node.op, ast.Or)
            return stopper if stopper in truths else (None if None in truths else not stopper)
        if isinstance(node, ast.Call) and _called(node) == "hasattr":
            held, text = self._quiet(node.args[0], scope), self._text(node.args[1], scope)
            return self.api.has(held, text) if isinstance(held, Held) and text is not None else None
        if isinstance(node, ast.Call) and _called(node) in self.functions:
            return self._predicate(self.functions[_called(node)][0])
        if isinstance(node, ast.Compare) and isinstance(node.left, ast.Name) and node.left.id in scope.found:
            nothing = isinstance(node.comparators[0], ast.Constant) and node.comparators[0].value is None
            return isinstance(node.ops[0], ast.Is) != scope.found[node.left.id] if nothing else None
        return None

    def _predicate(self, function: ast.FunctionDef) -> bool | None:
        """A function that only returns a condition on the module."""
        body = [item for item in function.body if not isinstance(getattr(item, "value", None), ast.Constant)]
        if len(body) != 1 or not isinstance(body[0], ast.Return) or body[0].value is None or self._depth > 3:
            return None
        known = {arg.arg: self._known(ARGUMENTS[arg.arg]) for arg in function.args.args if arg.arg in ARGUMENTS}
        scope = Scope(known)
        self._depth += 1
        truth = self._truth(body[0].value, scope)
        self._depth -= 1
        return truth

    def questions(self) -> Iterator[tuple[int, Held, str]]:
        """Names that are asked for by `hasattr`, `getattr` or a function of `REQUIRERS`."""
        for function in (node for nodes in self.functions.values() for node in nodes):
            scope = Scope({name: self._known(held) for name, held in ARGUMENTS.items()})
            for node in ast.walk(function):
                if isinstance(node, ast.For):
                    for text in self._items(node.iter, scope):
                        self._bind(node.target, text, scope)
            for node in ast.walk(function):
                first, second = REQUIRERS.get(_called(node), (0, 1)) if isinstance(node, ast.Call) else (0, 1)
                if isinstance(node, ast.Call) and _called(node) in ("hasattr", "getattr", *REQUIRERS):
                    held = self._quiet(node.args[first], scope)
                    text = self._text(node.args[second], scope)
                    if isinstance(held, Held) and text is not None:
                        yield node.lineno, held, text


def _called(node: ast.Call) -> str:
    return node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")


def _without(scope: Scope, name: str | None) -> Scope:
    return Scope({key: value for key, value in scope.names.items() if key != name}, dict(scope.found))
