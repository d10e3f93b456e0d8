"""Dataclasses to and from JSON objects, by their field names: `layer_budget` is `layerBudget`, `from_` is
`from`.

Used by `limits` and `results` for what crosses between processes, and by the operator for the objects of its
API. One rule for every type, so that a field added to a dataclass needs no code here. It must not judge
values: only their JSON types and the words of an enum.

Absent and null mean the dataclass' default, or None. What a newer release added is left alone: `unknown` says
what that was. A field's metadata may say `wire` (another name; None: it does not cross), `since` (the
contract's version that brought it; `encode` leaves it out while it has its default, so that older readers are
not told what they do not know) and `milli` (fractions that the CRDs, which hold integers, write in
thousandths, under a name that says so).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from enum import Enum
from functools import cache
from types import NoneType, UnionType
from typing import Any, TypeVar, cast, get_args, get_origin, get_type_hints

T = TypeVar("T")
Json = dict[str, Any]


class Malformed(ValueError):
    """path: of the value within the document, such as `audit.bundles[1].uri`; problem: what is wrong with
    it."""

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"{path or 'document'}: {problem}")
        self.path = path
        self.problem = problem


@dataclass(frozen=True)
class Scalar:
    """How values of one type are written. decode raises ValueError with a sentence for anything else."""

    decode: Callable[[Any], Any]
    encode: Callable[[Any], Any] = lambda value: value


class Codec:
    """scalars: types beyond JSON's own, such as durations; crd: as the objects of the API are written, which
    have `MiB` in names, and thousandths in place of fractions."""

    def __init__(self, scalars: Mapping[Any, Scalar] | None = None, *, crd: bool = False) -> None:
        self._scalars = _JSON_SCALARS | dict(scalars or {})
        self._crd = crd

    def decode(self, kind: type[T], document: Any, path: str = "") -> T:
        """A dataclass from its JSON object. Malformed names the value that cannot be one of its fields."""
        if not isinstance(document, Mapping):
            raise Malformed(path, f"is {_shown(document)}, not an object")
        values = {}
        for field, name, hint in layout(cast(Any, kind), self._crd):
            value, where = document.get(name), f"{path}.{name}" if path else name
            if value is not None:
                values[field.name] = self._decode(hint, self._whole(field, value, where), where)
            elif not _has_default(field):
                if not _may_be_none(hint):
                    raise Malformed(where, "is missing")
                values[field.name] = None
        try:
            return kind(**values)
        except (TypeError, ValueError) as error:
            raise Malformed(path, str(error)) from None

    def encode(self, record: Any) -> Json:
        """The JSON object of a dataclass, without what is unset, or empty and has a default."""
        document = {}
        for field, name, _ in layout(cast(Any, type(record)), self._crd):
            value = getattr(record, field.name)
            if value is not None and not self._is_left_out(field, value):
                document[name] = self._thousandths(field, self._encode(value))
        return document

    def unknown(self, kind: type[Any], document: Mapping[str, Any]) -> Json:
        """What the document holds and the dataclass does not know, in the document's own shape."""
        hints = {name: hint for _, name, hint in layout(cast(Any, kind), self._crd)}
        found: Json = {}
        for name, value in document.items():
            if name not in hints:
                found[name] = value
            elif is_dataclass(inner := _bare(hints[name])) and isinstance(value, Mapping):
                found |= {name: below} if (below := self.unknown(cast(Any, inner), value)) else {}
        return found

    def _is_left_out(self, field: Field[Any], value: Any) -> bool:
        if "since" in field.metadata and value == default_of(field):
            return True
        is_empty = isinstance(value, (str, tuple, Mapping)) and not value
        return is_empty and _has_default(field)

    def _decode(self, hint: Any, value: Any, path: str) -> Any:
        hint = _bare(hint)
        origin = get_origin(hint)
        if origin is tuple:
            if not isinstance(value, (list, tuple)):
                raise Malformed(path, f"is {_shown(value)}, not a list")
            item = get_args(hint)[0]
            return tuple(self._decode(item, each, f"{path}[{index}]") for index, each in enumerate(value))
        if origin is not None and issubclass(origin, Mapping):
            if not isinstance(value, Mapping):
                raise Malformed(path, f"is {_shown(value)}, not a map")
            key, item = get_args(hint)
            pairs = ((name, each, f"{path}.{name}") for name, each in value.items())
            return {self._decode(key, name, at): self._decode(item, each, at) for name, each, at in pairs}
        if is_dataclass(hint):
            return self.decode(cast(Any, hint), value, path)
        try:
            return self._scalar(hint).decode(value)
        except (TypeError, ValueError) as error:
            raise Malformed(path, str(error)) from None

    def _encode(self, value: Any) -> Any:
        match value:
            case Enum():
                return value.value
            case tuple():
                return [self._encode(item) for item in value]
            case Mapping():
                return {str(key): self._encode(item) for key, item in value.items()}
            case _ if is_dataclass(value):
                return self.encode(value)
        return self._scalar(type(value)).encode(value)

    def _thousandths(self, field: Field[Any], value: Any) -> Any:
        if not (self._crd and "milli" in field.metadata):
            return value
        return {key: round(part * 1000) for key, part in value.items()}

    def _whole(self, field: Field[Any], value: Any, path: str) -> Any:
        if not (self._crd and "milli" in field.metadata and isinstance(value, Mapping)):
            return value
        return {key: _part(part, f"{path}.{key}") for key, part in value.items()}

    def _scalar(self, kind: Any) -> Scalar:
        if isinstance(kind, type) and issubclass(kind, Enum) and kind not in self._scalars:
            self._scalars[kind] = Scalar(lambda value: _word(kind, value))
        return self._scalars.get(kind, _AS_IT_IS)


