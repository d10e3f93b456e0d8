"""Maintenance windows: is it now within one? Cron's five fields, in UTC.

Called by `reassess` before a Switch. Pure: the time is an argument.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from helios_operator.api.types import MaintenanceWindow

FIELDS = (("minute", 0, 59), ("hour", 0, 23), ("day", 1, 31), ("month", 1, 12), ("weekday", 0, 7))
LONGEST = timedelta(days=366)
"""Looked back and ahead at most this far."""


def is_open(window: MaintenanceWindow, now: datetime) -> bool:
    """Some start lies less than the duration back."""
    start = _last_start(window, now)
    return start is not None and now < start + window.duration


def next_start(window: MaintenanceWindow, now: datetime) -> datetime | None:
    moment = _minute(now) + timedelta(minutes=1)
    end = now + LONGEST
    allowed = _parse(window.schedule)
    while moment < end:
        if not _day_matches(allowed, moment):
            moment = moment.replace(hour=0, minute=0) + timedelta(days=1)
        elif _time_matches(allowed, moment):
            return moment
        else:
            moment += timedelta(minutes=1)
    return None


def _last_start(window: MaintenanceWindow, now: datetime) -> datetime | None:
    moment = _minute(now)
    oldest = now - min(window.duration, LONGEST)
    allowed = _parse(window.schedule)
    while moment > oldest:
        if not _day_matches(allowed, moment):
            moment = moment.replace(hour=0, minute=0) - timedelta(minutes=1)
        elif _time_matches(allowed, moment):
            return moment
        else:
            moment -= timedelta(minutes=1)
    return None


def _minute(now: datetime) -> datetime:
    return now.astimezone(UTC).replace(second=0, microsecond=0)


def _time_matches(allowed: list[set[int]], moment: datetime) -> bool:
    return moment.minute in allowed[0] and moment.hour in allowed[1]


def _day_matches(allowed: list[set[int]], moment: datetime) -> bool:
    """As cron does: when both days are restricted, either will do."""
    days, months, weekdays = allowed[2], allowed[3], allowed[4]
    if moment.month not in months:
        return False
    by_day, by_weekday = moment.day in days, moment.isoweekday() % 7 in weekdays
    every_day, every_weekday = len(days) == 31, len(weekdays) == 7
    if every_day or every_weekday:
        return by_day and by_weekday
    return by_day or by_weekday


def _parse(schedule: str) -> list[set[int]]:
    """ValueError: not five fields, or a field out of range. The schema's pattern lets neither through."""
    parts = schedule.split()
    if len(parts) != len(FIELDS):
        raise ValueError(f"schedule {schedule!r} has {len(parts)} fields; a cron schedule has five")
    fields = [set(_field(part, *bounds)) for part, bounds in zip(parts, FIELDS, strict=True)]
    fields[4] = {day % 7 for day in fields[4]}
    return fields


def _field(text: str, name: str, lowest: int, highest: int) -> Iterator[int]:
    for part in text.split(","):
        span, _, step = part.partition("/")
        first, _, last = span.partition("-")
        start = lowest if first == "*" else int(first)
        stop = highest if first == "*" or (step and not last) else int(last or first)
        if not lowest <= start <= stop <= highest:
            raise ValueError(f"schedule: {name} {part!r} is not within {lowest}-{highest}")
        yield from range(start, stop + 1, int(step or 1))
