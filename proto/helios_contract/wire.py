"""The messages of helios.v1 to and from the dataclasses of the contract: the only module that knows both.

Called by the Control service of a pod and by the operator's client of it. A field is carried over by its
name; what a message holds and no dataclass names is left alone, so that a newer peer is understood as far
as it can be.

In proto3 what was not sent reads as zero: a zero stands for the dataclass' default.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Any, TypeVar, cast, get_args, get_origin, get_type_hints

from google.protobuf.message import Message
from helios_proto.v1 import control_pb2 as pb

from helios_contract import codec
from helios_contract.limits import Limits
from helios_contract.telemetry import AS_PUBLISHED, AuditRow, Capacity, Telemetry

T = TypeVar("T")


def limits_to_message(limits: Limits) -> pb.Limits:
    return _to_message(limits, pb.Limits)


def limits_from_message(message: pb.Limits) -> Limits:
    return _from_message(message, Limits)


def capacity_to_message(capacity: Capacity) -> pb.Capacity:
    return _to_message(capacity, pb.Capacity)


def telemetry_to_message(telemetry: Telemetry) -> pb.Telemetry:
    return _to_message(telemetry, pb.Telemetry)


def telemetry_from_message(message: pb.Telemetry) -> Telemetry:
    return _from_message(message, Telemetry)


# -- by field names ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Carried:
    """A field that both sides have. kind: of the dataclass within, if there is one; is_newer: than 0.1.0."""

    name: str
    default: Any
    kind: Any
    is_optional: bool
    is_many: bool
    is_newer: bool


@cache
def _carried(kind: Any) -> tuple[_Carried, ...]:
    hints = get_type_hints(kind)
    return tuple(
        _carry(field, hints[field.name])
        for field in fields(kind)
        if field.metadata.get("wire", field.name) is not None
    )


def _carry(field: Field[Any], hint: Any) -> _Carried:
    is_optional = get_origin(hint) is UnionType
    if is_optional:
        (hint,) = (option for option in get_args(hint) if option is not NoneType)
    is_many = get_origin(hint) is tuple
    if is_many:
        hint = get_args(hint)[0]
    kind = hint if is_dataclass(hint) else None
    return _Carried(
        field.name, codec.default_of(field), kind, is_optional, is_many, "since" in field.metadata
    )


def _to_message(record: Any, kind: Callable[..., T]) -> T:
    if isinstance(record, AuditRow):
        return cast(T, _audit_to_message(record))
    message = kind()
    for each in _carried(cast(Any, type(record))):
        value = getattr(record, each.name)
        if value is None or (each.is_newer and value == each.default):
            continue
        if each.kind is None:
            if each.is_many:
                getattr(message, each.name).extend(value)
            else:
                setattr(message, each.name, value)
            continue
        slot = getattr(message, each.name)
        if each.is_many:
            for item in value:
                added = slot.add()
                added.CopyFrom(_to_message(item, type(added)))
        else:
            slot.CopyFrom(_to_message(value, type(slot)))
    return message


def _from_message(message: Message, kind: type[T]) -> T:
    if kind is AuditRow:
        return cast(T, _audit_from_message(cast(pb.AuditRow, message)))
    values: dict[str, Any] = {}
    for each in _carried(cast(Any, kind)):
        value = getattr(message, each.name)
        if each.is_many:
            values[each.name] = tuple(_from_message(item, each.kind) if each.kind else item for item in value)
        elif each.kind is None:
            values[each.name] = value or (value if each.default is MISSING else each.default)
        elif each.is_optional and not message.HasField(each.name):
            values[each.name] = None
        else:
            values[each.name] = _from_message(value, each.kind)
    return kind(**values)


def _audit_to_message(row: AuditRow) -> pb.AuditRow:
    exits = [
        pb.ExitBits(digest=digest, layer=layer, millibits=millibits, agreeing=agreeing)
        for (digest, layer), (millibits, agreeing) in row.exits.items()
    ]
    totals = {"request": row.request, "tokens": row.tokens, "bytes": row.bytes}
    reference = "" if row.reference == AS_PUBLISHED else row.reference
    return pb.AuditRow(**totals, full_millibits=row.full_millibits, exits=exits, reference=reference)


def _audit_from_message(row: pb.AuditRow) -> AuditRow:
    exits: Mapping[tuple[str, int], tuple[int, int]] = {
        (bits.digest, bits.layer): (bits.millibits, bits.agreeing) for bits in row.exits
    }
    reference = row.reference or AS_PUBLISHED
    return AuditRow(row.request, row.tokens, row.bytes, row.full_millibits, exits, reference)
