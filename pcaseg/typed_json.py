"""JSON as frozen dataclasses, checked field by field: for files that somebody else may have written or cut short."""

from __future__ import annotations

import dataclasses
import json
import types
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from pcaseg.errors import PcasegError

_UNIONS = (types.UnionType, Union)

T = TypeVar("T")

ADDED_LATER = {"added_later": True}
"""Metadata of a field that files of the same schema version may lack."""


def load_typed(cls: type[T], text: str | bytes, source: str, *, version: int, error: type[PcasegError], mend: str) -> T:
    """Reads what `json.dumps(dataclasses.asdict(...))` wrote. Fields that `cls` does not know are ignored; those whose
    metadata is `ADDED_LATER` may be missing and then have their default.

    Args:
        cls: a dataclass of JSON's types, tuples, literals and such dataclasses, with a field `schema_version`.
        text: of one JSON object.
        source: what the messages call it.
        version: the schema version that `cls` describes.
        error: what is raised.
        mend: how every message ends.

    Raises:
        PcasegError: `error`: not JSON, another schema version, or a field is missing or ill-typed.
    """
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as reason:
        raise error(f"{source}: not readable as JSON ({reason}); {mend}") from reason
    if not isinstance(data, dict):
        raise error(f"{source}: not a JSON object; {mend}")
    found = data.get("schema_version")
    if type(found) is int and found > version:
        raise error(
            f"{source}: schema_version {found} is newer than {version}, which this pcaseg reads; upgrade pcaseg"
        )
    if found != version or type(found) is not int:
        raise error(f"{source}: schema_version is {found!r}, not {version}; {mend}")
    return _Decoder(source, error, mend).fields(cls, data, "")


class _Decoder:
    def __init__(self, source: str, error: type[PcasegError], mend: str) -> None:
        self.source, self.error, self.mend = source, error, mend

    def fields(self, cls: type[T], data: Any, where: str) -> T:
        """An instance of the dataclass `cls` from a JSON object; `where` is the dotted path to it."""
        if not isinstance(data, dict):
            raise self._refusal(f"{where} is {shown(data)}, not an object")
        values = {}
        added = {field.name for field in dataclasses.fields(cls) if "added_later" in field.metadata}  # type: ignore[arg-type]
        for name, kind in get_type_hints(cls).items():
            path = f"{where}.{name}" if where else name
            if name not in data and name in added:
                continue
            if name not in data:
                raise self._refusal(f"{path} is missing")
            values[name] = self.value(kind, data[name], path)
        return cls(**values)

    def value(self, kind: Any, value: Any, where: str) -> Any:
        """`value` as the type `kind`."""
        origin, arguments = get_origin(kind), get_args(kind)
        if dataclasses.is_dataclass(kind) and isinstance(kind, type):
            return self.fields(kind, value, where)
        if origin is dict and isinstance(value, dict):
            return {key: self.value(arguments[1], item, f"{where}.{key}") for key, item in value.items()}
        if origin is tuple and isinstance(value, list):
            kinds = arguments[:1] * len(value) if arguments[-1] is Ellipsis else arguments
            if len(value) != len(kinds):
                raise self._refusal(f"{where} has {len(value)} entries, not {len(kinds)}")
            return tuple(
                self.value(item_kind, item, f"{where}[{i}]")
                for i, (item_kind, item) in enumerate(zip(kinds, value, strict=True))
            )
        if origin in _UNIONS and value is not None and not _is_plain(arguments[0]):  # such as tuple or null
            return self.value(arguments[0], value, where)
        if origin is Literal:
            if isinstance(value, str) and value in arguments:
                return value
            raise self._refusal(f"{where} is {shown(value)}, not one of {', '.join(arguments)}")
        plain = arguments if origin in _UNIONS else (kind,)
        if type(value) in plain:  # not isinstance: True is no int here
            return value
        if float in plain and type(value) is int:
            return float(value)
        names = " or ".join(getattr(k, "__name__", str(k)).replace("NoneType", "null") for k in plain)
        raise self._refusal(f"{where} is {shown(value)}, not {names}")

    def _refusal(self, fault: str) -> PcasegError:
        return self.error(f"{self.source}: {fault}; {self.mend}")


def shown(value: Any) -> str:
    """A value as JSON, shortened for a message."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."


def _is_plain(kind: Any) -> bool:
    return get_origin(kind) is None and not dataclasses.is_dataclass(kind)
