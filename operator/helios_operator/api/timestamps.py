"""RFC 3339 times in UTC, as the API writes them: "2026-11-22T06:00:00Z", with a fraction only when there is
one."""

from __future__ import annotations

from datetime import UTC, datetime

NEVER = datetime.fromtimestamp(0, UTC)
"""Before all that has happened."""


def parse_time(text: str) -> datetime:
    """ValueError when it is no RFC 3339 time, or one without a zone."""
    time = datetime.fromisoformat(text)
    if time.tzinfo is None:
        raise ValueError(f"{text!r} has no time zone; end it with Z for UTC")
    return time.astimezone(UTC)


def format_time(time: datetime) -> str:
    return time.astimezone(UTC).isoformat().replace("+00:00", "Z")
