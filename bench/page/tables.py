"""Figures and tables in Markdown. Used by every page that is written from results."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"| {' | '.join('---' for _ in head)} |"
    yield from (f"| {' | '.join(row)} |" for row in rows)


def with_range(claim: Mapping[str, Any] | None, decimals: int | None = None) -> str:
    """ "1.34 (1.30 to 1.37)"; the value alone where all rounds agree. decimals: None has as many as the size
    asks for."""
    if claim is None:
        return "-"
    parts = ("value", "low", "high")
    value, low, high = ends(claim) if decimals is None else (f"{claim[part]:.{decimals}f}" for part in parts)
    return value if low == high else f"{value} ({low} to {high})"


def ends(claim: Mapping[str, Any]) -> tuple[str, str, str]:
    """Value, least and greatest: counts in full, all else to three digits."""
    value, low, high = (float(claim[end]) for end in ("value", "low", "high"))
    if all(each.is_integer() for each in (value, low, high)):
        return f"{value:.0f}", f"{low:.0f}", f"{high:.0f}"
    return _three(value), _three(low), _three(high)


def _three(value: float) -> str:
    size = abs(value)
    digits = (
        0 if size >= 100 else 1 if size >= 10 else 2 if size >= 1 or size == 0 else 3 if size >= 0.1 else 4
    )
    return f"{value:.{digits}f}"
