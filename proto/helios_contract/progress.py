"""How far a measurement is, as `helios profile` says it among its other lines, and `helios up` hears it."""

from __future__ import annotations

import re

_LINE = re.compile(r"^\[ *[\d.]+ s\] progress: (?P<words>.+)$")


def words(share: float, seconds_left: float) -> str:
    """`share`: done, 0 to 1."""
    return f"progress: {100 * share:.0f} %, about {seconds_left:.0f} s left"


def heard(line: str) -> str | None:
    """What such a line says: "40 %, about 30 s left"; None of any other."""
    found = _LINE.match(line)
    return found["words"] if found else None
