"""The limits document and telemetry cross the wire whole: what was meant is what a pod is told, and what it
says."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from google.protobuf.descriptor import FieldDescriptor
from helios_operator.control import limits, telemetry
from helios_operator.decide.snapshot import Baseline, BundleRef, ServingLimits
from helios_operator.errors import StateError
from helios_proto.v1 import control_pb2 as pb
from hypothesis import given, settings
from hypothesis import strategies as st

text = st.text(st.characters(blacklist_categories=("Cs",)), max_size=8)
small = st.integers(0, 2**31)
fraction = st.floats(0, 4, width=32)
baseline = st.none() | st.builds(Baseline, fraction, fraction)
documents = st.builds(
    ServingLimits,
    generation=st.integers(1, 2**53),
    candidate=text,
    model_uri=text,
    model_revision=text,
    exits_uri=text,
    exits_digest=text,
    layer_budget=small,
    max_batch_size=small,
    memory_mib=small,
    max_queue_size=small,
    exit_layers=st.lists(small, max_size=4).map(tuple),
    audit_percent=st.integers(0, 100),
    bundles=st.lists(st.builds(BundleRef, text, text, text), max_size=3).map(tuple),
    tokens_per_request=small,
    quality_baseline=baseline,
    confidence_baseline=baseline,
    live_prompts=small,
    breach_threshold=fraction,
)


@settings(max_examples=60)
@given(documents)
def test_the_document_comes_back_as_it_was_written(document: ServingLimits) -> None:
    assert limits.from_json(limits.to_json(document), "limits.json") == document
    assert limits.from_proto(limits.to_proto(document)) == document


def test_every_field_of_the_message_is_used() -> None:
    """A field that is added to the protocol and forgotten here would be lost on its way to the pod."""
    full = ServingLimits(
        generation=1,
        candidate="c",
        model_uri="m",
        model_revision="r",
        exits_uri="e",
        exits_digest="d",
        layer_budget=1,
        max_batch_size=1,
        memory_mib=1,
        max_queue_size=1,
        exit_layers=(1,),
        audit_percent=1,
        bundles=(BundleRef("c", "u", "d"),),
        tokens_per_request=1,
        quality_baseline=Baseline(1, 1),
        confidence_baseline=Baseline(1, 1),
        live_prompts=1,
        breach_threshold=0.5,
    )
    assert not list(_unset(limits.to_proto(full), "Limits"))


def _unset(message: object, path: str) -> list[str]:
    missing = []
    for field in message.DESCRIPTOR.fields:  # type: ignore[attr-defined]
        value = getattr(message, field.name)
        values = list(value) if field.is_repeated else [value]
        if not values or (not field.is_repeated and not value and field.type != FieldDescriptor.TYPE_MESSAGE):
            missing.append(f"{path}.{field.name}")
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            missing += [name for value in values for name in _unset(value, f"{path}.{field.name}")]
    return missing


def test_a_damaged_document_is_named() -> None:
    with pytest.raises(StateError, match=r"r/limits\.json: is damaged"):
        limits.from_json('{"layerBudgets": 3}', "r/limits.json")


def test_telemetry_is_read() -> None:
    message = pb.Telemetry(
        boot_id="b",
        limits=limits.to_proto(ServingLimits(**_minimal())),
        capacity=pb.Capacity(total_layers=30, kv_capacity_tokens=640, max_batch_size=4),
        running=2,
        waiting=1,
        requests_finished=10,
        requests_since_change=3,
        audits=[
            pb.AuditRow(
                request=7, tokens=50, bytes=200, full_millibits=900,
                exits=[pb.ExitBits(digest="d", layer=24, millibits=950, agreeing=40)],
            )
        ],
        alarms=[pb.Alarm(kind="Audit", direction="Down", at_request=9, since_request=5, unix_seconds=0)],
        prompts=pb.PromptSet(digest="sha256:1", prompts=16, from_request=1, to_request=16),
        steps=[
            pb.StepTiming(layers=24, rows=4, sampled=4, kv_tokens=100, count=8, mean_us=2.5),
            pb.StepTiming(layers=30, rows=4, sampled=4, kv_tokens=100, count=8, mean_us=3.5),
        ],
        refused=pb.Refusal(generation=4, message="no memory"),
    )  # fmt: skip
    seen = telemetry.from_proto(message, "mlp")
    assert seen.audits[0].exits == {("d", 24): (950, 40)}
    assert seen.alarms[0].time == datetime(1970, 1, 1, tzinfo=UTC)
    assert [(step.head_kind, step.step_ns) for step in seen.steps] == [("mlp", 2500), ("bare", 3500)]
    assert seen.prompts is not None
    assert (seen.prompts.digest, seen.refused_generation, seen.kv_capacity_tokens) == ("sha256:1", 4, 640)
    assert telemetry.from_proto(pb.Telemetry(), "bare").prompts is None


def _minimal() -> dict[str, object]:
    names = ("candidate", "model_uri", "model_revision", "exits_uri", "exits_digest")
    numbers = (
        "generation",
        "layer_budget",
        "max_batch_size",
        "memory_mib",
        "max_queue_size",
        "audit_percent",
    )
    return {
        **dict.fromkeys(names, "x"),
        **dict.fromkeys(numbers, 1),
        "exit_layers": (),
        "bundles": (),
        "tokens_per_request": 1,
    }
