"""Percentiles of histograms: the bucket that one is in, and where in it, if values lie evenly there.

Called by `live`. Histograms with the same bounds come in; it must not know targets or pods.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from helios_contract.telemetry import Histogram


@dataclass(frozen=True)
class Percentile:
    """Above `low` and at most `high`, in the bounds' unit."""

    low: float
    """Of the bucket that holds it, in the bounds' unit."""
    high: float | None
    """Of that bucket; None: it is the last, which is open."""
    value: float
    """A guess between them, to compare with a target and not to be shown: the buckets hold no more digits."""

    def __str__(self) -> str:
        if self.high is None:
            return f"above {self.low:g}"
        return f"{self.low:g} to {self.high:g}" if self.low else f"up to {self.high:g}"

    def is_above(self, target: float) -> str:
        """In words, as sure as the bucket is."""
        return "above" if self.low >= target else "likely above"


def of(histograms: Sequence[Histogram], percent: float) -> Percentile | None:
    """Of all values together; None without one."""
    filled = [h for h in histograms if sum(h.counts)]
    if not filled:
        return None
    bounds = filled[0].upper_bounds
    alike = [h.counts for h in filled if h.upper_bounds == bounds]
    counts = [sum(column) for column in zip(*alike, strict=True)]
    rank, below = sum(counts) * percent / 100, 0
    for index, count in enumerate(counts):
        if count and below + count >= rank:
            low = float(bounds[index - 1]) if index else 0.0
            if index == len(bounds):
                return Percentile(low, None, low)
            high = float(bounds[index])
            return Percentile(low, high, low + (high - low) * (rank - below) / count)
        below += count
    return None


def in_order(
    first: Percentile | None, whole: Percentile | None
) -> tuple[Percentile | None, Percentile | None]:
    """Of a part of something and of all of it, whose buckets may differ: the part is never the longer. A
    part that is counted before the whole has ended may lie above it: then the whole is to be no shorter."""
    if first is None or whole is None:
        return first, whole
    if whole.high is not None and first.low >= whole.high:
        return first, first
    high = whole.high if first.high is None else min(first.high, whole.high or first.high)
    low = max(first.low, whole.low)
    value = first.value if high is None else min(first.value, high)
    return replace(first, high=high, value=value), replace(whole, low=low, value=max(whole.value, low, value))
