"""Go durations and RFC 3339 times, against the rules that admit them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from helios_operator.api.durations import format_duration, parse_duration
from helios_operator.api.timestamps import format_time, parse_time
from helios_operator.api.validation import Invalid, admit
from hypothesis import given
from hypothesis import strategies as st

from tests.api.objects import minimal, put


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("1h30m", 5400), ("500ms", 0.5), ("1.5h", 5400), ("0s", 0), ("1m1m", 120), ("2us", 2e-6)],
)
def test_durations_are_read(text: str, seconds: float) -> None:
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "5", "h", "-1s", "1 h", "1d", "1h ", "1,5h", "1H", "١s", "1s\n"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(5400, "1h30m"), (0.5, "500ms"), (0, "0s"), (3601, "1h1s"), (90061, "25h1m1s"), (1e-6, "1us")],
)
def test_durations_are_written_short(seconds: float, text: str) -> None:
    assert format_duration(timedelta(seconds=seconds)) == text


def test_a_negative_duration_is_not_written() -> None:
    with pytest.raises(ValueError, match="not negative"):
        format_duration(timedelta(seconds=-1))


@given(st.timedeltas(timedelta(0), timedelta(days=400)))
def test_durations_come_back(duration: timedelta) -> None:
    assert parse_duration(format_duration(duration)) == duration


@given(
    st.text("0123456789.hmsu -+", max_size=12) | st.from_regex(r"([0-9]{1,4}(ms|s|m|h)){1,3}", fullmatch=True)
)
def test_the_rule_and_the_parser_agree(text: str) -> None:
    try:
        admit(put(minimal(), "spec.reassessment.interval", text))
    except Invalid:
        return
    assert timedelta(seconds=1) <= parse_duration(text) <= timedelta(hours=8760)


def test_times_are_read_and_written_in_utc() -> None:
    time = parse_time("2026-11-22T07:00:00+01:00")
    assert time == datetime(2026, 11, 22, 6, tzinfo=UTC)
    assert format_time(time) == "2026-11-22T06:00:00Z"
    assert format_time(time.astimezone(timezone(timedelta(hours=5)))) == "2026-11-22T06:00:00Z"
    assert format_time(time.replace(microsecond=250000)) == "2026-11-22T06:00:00.250000Z"


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="no time zone"):
        parse_time("2026-11-22T07:00:00")
