"""Maintenance windows by cron's rules, in UTC."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from helios_operator.api.types import MaintenanceWindow
from helios_operator.decide.facts.window import is_open, next_start


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("schedule", "hours", "now", "expected"),
    [
        ("0 2 * * *", 4, "2026-11-22T02:00:00", True),
        ("0 2 * * *", 4, "2026-11-22T05:59:59", True),
        ("0 2 * * *", 4, "2026-11-22T06:00:00", False),
        ("0 2 * * *", 4, "2026-11-22T01:59:59", False),
        ("0 23 * * *", 4, "2026-11-22T01:30:00", True),
        ("30 1 * * 0", 1, "2026-11-22T02:00:00", True),
        ("30 1 * * 7", 1, "2026-11-22T02:00:00", True),
        ("30 1 * * 1-5", 1, "2026-11-22T02:00:00", False),
        ("0 0 1 * *", 24, "2026-11-01T12:00:00", True),
        ("0 0 1 * *", 24, "2026-11-02T12:00:00", False),
        ("*/15 * * * *", 0.1, "2026-11-22T10:47:00", True),
        ("*/15 * * * *", 0.1, "2026-11-22T10:52:00", False),
        ("0 3 13 * 5", 1, "2026-11-20T03:30:00", True),
        ("0 3 13 * 5", 1, "2026-10-13T03:30:00", True),
        ("0 3 13 * 5", 1, "2026-11-22T03:30:00", False),
        ("0 4 * 12 *", 1, "2026-11-22T04:30:00", False),
    ],
)
def test_is_open(schedule: str, hours: float, now: str, expected: bool) -> None:
    assert is_open(MaintenanceWindow(schedule, timedelta(hours=hours)), at(now)) is expected


def test_next_start() -> None:
    window = MaintenanceWindow("0 2 * * 1", timedelta(hours=1))
    assert next_start(window, at("2026-11-22T06:00:00")) == at("2026-11-23T02:00:00")
    assert next_start(MaintenanceWindow("0 0 30 2 *", timedelta(hours=1)), at("2026-11-22T06:00:00")) is None


@pytest.mark.parametrize("schedule", ["0 2 * *", "60 2 * * *", "0 2 0 * *", "5-1 * * * *"])
def test_a_schedule_that_is_none_is_refused_by_name(schedule: str) -> None:
    with pytest.raises(ValueError, match="schedule"):
        is_open(MaintenanceWindow(schedule, timedelta(hours=1)), at("2026-11-22T06:00:00"))
