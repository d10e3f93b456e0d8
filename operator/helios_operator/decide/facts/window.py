"""Maintenance windows: is it now within one, and when does the next begin? Cron's five fields, in UTC.

Called by `reassess` before a Switch, and by `decide` for the next moment to look. cronsim keeps cron's rules;
the time is an argument. It must not say what a window holds back.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from cronsim import CronSim, CronSimError

from helios_operator.api.types import MaintenanceWindow

FIELDS = 5


def is_open(window: MaintenanceWindow, now: datetime) -> bool:
    """Some start lies less than the duration back."""
    at_or_before = now.astimezone(UTC).replace(microsecond=0) + timedelta(seconds=1)
    start = next(_starts(window.schedule, at_or_before, reverse=True), None)
    return start is not None and now < start + window.duration


def next_start(window: MaintenanceWindow, now: datetime) -> datetime | None:
    """None: on no day that there is."""
    return next(_starts(window.schedule, now.astimezone(UTC), reverse=False), None)


def _starts(schedule: str, moment: datetime, reverse: bool) -> Iterator[datetime]:
    """Not at the moment itself. ValueError: not five fields, or a field out of range. The CRD's rules let
    neither through."""
    parts = schedule.split()
    if len(parts) != FIELDS:
        raise ValueError(f"schedule {schedule!r} has {len(parts)} fields; a cron schedule has five")
    try:
        return CronSim(schedule, moment, reverse)
    except CronSimError as error:
        if _is_of_no_day(parts):
            return iter(())
        raise ValueError(f"schedule {schedule!r}: {error}") from error


def _is_of_no_day(parts: list[str]) -> bool:
    """The thirtieth of February: each field is one, and another month would have the day."""
    minute, hour, day, _, weekday = parts
    try:
        CronSim(f"{minute} {hour} {day} * {weekday}", datetime.fromtimestamp(0, UTC))
        CronSim(f"{minute} {hour} * {parts[3]} {weekday}", datetime.fromtimestamp(0, UTC))
    except CronSimError:
        return False
    return True
