"""What gRPC raises, as exceptions that name field, problem and fix; and how long a request waits."""

from __future__ import annotations

from typing import Any

import grpc
import helios_client
import pytest
from google.protobuf import any_pb2
from google.rpc import status_pb2
from helios_client import HeliosError, ResourceExhausted, errors
from helios_client.status_details import KEY, retry_after
from helios_client.waiting import Patience
from helios_server.errors import QueueFull
from helios_server.rpc.errors import rich_status
from hypothesis import given
from hypothesis import strategies as st

AT = "127.0.0.1:8033"
FULL = QueueFull("max_queue_size", "16 requests are waiting", "Try again later", 2.5)


def raised(code: str, details: str, **trailing: Any) -> HeliosError:
    """What becomes of an error of gRPC."""
    metadata = grpc.aio.Metadata(*trailing.items())
    return errors.of(grpc.aio.AioRpcError(grpc.StatusCode[code], grpc.aio.Metadata(), metadata, details), AT)


def full(seconds: float = 2.5) -> HeliosError:
    error = QueueFull(FULL.field, FULL.problem, FULL.fix, seconds)
    status = rich_status(error)
    assert status is not None
    return raised("RESOURCE_EXHAUSTED", str(error), **{KEY: status.SerializeToString()})


def test_every_status_has_its_exception() -> None:
    kinds = {code.name: type(raised(code.name, "")).__name__ for code in grpc.StatusCode}
    named = {kind for kind in kinds.values() if kind != "Internal"}
    assert (
        kinds.items()
        >= {
            "INVALID_ARGUMENT": "InvalidArgument",
            "NOT_FOUND": "NotFound",
            "UNAUTHENTICATED": "Unauthenticated",
            "PERMISSION_DENIED": "Unauthenticated",
            "RESOURCE_EXHAUSTED": "ResourceExhausted",
            "UNAVAILABLE": "Unavailable",
            "DEADLINE_EXCEEDED": "DeadlineExceeded",
            "CANCELLED": "Cancelled",
            "INTERNAL": "Internal",
            "UNKNOWN": "Internal",
        }.items()
    )
    public = {name for name in helios_client.__all__ if name in vars(errors)}
    assert public == named | {"Internal", "HeliosError"}


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        ("text: is empty; Give the text to continue", ("text", "is empty", "Give the text to continue")),
        ("messages: refused (a: b; c); Give others", ("messages", "refused (a: b; c)", "Give others")),
        ("text: of\ntwo lines; Give one", ("text", "of\ntwo lines", "Give one")),
    ],
)
def test_the_servers_words_are_field_problem_and_fix(words: str, parts: tuple[str, str, str]) -> None:
    error = raised("INVALID_ARGUMENT", words, **{"helios-model": "chat", "other": "x"})
    assert (error.field, error.problem, error.fix) == parts
    assert (str(error), error.code, error.metadata) == (words, "INVALID_ARGUMENT", {"helios-model": "chat"})


@pytest.mark.parametrize(
    ("code", "words", "field"),
    [
        ("UNAVAILABLE", "failed to connect to all addresses; last error: UNKNOWN: ipv4:1: Refused", AT),
        ("UNAVAILABLE", "", AT),
        ("RESOURCE_EXHAUSTED", "CLIENT: Sent message larger than max (5 vs. 4)", "message"),
        ("DEADLINE_EXCEEDED", "Deadline Exceeded", "timeout"),
        ("CANCELLED", "Locally cancelled by application!", "call"),
        ("INTERNAL", "the server failed; its log has the trace", "call"),
        ("UNKNOWN", "Stream removed", "call"),
    ],
)
def test_what_grpc_says_by_itself_has_a_field_and_a_fix_too(code: str, words: str, field: str) -> None:
    error = raised(code, words)
    assert error.field == field
    assert error.problem
    assert error.fix


def test_a_full_queue_says_its_seconds_twice() -> None:
    error = full()
    assert isinstance(error, ResourceExhausted)
    assert error.retry_after == 2.5
    assert str(error) == f"{FULL}, in 2.5 seconds"
    assert isinstance(other := raised("RESOURCE_EXHAUSTED", "client: reads not; Read"), ResourceExhausted)
    assert other.retry_after is None


def test_details_of_another_kind_say_no_seconds() -> None:
    other = any_pb2.Any()
    other.Pack(status_pb2.Status(code=1))
    for details in (b"", b"\xff\xff", status_pb2.Status(details=[other]).SerializeToString()):
        assert retry_after(details) is None


@given(
    told=st.lists(st.floats(0, 20), max_size=30),
    seconds=st.floats(0, 100),
    timeout=st.none() | st.floats(0, 100),
)
def test_waits_are_bounded_and_never_shorter_than_told(
    told: list[float], seconds: float, timeout: float | None
) -> None:
    patience, waited = Patience(seconds, timeout), 0.0
    for retry_seconds in told:
        pause = patience.pause(full(retry_seconds))
        if pause is None:
            break
        assert pause >= round(retry_seconds, 3)
        assert pause > 0
        waited += pause
        assert timeout is None or pause < timeout
    assert waited <= seconds + 1e-6


@pytest.mark.parametrize("code", [code.name for code in grpc.StatusCode])
def test_only_a_full_queue_is_waited_for(code: str) -> None:
    assert Patience(1000, None).pause(raised(code, "field: problem; fix")) is None
    assert Patience(1000, None).pause(full()) is not None
    assert Patience(0, None).pause(full(0)) is None
    assert Patience(1000, 1).pause(full()) is None  # it would end in its wait
