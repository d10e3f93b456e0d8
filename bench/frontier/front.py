"""The Pareto front, and what it says of depths in plain words. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from helios_contract.serves import Precision

Key = tuple[int, Precision]
P = TypeVar("P")


@dataclass(frozen=True)
class Point:
    """A combination as it was measured. quality: percent of full depth as published, by domain; rows: that
    the limit holds; joules_per_token: None where nothing measures it."""

    layers: int
    precision: Precision
    quality: Mapping[str, float]
    rows: int
    tokens_per_second: float
    joules_per_token: float | None = None

    @property
    def key(self) -> Key:
        """By which it is known."""
        return self.layers, self.precision


def name(key: Key) -> str:
    """As a part of a claim's name."""
    layers, precision = key
    return f"{layers}-{precision.weight_dtype}-{precision.kv_cache_dtype}"


def front(points: Sequence[P], worth: Callable[[P], Sequence[float]]) -> list[P]:
    """The points than which no other is better in one thing and as good in all, in the order given.

    worth: what of a point is better when it is more. Equal points stay or go together.
    """
    worths = [worth(point) for point in points]
    return [point for point, own in zip(points, worths, strict=True) if not _is_dominated(own, worths)]


def _is_dominated(own: Sequence[float], others: Sequence[Sequence[float]]) -> bool:
    return any(
        all(theirs >= mine for theirs, mine in zip(other, own, strict=True)) and tuple(other) != tuple(own)
        for other in others
    )


def by_speed(points: Sequence[Point], domain: str) -> list[Point]:
    """Of quality on a domain and tokens a second, the best first in quality."""
    found = front(points, lambda point: (point.quality[domain], point.tokens_per_second))
    return sorted(found, key=lambda point: -point.quality[domain])


def told(points: Sequence[Point], domain: str) -> Iterator[str]:
    """For each depth below full, deepest first: at which quality it is on the front, or what beats it."""
    on_front = by_speed(points, domain)
    deepest = max(point.layers for point in points)
    for layers in sorted({point.layers for point in points} - {deepest}, reverse=True):
        ways = [point for point in on_front if point.layers == layers]
        if ways:
            listed = ", ".join(f"{way.precision} at {way.quality[domain]:.2f} %" for way in ways)
            yield f"{domain}: {layers} layers are on the front in {listed}"
            continue
        best = max((p for p in points if p.layers == layers), key=lambda point: point.tokens_per_second)
        better = next(way for way in on_front if _beats(way, best, domain))
        yield (
            f"{domain}: {layers} layers are not on the front in any precision; the fastest of them, "
            f"{best.precision} at {_worth(best, domain)}, is beaten by {better.layers} layers in "
            f"{better.precision}: {_worth(better, domain)}"
        )


def _worth(point: Point, domain: str) -> str:
    return f"{point.quality[domain]:.2f} % with {point.tokens_per_second:.0f} tokens/s"


def _beats(way: Point, other: Point, domain: str) -> bool:
    return way.quality[domain] >= other.quality[domain] and way.tokens_per_second >= other.tokens_per_second
