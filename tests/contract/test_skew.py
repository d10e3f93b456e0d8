"""Parts of two releases understand each other: what 0.1.0 wrote is read, and it is sent what it reads."""

from __future__ import annotations

from dataclasses import replace

import helios_contract
import pytest
from google.protobuf import json_format
from helios_contract import limits as document
from helios_contract import wire
from helios_contract.limits import Audit, Baseline, Limits
from helios_contract.serves import Bundle
from helios_proto.v1 import control_pb2 as pb
from hypothesis import given, settings

from tests.contract import documents
from tests.contract.documents import V0_1_0, golden, read_by_0_1_0
from tests.sizes import examples

FULL = Limits(
    generation=7,
    candidate="prose",
    model_uri="pvc://models/smollm2-135m",
    model_revision="sha256:1f0c",
    exits_uri="builtin://prose",
    exits_digest="sha256:77aa",
    layer_budget=24,
    max_batch_size=16,
    memory_mib=1500,
    exit_layers=(12, 18, 24, 27),
    audit=Audit(
        5,
        (Bundle("prose", "builtin://prose", "sha256:77aa"), Bundle("own")),
        Baseline(0.914, 0.031),
        Baseline(0.62, 0.05),
    ),
    live_prompts=32,
    breach_threshold=0.35,
    tokens_per_request=640,
)


def test_limits_of_0_1_0_are_read() -> None:
    assert document.from_json((V0_1_0 / "limits.json").read_text()) == FULL
    plain = document.from_json((V0_1_0 / "limits-plain.json").read_text())
    assert (plain.layer_budget, plain.weight_dtype, plain.exit_mode) == (30, "auto", "sequence")


def test_telemetry_of_0_1_0_is_read() -> None:
    told = wire.telemetry_from_message(pb.Telemetry.FromString((V0_1_0 / "telemetry.binpb").read_bytes()))
    assert told.limits == FULL
    assert told.contract_version == 0
    assert (told.requests_finished, told.capacity.total_layers) == (451, 30)
    assert told.audits[0].exits["sha256:77aa", 24] == (252000, 50)
    assert told.refused is not None
    assert told.refused.generation == told.known_generation == 8
    again = json_format.MessageToDict(wire.telemetry_to_message(told))
    assert again == golden("telemetry.json")


def test_telemetry_of_a_loading_pod_of_0_1_0_is_read() -> None:
    message = json_format.ParseDict(golden("telemetry-loading.json"), pb.Telemetry())
    told = wire.telemetry_from_message(message)
    assert (told.capacity.max_batch_size, told.prompts, told.refused, told.energy) == (0, None, None, None)


@settings(max_examples=examples(60))
@given(documents.limits)
def test_0_1_0_reads_all_that_it_can_serve(limits: Limits) -> None:
    """Every document whose newer fields have 0.1.0's own values. and the newest writer's mark is not on
    it."""
    known = limits.as_known_to(0)
    assert not known.newer_than(0)
    read = read_by_0_1_0(document.to_json(known))
    assert (read.generation, read.max_queue_size) == (known.generation, known.max_queue_size)
    assert read.audit.percent == known.audit.percent
    sent = wire.limits_to_message(known).SerializeToString()
    assert type(read).FromString(sent).SerializeToString(deterministic=True) == sent


@pytest.mark.parametrize(
    "newer",
    [{"exit_mode": "token"}, {"exit_threshold": 0.5}, {"weight_dtype": "int8"}, {"kv_cache_dtype": "fp8"}],
)
def test_0_1_0_refuses_what_it_does_not_know_so_it_is_not_sent_it(newer: dict[str, str]) -> None:
    limits = replace(FULL, **newer)
    assert limits.newer_than(0) == tuple(newer)
    assert limits.newer_than(helios_contract.VERSION) == ()
    with pytest.raises(json_format.ParseError):
        read_by_0_1_0(document.to_json(limits))
    assert limits.as_known_to(0) == FULL
