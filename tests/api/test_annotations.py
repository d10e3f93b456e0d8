"""Requests by hand."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from helios_operator.api.annotations import (
    REASSESS,
    SWITCH_TO,
    Request,
    newest_request,
    reassess_value,
    switch_value,
)

NOW = datetime(2026, 11, 22, 6, tzinfo=UTC)


def test_nothing_asked() -> None:
    assert newest_request({"unrelated": "x"}) is None


def test_requests_come_back_and_the_newest_counts() -> None:
    reassess = {REASSESS: reassess_value(NOW)}
    switch = {SWITCH_TO: switch_value("chat-8b", NOW + timedelta(seconds=1))}
    assert newest_request(reassess) == Request(NOW)
    assert newest_request(reassess | switch) == Request(NOW + timedelta(seconds=1), "chat-8b")


def test_a_mistyped_request_counts_as_answered_long_ago() -> None:
    for mistyped in ({REASSESS: "now"}, {SWITCH_TO: "chat-8b"}, {SWITCH_TO: ""}):
        request = newest_request(mistyped)
        assert request is not None
        assert request.asked < NOW - timedelta(days=10000)
