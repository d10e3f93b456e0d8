"""From what was measured to points and claims. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from bench.frontier.front import Key, Point, name
from bench.report import Claim, claim

_SIGMAS = 1.96


@dataclass
class Measured:
    """rounds: of each combination, by layers and precision, one run a round."""

    quality: Mapping[str, Mapping[Key, Claim]]
    rows: Mapping[Key, int]
    tokens_per_second: dict[Key, list[float]] = field(default_factory=dict)
    joules_per_token: dict[Key, list[float]] = field(default_factory=dict)

    def points(self) -> list[Point]:
        """Medians of the rounds, in the order in which they were measured."""
        return [
            Point(
                layers=layers,
                precision=precision,
                quality={domain: by_key[layers, precision].value for domain, by_key in self.quality.items()},
                rows=self.rows[layers, precision],
                tokens_per_second=median(rates),
                joules_per_token=median(spent) if (spent := self._joules((layers, precision))) else None,
            )
            for (layers, precision), rates in self.tokens_per_second.items()
        ]

    def _joules(self, key: Key) -> list[float]:
        return self.joules_per_token.get(key, [])


def quality_claim(domain: str, key: Key, reference: Sequence[int], millibits: Sequence[int]) -> Claim:
    """Percent of the reference's quality, of windows in pairs, with its interval."""
    value, low, high = share_of_quality(reference, millibits)
    return Claim(f"quality-{domain}-{name(key)}", value, low, high, "percent")


def share_of_quality(reference: Sequence[float], bits: Sequence[float]) -> tuple[float, float, float]:
    """Percent: the reference's bits over these, with the interval in which 95 of 100 such texts would put it,
    from the texts in pairs."""
    share = sum(reference) / sum(bits)
    left = [above - share * below for above, below in zip(reference, bits, strict=True)]
    count = len(left)
    error = (sum(x * x for x in left) * count / max(count - 1, 1)) ** 0.5 / sum(bits)
    value, low, high = (round(100 * (share + sign * _SIGMAS * error), 3) for sign in (0, -1, 1))
    return value, low, high


def claims(measured: Measured, full: Key) -> Iterator[Claim]:
    """full: full depth as published, which ratios are of, each of its own round."""
    for by_key in measured.quality.values():
        yield from by_key.values()
    base = measured.tokens_per_second[full]
    for key, rates in measured.tokens_per_second.items():
        yield claim(f"rows-{name(key)}", [measured.rows[key]], "rows")
        yield claim(f"tokens-per-second-{name(key)}", rates, "tokens/s")
        if key != full:
            yield claim(f"rows-ratio-{name(key)}", [measured.rows[key] / measured.rows[full]], "x")
            ratios = [rate / own for rate, own in zip(rates, base, strict=True)]
            yield claim(f"throughput-ratio-{name(key)}", ratios, "x")
        if spent := measured.joules_per_token.get(key):
            yield claim(f"joules-per-token-{name(key)}", spent, "J")