def camel(name: str, crd: bool = False) -> str:
    """The name of a field in JSON, as protobuf has it, or as the CRDs do."""
    first, *rest = name.rstrip("_").split("_")
    return first + "".join("MiB" if crd and word == "mib" else word.capitalize() for word in rest)


@cache
def layout(kind: Any, crd: bool = False) -> tuple[tuple[Field[Any], str, Any], ...]:
    """Each field of a dataclass that crosses, its name in JSON and its type."""
    hints = get_type_hints(kind)
    named = ((each, _name(each, crd), hints[each.name]) for each in fields(kind))
    return tuple((field, name, hint) for field, name, hint in named if name is not None)


def _name(field: Field[Any], crd: bool) -> str | None:
    name = camel(field.name, crd) + ("Milli" if crd and "milli" in field.metadata else "")
    wire: str | None = field.metadata.get("wire", name)
    return wire


def default_of(field: Field[Any]) -> Any:
    """MISSING where there is none."""
    return field.default_factory() if field.default_factory is not MISSING else field.default


def paths(document: Mapping[str, Any], prefix: str = "") -> tuple[str, ...]:
    """The leaves of nested objects by their paths, for messages."""
    return tuple(
        path
        for name, value in document.items()
        for path in (
            paths(value, f"{prefix}{name}.") if isinstance(value, Mapping) and value else (f"{prefix}{name}",)
        )
    )


def _has_default(field: Field[Any]) -> bool:
    return default_of(field) is not MISSING


def _may_be_none(hint: Any) -> bool:
    return NoneType in get_args(hint)


def _bare(hint: Any) -> Any:
    """Without `| None`."""
    if get_origin(hint) is UnionType:
        (hint,) = (option for option in get_args(hint) if option is not NoneType)
    return hint


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:79] + "…"


def _integer(value: Any) -> int:
    """A JSON number, or a text of digits: how protobuf writes 64-bit integers, and JSON the keys of a map."""
    if isinstance(value, str) and value.removeprefix("-").isdecimal():
        return int(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"is {_shown(value)}, not an integer")
    return value


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"is {_shown(value)}, not a number")
    return float(value)


def _part(value: Any, path: str) -> float:
    try:
        return _integer(value) / 1000
    except ValueError as error:
        raise Malformed(path, str(error)) from None


def _exactly(kind: type, name: str) -> Scalar:
    def decode(value: Any) -> Any:
        if not isinstance(value, kind):
            raise ValueError(f"is {_shown(value)}, not a {name}")
        return value

    return Scalar(decode)


def _word(kind: type[Enum], value: Any) -> Enum:
    try:
        return kind(value)
    except ValueError:
        known = ", ".join(str(word.value) for word in kind)
        raise ValueError(f"is {_shown(value)}, which is none of {known}") from None


_AS_IT_IS = Scalar(lambda value: value)
_JSON_SCALARS: dict[Any, Scalar] = {
    int: Scalar(_integer),
    float: Scalar(_number),
    str: _exactly(str, "text"),
    bool: _exactly(bool, "truth value"),
    Any: _AS_IT_IS,
}
