"""The messages of helios.v1 carry the contract whole."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from typing import Any, get_args, get_type_hints

import pytest
from google.protobuf.descriptor import Descriptor
from helios_contract import wire
from helios_contract.limits import Limits
from helios_contract.serves import Serves
from helios_contract.telemetry import AuditRow, Telemetry
from helios_proto.v1 import control_pb2 as pb
from hypothesis import given, settings

from tests.contract import documents
from tests.sizes import examples

PLAIN = Limits(generation=3, candidate="chat", model_uri="file:///models/chat")


@settings(max_examples=examples(60))
@given(documents.limits)
def test_a_pod_reads_the_limits_that_were_meant(limits: Limits) -> None:
    assert wire.limits_from_message(wire.limits_to_message(limits)) == limits


@settings(max_examples=examples(60))
@given(documents.telemetries)
def test_an_operator_reads_the_telemetry_that_was_told(telemetry: Telemetry) -> None:
    message = pb.Telemetry.FromString(wire.telemetry_to_message(telemetry).SerializeToString())
    assert wire.telemetry_from_message(message) == telemetry


@pytest.mark.parametrize(("kind", "message"), [(Limits, pb.Limits), (Telemetry, pb.Telemetry)])
def test_both_sides_name_the_same_fields(kind: Any, message: Any) -> None:
    """A field that is added on one side and forgotten on the other would be lost on its way."""
    assert not _differences(kind, message.DESCRIPTOR)


def _differences(kind: Any, descriptor: Descriptor) -> list[str]:
    hints = get_type_hints(kind)
    ours = {field.name for field in fields(kind) if field.metadata.get("wire", "") is not None}
    theirs = {field.name: field for field in descriptor.fields}
    found = [f"{descriptor.name}.{name}" for name in ours ^ theirs.keys()]
    if kind is AuditRow:
        return found
    for name in ours & theirs.keys():
        for inner in (hints[name], *get_args(hints[name])):
            if is_dataclass(inner):
                found += _differences(inner, theirs[name].message_type)
    return found


def test_zero_on_the_wire_is_the_default() -> None:
    message = pb.Limits(generation=3, candidate="chat", model_uri="file:///models/chat")
    assert wire.limits_from_message(message) == PLAIN
    assert wire.telemetry_from_message(pb.Telemetry(boot_id="b")).prompts is None


def test_what_serves_is_one_value() -> None:
    assert PLAIN.serves == Serves(candidate="chat", model_uri="file:///models/chat")
    assert replace(PLAIN, generation=4, memory_mib=9).serves == PLAIN.serves
    for change in ({"layer_budget": 24}, {"weight_dtype": "int8"}, {"exits_digest": "d"}):
        assert replace(PLAIN, **change).serves != PLAIN.serves
