"""Strategies for what crosses between the parts, and the words of 0.1.0."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
from helios_contract.limits import Audit, Baseline, Limits, TaskProbe
from helios_contract.serves import Bundle
from helios_contract.telemetry import (
    Alarm,
    AuditRow,
    BreachCounter,
    Capacity,
    Energy,
    Histogram,
    PromptSet,
    Refusal,
    StepTiming,
    TaskCounts,
    Telemetry,
)
from hypothesis import strategies as st

V0_1_0 = Path(__file__).parent / "golden" / "v0_1_0"

text = st.text(st.characters(blacklist_categories=("Cs",)), max_size=8)
small = st.integers(0, 2**31)
positive = st.integers(1, 2**31)
large = st.integers(0, 2**53)
fraction = st.floats(0, 1)
single = st.floats(0, 1e6, width=32)
baselines = st.builds(Baseline, fraction, fraction)
audits = st.builds(
    Audit,
    st.integers(0, 100),
    st.lists(st.builds(Bundle, text, text, text), max_size=3).map(tuple),
    st.none() | baselines,
    st.none() | baselines,
)
precisions = st.sampled_from(["auto", "int8", "fp8"])
limits = st.builds(
    Limits,
    generation=large,
    candidate=text,
    model_uri=text,
    model_revision=text,
    exits_uri=text,
    exits_digest=text,
    layer_budget=small,
    exit_mode=st.sampled_from(["sequence", "token"]),
    exit_threshold=st.floats(0, 2),
    weight_dtype=precisions,
    kv_cache_dtype=precisions,
    max_batch_size=small,
    memory_mib=small,
    max_queue_size=positive,
    exit_layers=st.lists(small, max_size=4).map(tuple),
    audit=audits,
    live_prompts=small,
    breach_threshold=fraction,
    tokens_per_request=positive,
    task_probe=st.none() | st.builds(TaskProbe, text, st.floats(0, 1e9), small, text),
)
histograms = st.builds(
    Histogram,
    st.lists(st.floats(0, 1e9), max_size=3).map(tuple),
    st.lists(large, max_size=4).map(tuple),
    st.floats(0, 1e9),
)
audit_rows = st.builds(
    AuditRow,
    *(large, small, small, large),
    st.dictionaries(st.tuples(text, small), st.tuples(large, small)),
    st.sampled_from(["auto", "own"]),
)
telemetries = st.builds(
    Telemetry,
    boot_id=text,
    limits=limits,
    uptime_seconds=st.floats(0, 1e9),
    capacity=st.builds(Capacity, *[small] * 4, *[large] * 4),
    ready=st.booleans(),
    draining=st.booleans(),
    running=small,
    waiting=small,
    requests_finished=large,
    requests_failed=large,
    prompt_tokens=large,
    generation_tokens=large,
    preemptions=large,
    batch_reached=small,
    requests_since_change=large,
    ttft_ms=histograms,
    itl_ms=histograms,
    e2e_ms=histograms,
    confidence_percent=histograms,
    audits=st.lists(audit_rows, max_size=2).map(tuple),
    alarms=st.lists(
        st.builds(Alarm, text, text, large, large, st.floats(0, 9), st.floats(0, 2e9)), max_size=2
    ).map(tuple),
    breaches=st.builds(BreachCounter, single, small, small, large),
    prompts=st.none() | st.builds(PromptSet, text, small, large, large),
    steps=st.lists(st.builds(StepTiming, *[small] * 4, large, st.floats(0, 1e9)), max_size=2).map(tuple),
    energy=st.none() | st.builds(Energy, text, st.floats(0, 1e9)),
    generation_tokens_per_second=single,
    refused=st.none() | st.builds(Refusal, large, text),
    contract_version=small,
    tasks=st.none() | st.builds(TaskCounts, large, large),
    seconds_since_step=st.floats(0, 1e9),
)


def read_by_0_1_0(document: str) -> Any:
    """The limits as 0.1.0 reads them: strictly, by the messages that it had. ParseError for what it
    refuses."""
    file = descriptor_pb2.FileDescriptorProto()
    json_format.Parse((V0_1_0 / "control.descriptor.json").read_text(), file)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    kind = message_factory.GetMessageClass(pool.FindMessageTypeByName("helios.v1.Limits"))
    return json_format.Parse(document, kind())


def golden(name: str) -> Any:
    return json.loads((V0_1_0 / name).read_text())
