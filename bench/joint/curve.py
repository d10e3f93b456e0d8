"""Points of the joint curve, the front among them, and what is said of it. Pure.

Called by `__main__`, `page` and `plot`. A point is a combination of layers and precision under one offered
load; quality is a combination's, whatever the load.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from bench.frontier.front import Key, front, name
from bench.report import Claim, claim
from bench.serve.load import FAILED, REFUSED, TOLD_WHEN

MEASURED = {
    "tokens-per-second": "tokens/s",
    "e2e-p99": "ms",
    "ttft-p50": "ms",
    "ttft-p99": "ms",
}
"""Of a round (`bench.serve.figures.summary`), what is claimed, and its unit."""
_FLOORS = (99, 95, 90)
"""Of quality, in per cent: for each is said what answers soonest."""
Round = Mapping[str, float]


@dataclass(frozen=True)
class Point:
    """Medians of the rounds. offered: requests a second, and as a multiple of what full depth as published
    answers when more wait; quality: percent by domain; response: p99 until the last token; ttft, ttft_p99:
    until the first, median and p99; all in milliseconds."""

    key: Key
    load: float
    offered: float
    quality: Mapping[str, float]
    tokens_per_second: float
    response_p99_ms: float
    ttft_ms: float
    ttft_p99_ms: float

    @property
    def worst_quality(self) -> float:
        return min(self.quality.values())


@dataclass(frozen=True)
class Cell:
    """A combination under a load."""

    key: Key
    load: float
    offered: float
    rounds: Sequence[Round]

    @property
    def name(self) -> str:
        return f"{name(self.key)}-load-{self.load:g}"

    def point(self, quality: Mapping[str, float]) -> Point:
        tokens, response, ttft, late = (median(each[what] for each in self.rounds) for what in MEASURED)
        return Point(self.key, self.load, self.offered, quality, tokens, response, ttft, late)


def claims(cells: Sequence[Cell], quality: Mapping[str, Mapping[Key, Claim]]) -> Iterator[Claim]:
    """Medians of the rounds, with their least and greatest; of calls that failed, all."""
    for by_key in quality.values():
        yield from by_key.values()
    for cell in cells:
        for what, unit in MEASURED.items():
            yield claim(f"{what}-{cell.name}", [each[what] for each in cell.rounds], unit)
        refused = sum(each[TOLD_WHEN] + each[REFUSED] for each in cell.rounds)
        yield Claim(f"refused-{cell.name}", refused, refused, refused, "requests")
    failed = sum(each[FAILED] for cell in cells for each in cell.rounds)
    yield Claim("failed", failed, failed, failed, "requests")


def on_front(points: Sequence[Point], load: float) -> list[Point]:
    """Those under a load than which no other is better in quality, tokens a second or p99 response and as
    good in all."""
    return front(
        [point for point in points if point.load == load],
        lambda point: (*point.quality.values(), point.tokens_per_second, -point.response_p99_ms),
    )


def told(points: Sequence[Point]) -> Iterator[str]:
    """For each load, what answers soonest at which quality, worst domain."""
    for load in sorted({point.load for point in points}):
        here = [point for point in points if point.load == load]
        soonest: dict[Key, list[int]] = {}
        for floor in _FLOORS:
            good = [point for point in here if point.worst_quality >= floor]
            if good:
                best = min(good, key=lambda point: point.response_p99_ms)
                soonest.setdefault(best.key, []).append(floor)
        for key, floors in soonest.items():
            best = next(point for point in here if point.key == key)
            asked = " or ".join(f"{floor} %" for floor in floors)
            yield (
                f"load {load:g}, {asked} of quality asked: {words(key)} answers soonest, p99 "
                f"{best.response_p99_ms:.0f} ms at {best.tokens_per_second:.0f} tokens/s"
            )


def words(key: Key) -> str:
    layers, precision = key
    return f"{layers} layers in {precision}"
