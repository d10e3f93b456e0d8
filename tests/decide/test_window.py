"""Maintenance windows by cron's rules, in UTC."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from helios_operator.api.types import MaintenanceWindow
from helios_operator.decide.facts.window import is_open, next_start

from tests.decide.test_stories import second_act


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


@pytest.mark.parametrize(
    ("schedule", "now", "expected"),
    [
        ("0 3 */2 * 5", "2026-11-20T03:30:00", False),
        ("0 3 1-31 * 5", "2026-11-18T03:30:00", True),
        ("0 3 29 2 *", "2028-02-29T03:30:00", True),
        ("0 2 * * *", "2026-11-22T04:00:00+01:30", True),
    ],
)
def test_cron_s_own_quirks_hold(schedule: str, now: str, expected: bool) -> None:
    """A day field that begins with a star narrows the other one; one that names every day does not."""
    moment = datetime.fromisoformat(now)
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    assert is_open(MaintenanceWindow(schedule, timedelta(hours=1)), moment) is expected


def test_a_window_that_is_years_ahead_is_found() -> None:
    window = MaintenanceWindow("0 0 29 2 *", timedelta(hours=1))
    assert next_start(window, at("2026-11-22T06:00:00")) == at("2028-02-29T00:00:00")


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/St_Johns"])
@pytest.mark.parametrize("day", ["2026-03-29", "2026-10-25", "2026-03-08", "2026-11-01"])
def test_summer_time_moves_no_window(zone: str, day: str) -> None:
    """Schedules are in UTC, whatever zone the time is told in."""
    window = MaintenanceWindow("30 2 * * *", timedelta(hours=1))
    for hour in range(24):
        moment = at(f"{day}T{hour:02}:45:00").astimezone(ZoneInfo(zone))
        assert is_open(window, moment) is (hour == 2)


def held_by(schedule: str) -> tuple[str, float | None]:
    """What is said of a Switch that waits for the window, and when somebody looks again."""
    made = second_act()
    window = MaintenanceWindow(schedule, timedelta(hours=1))
    made.edit(reassessment=replace(made.spec.reassessment, maintenance_window=window))
    made.serve(150, "code")
    assert made.status.reassessment.reason == "OutsideWindow"
    assert made.active == ("small", 26)
    return made.status.reassessment.message, made.look().requeue_after_seconds


def test_a_held_switch_says_when_the_window_opens_and_is_looked_at_then() -> None:
    message, again = held_by("0 3 1 1 *")
    assert "which opens 2027-01-01 03:00" in message
    assert again is not None


def test_a_window_that_never_opens_says_so() -> None:
    assert "which never opens: no month has this day" in held_by("0 0 30 2 *")[0]


def test_a_schedule_that_the_schema_cannot_refuse_is_named_with_its_fix() -> None:
    message, _ = held_by("0 9-5 * * *")
    assert (
        "spec.reassessment.maintenanceWindow.schedule '0 9-5 * * *': Bad hour; write each range from"
        in message
    )
