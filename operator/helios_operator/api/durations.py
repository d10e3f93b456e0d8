"""Go duration strings, as the CRDs write them: "90s", "1h30m", "250ms".

Called by `api.codec` in both directions. It accepts what the CRDs' rules admit and must not be laxer than
they are.
"""

from __future__ import annotations

import re
from datetime import timedelta

_MICROSECONDS = {"h": 3_600_000_000, "m": 60_000_000, "s": 1_000_000, "ms": 1_000, "us": 1}
_TERM = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|us|h|m|s)")


def parse_duration(text: str) -> timedelta:
    """ValueError when it is no duration. Resolution is a microsecond."""
    terms = _TERM.findall(text)
    if not terms or "".join(number + unit for number, unit in terms) != text:
        raise ValueError(f"{text!r} is not a duration such as 90s, 30m or 1h30m")
    return timedelta(microseconds=round(sum(float(number) * _MICROSECONDS[unit] for number, unit in terms)))


def format_duration(duration: timedelta) -> str:
    """The shortest form with whole numbers: 5400 s is "1h30m", half a second "500ms"."""
    rest = round(duration / timedelta(microseconds=1))
    if rest < 0:
        raise ValueError(f"durations are not negative, got {duration}")
    text = ""
    for unit, size in _MICROSECONDS.items():
        count, rest = divmod(rest, size)
        text += f"{count}{unit}" if count else ""
    return text or "0s"
