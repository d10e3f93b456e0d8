"""Dataclasses to and from the CRDs' JSON, by their field names: `memory_mib` is `memoryMiB`, `from_` is
`from`.

Called by `api.parse` and `api.serialize` only. One rule for every type, so that a field added to a
dataclass and to its schema needs no code here. It must not validate: decoding trusts an object that the
schema admitted.

Absent means the dataclass' default, or None. A field's metadata may say `wire` (another name) and `per` (a
fraction that goes over the wire as an integer of so many parts).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from datetime import datetime, timedelta
from enum import Enum
from functools import cache
from types import NoneType, UnionType
from typing import Any, TypeVar, cast, get_args, get_origin, get_type_hints

from helios_operator.api.durations import format_duration, parse_duration
from helios_operator.api.timestamps import format_time, parse_time

T = TypeVar("T")


def decode(kind: type[T], document: Mapping[str, Any]) -> T:
    """A dataclass from its JSON object."""
    values = {}
    for field, name, hint in _layout(cast(Any, kind)):
        value = document.get(name)
        if value is not None:
            values[field.name] = _decode(hint, _from_parts(field, value))
        elif not _has_default(field) and _may_be_none(hint):
            values[field.name] = None
    return kind(**values)


def encode(record: Any) -> dict[str, Any]:
    """The JSON object of a dataclass, without what is unset or empty."""
    document = {}
    for field, name, _ in _layout(cast(Any, type(record))):
        value = getattr(record, field.name)
        if value is None or (_is_empty(value) and _has_default(field)):
            continue
        document[name] = _to_parts(field, _encode(value))
    return document


def camel(name: str) -> str:
    """The CRDs' name of a field."""
    first, *rest = name.rstrip("_").split("_")
    return first + "".join("MiB" if word == "mib" else word.capitalize() for word in rest)


@cache
def _layout(kind: Any) -> tuple[tuple[Field[Any], str, Any], ...]:
    hints = get_type_hints(kind)
    return tuple(
        (field, field.metadata.get("wire", camel(field.name)), hints[field.name]) for field in fields(kind)
    )


def _has_default(field: Field[Any]) -> bool:
    return field.default is not MISSING or field.default_factory is not MISSING


def _may_be_none(hint: Any) -> bool:
    return NoneType in get_args(hint)


def _is_empty(value: Any) -> bool:
    return isinstance(value, (str, tuple, Mapping)) and not value


def _decode(hint: Any, value: Any) -> Any:
    if get_origin(hint) is UnionType:
        (hint,) = (option for option in get_args(hint) if option is not NoneType)
    origin = get_origin(hint)
    if origin is tuple:
        return tuple(_decode(get_args(hint)[0], item) for item in value)
    if origin is not None and issubclass(origin, Mapping):
        key, item = get_args(hint)
        return {_decode(key, k): _decode(item, v) for k, v in value.items()}
    if is_dataclass(hint):
        return decode(hint, value)  # type: ignore[arg-type]
    return _SCALARS.get(hint, _plain(hint))(value)


_SCALARS: dict[Any, Callable[[Any], Any]] = {
    datetime: parse_time,
    timedelta: parse_duration,
    Any: lambda value: value,
}


def _plain(hint: Any) -> Callable[[Any], Any]:
    return hint  # type: ignore[no-any-return]


def _encode(value: Any) -> Any:
    match value:
        case datetime():
            return format_time(value)
        case timedelta():
            return format_duration(value)
        case Enum():
            return value.value
        case tuple():
            return [_encode(item) for item in value]
        case Mapping():
            return {str(key): _encode(item) for key, item in value.items()}
        case _ if is_dataclass(value):
            return encode(value)
    return value


def _to_parts(field: Field[Any], value: Any) -> Any:
    per = field.metadata.get("per")
    return {key: round(part * per) for key, part in value.items()} if per else value


def _from_parts(field: Field[Any], value: Any) -> Any:
    per = field.metadata.get("per")
    return {key: part / per for key, part in value.items()} if per else value
