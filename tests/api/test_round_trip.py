"""Types become objects and come back as they were; what is written passes its own schema."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from datetime import UTC, datetime, timedelta
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

from helios_contract.results import (
    EnergyCost,
    EnergyPoint,
    ExitQuality,
    HeadCost,
    MemoryFacts,
    StepTimeFit,
    TimingPoint,
)
from helios_operator.api import parse, serialize
from helios_operator.api.models import Model
from helios_operator.api.rows import QualityIdentity, QualityRow, RowPhase, TimingIdentity, TimingRow
from helios_operator.api.types import (
    Condition,
    Decision,
    Deployment,
    DeploymentSpec,
    DeploymentStatus,
    HistoryEntry,
    Owner,
    Served,
)
from helios_operator.api.validation import admit
from hypothesis import given
from hypothesis import strategies as st

from tests.api.objects import minimal

WORDS = st.text("abcdefghij-", min_size=1, max_size=12)
COUNTS = st.integers(0, 2**31 - 1)
TIMES = st.datetimes(datetime(2020, 1, 1), datetime(2099, 1, 1), timezones=st.just(UTC))

SCALARS: dict[Any, st.SearchStrategy[Any]] = {
    int: COUNTS,
    str: WORDS,
    bool: st.booleans(),
    float: st.integers(0, 1000).map(lambda milli: milli / 1000),
    datetime: TIMES,
    timedelta: st.timedeltas(timedelta(0), timedelta(days=365)),
    Any: WORDS,
}


def records(kind: Any) -> st.SearchStrategy[Any]:
    """Any value of a dataclass, field by field."""
    hints = get_type_hints(kind)
    return st.builds(kind, **{field.name: values(hints[field.name]) for field in fields(kind)})


def values(hint: Any) -> st.SearchStrategy[Any]:
    arguments = get_args(hint)
    if NoneType in arguments:
        return st.none() | values(next(option for option in arguments if option is not NoneType))
    origin = get_origin(hint)
    if origin is tuple and len(arguments) == 2 and arguments[1] is Ellipsis:
        return st.lists(values(arguments[0]), max_size=3).map(tuple)
    if origin is tuple:
        return st.tuples(*(values(argument) for argument in arguments))
    if origin is not None:
        return st.dictionaries(values(arguments[0]), values(arguments[1]), max_size=3)
    return (
        records(hint) if is_dataclass(hint) else SCALARS[hint] if hint in SCALARS else st.sampled_from(hint)
    )


@given(records(DeploymentSpec), records(DeploymentStatus), st.dictionaries(WORDS, WORDS, max_size=2))
def test_a_deployment_comes_back(spec: Any, status: Any, labels: dict[str, str]) -> None:
    before = Deployment("chat", "team-a", "1-2-3", 7, spec, status, annotations=labels, labels=labels)
    assert parse.deployment(serialize.deployment(before)) == before


@given(records(Model))
def test_a_model_comes_back(model: Any) -> None:
    accelerator = model.published.accelerator if model.published.tokens_per_second else None
    model = replace(
        model,
        candidate=replace(model.candidate, name=model.name),
        published=replace(model.published, accelerator=accelerator),
    )
    assert parse.model(serialize.model(model)) == model


@st.composite
def fits(draw: st.DrawFn) -> StepTimeFit:
    """With a figure for each number of rows that was timed."""
    rows = sorted(draw(st.sets(st.integers(1, 128), max_size=3)))
    each, at_most = (
        st.lists(COUNTS, min_size=least, max_size=len(rows)).map(tuple) for least in (len(rows), 0)
    )
    heads = st.dictionaries(WORDS, st.builds(HeadCost, COUNTS, COUNTS, at_most), max_size=3)
    return StepTimeFit(*(draw(COUNTS) for _ in range(4)), draw(heads), draw(COUNTS), tuple(rows), draw(each))


def timing_rows() -> st.SearchStrategy[TimingRow]:
    return st.builds(
        TimingRow,
        name=WORDS,
        identity=records(TimingIdentity).map(
            lambda i: replace(i, hardware=replace(i.hardware, dtype=i.dtype))
        ),
        phase=st.sampled_from(RowPhase),
        message=WORDS,
        completed=st.none() | TIMES,
        fit=st.none() | fits(),
        memory=st.none() | records(MemoryFacts),
        exit_bytes=st.dictionaries(WORDS, COUNTS, max_size=2),
        audit_bytes=COUNTS,
        energy=st.none() | records(EnergyCost),
        points=st.lists(records(TimingPoint), max_size=3).map(tuple),
    )


def quality_rows() -> st.SearchStrategy[QualityRow]:
    exits = st.lists(records(ExitQuality), min_size=1, max_size=3).map(tuple)
    measured = st.builds(
        QualityRow,
        name=WORDS,
        identity=records(QualityIdentity),
        phase=st.sampled_from(RowPhase),
        message=WORDS,
        completed=st.none() | TIMES,
        prompts=COUNTS,
        tokens=COUNTS,
        bytes=COUNTS,
        prompt_bytes=st.lists(COUNTS, max_size=3).map(tuple),
        exits=exits,
    )
    return measured | st.builds(QualityRow, WORDS, records(QualityIdentity), st.sampled_from(RowPhase), WORDS)


@given(timing_rows() | quality_rows())
def test_a_row_comes_back(row: TimingRow | QualityRow) -> None:
    assert parse.profile_row(serialize.profile(row, owners=[Owner("chat", "1-2-3")])) == row


def test_rows_that_are_written_are_admitted() -> None:
    identity = TimingIdentity("hf://a/b", "r", "float16", ("mlp",), example_hardware(), 1)
    completed = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    timing = TimingRow(
        "t-1",
        identity,
        RowPhase.COMPLETE,
        completed=completed,
        fit=StepTimeFit(1, 2, 3, 4),
        memory=MemoryFacts(1, 2, 3, 4, 5, 6, 7, 8),
        exit_bytes={"mlp": 9},
        energy=EnergyCost("declared", (EnergyPoint(30, 4, 5),), 6),
        points=(TimingPoint(30, 4, 100, 4, "mlp", 10, 12),),
    )
    quality = QualityRow(
        "q-1",
        QualityIdentity("hf://a/b", "r", "", "sha256:0"),
        RowPhase.FAILED,
        "out of memory",
        completed,
        prompts=2,
        tokens=20,
        bytes=100,
        prompt_bytes=(40, 60),
        exits=(ExitQuality(30, 83600, 100, 40, 8, 900, (40000, 43600)),),
    )
    for row in (timing, quality):
        written = serialize.profile(row, namespace="team-a", owners=[Owner("chat", "1-2-3")])
        assert admit(written) == written


def example_hardware() -> Any:
    from helios_operator.api.rows import Hardware

    return Hardware(None, 0, 16000, "EPYC", 2, "float16")


def test_bits_per_byte_stand_beside_the_totals_for_people() -> None:
    row = QualityRow(
        "q-1",
        QualityIdentity("u", "r", "", "sha256:0"),
        RowPhase.COMPLETE,
        bytes=100,
        exits=(ExitQuality(24, 90500, 83, 31, 12), ExitQuality(30, 83600, 100, 15, 8)),
    )
    written = serialize.quality(row)["status"]["quality"]
    assert written["fullDepthMillibitsPerByte"] == 836
    assert [depth["millibitsPerByte"] for depth in written["exits"]] == [905, 836]


@given(records(DeploymentStatus))
def test_a_status_that_is_written_is_admitted(status: DeploymentStatus) -> None:
    status = replace(
        status,
        conditions=tuple(
            replace(condition, type=f"T{i}", status="True", reason="Serving")
            for i, condition in enumerate(status.conditions)
        ),
        candidates=tuple(replace(candidate, name=f"c{i}") for i, candidate in enumerate(status.candidates)),
    )
    admit({**minimal(), "status": serialize.status(status)})


def test_messages_are_cut_to_what_the_schema_takes() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    endless = "no " * 20000
    status = DeploymentStatus(
        conditions=(Condition("Ready", "False", "NoReplicaServing", endless, now, 1),),
        history=(HistoryEntry(now, Decision.GROW, Served("a", 1, 27, 4, ""), None, "r", endless, "Failed"),),
    )
    written = serialize.status(status)
    admit({**minimal(), "status": written})
    assert written["conditions"][0]["message"].endswith("…")
    assert len(written["history"][0]["message"]) == serialize.MESSAGE_LIMIT


def test_owners_of_a_row_neither_control_it_nor_hold_up_its_deletion() -> None:
    row = QualityRow("q-1", QualityIdentity("u", "r", "", "sha256:0"), RowPhase.PENDING)
    references = serialize.quality(row, owners=[Owner("a", "1"), Owner("b", "2")])["metadata"][
        "ownerReferences"
    ]
    assert [(owner["name"], owner["uid"]) for owner in references] == [("a", "1"), ("b", "2")]
    assert not any(owner["controller"] or owner["blockOwnerDeletion"] for owner in references)
