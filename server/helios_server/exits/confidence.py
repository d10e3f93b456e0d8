"""What a confidence is worth: calibration to the probability that full depth would say the same token.

Called by `evaluate.py`, which measures calibrations, and by whoever needs a breach threshold. Confidence is
the largest softmax probability of the raw logits at an exit. Pure arithmetic: no torch, no model.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

BINS = 20
BREACH_DISAGREEMENT = 0.2
"""Target of the breach threshold: a token with less confidence counts as a breach."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """Measured on held-out text, for one exit. One entry a bin, ascending: lowest: the bin's least
    confidence, 0 to 1; tokens: count of predictions in it; agreed: of those, how many full depth would have
    made too."""

    lowest: tuple[float, ...]
    tokens: tuple[int, ...]
    agreed: tuple[int, ...]

    @classmethod
    def fit(cls, confidence: Sequence[float], agrees: Sequence[bool], bins: int = BINS) -> Calibration:
        """Puts the samples into at most `bins` bins of about equal count."""
        samples = sorted(zip(confidence, agrees, strict=True))
        lowest: list[float] = []
        tokens: list[int] = []
        agreed: list[int] = []
        for index in range(bins):
            part = samples[index * len(samples) // bins : (index + 1) * len(samples) // bins]
            if not part:
                continue
            if lowest and part[0][0] <= lowest[-1]:  # equal confidences belong together
                tokens[-1] += len(part)
                agreed[-1] += sum(same for _, same in part)
                continue
            lowest.append(part[0][0])
            tokens.append(len(part))
            agreed.append(sum(same for _, same in part))
        return cls(tuple(lowest), tuple(tokens), tuple(agreed))

    @classmethod
    def from_json(cls, content: Any) -> Calibration:
        """Reads what `to_json` wrote. ValueError says what it is not."""
        columns = [content.get(name) if isinstance(content, dict) else None for name in cls.__slots__]
        lists = [column for column in columns if isinstance(column, list)]
        if len(lists) < len(columns) or len({len(column) for column in lists}) > 1:
            raise ValueError(f"expected lists of one length: {', '.join(cls.__slots__)}")
        lowest, tokens, agreed = lists
        confidences = all(type(edge) in (int, float) and 0 <= edge <= 1 for edge in lowest)
        if not confidences or lowest != sorted(lowest):
            raise ValueError("lowest: expected confidences from 0 to 1, ascending")
        if not all(type(count) is int and count > 0 for count in tokens):
            raise ValueError("tokens: expected counts above 0")
        if not all(type(n) is int and 0 <= n <= count for n, count in zip(agreed, tokens, strict=True)):
            raise ValueError("agreed: expected counts of at most those of tokens")
        return cls(tuple(lowest), tuple(tokens), tuple(agreed))

    def to_json(self) -> dict[str, Any]:
        """As it stands in exits.json."""
        return {
            "lowest": [round(edge, 5) for edge in self.lowest],
            "tokens": list(self.tokens),
            "agreed": list(self.agreed),
        }

    def probability(self, confidence: float) -> float:
        """P(full depth says the same | confidence): never falls as confidence rises."""
        rates = isotonic([a / t for a, t in zip(self.agreed, self.tokens, strict=True)], self.tokens)
        return rates[max(bisect_right(self.lowest, confidence) - 1, 0)]

    def threshold(self, target_disagreement: float, level: float = 0.95) -> float | None:
        """The smallest confidence from which on disagreement is below the target, at the level's certainty.

        None: no threshold keeps it, on this evidence.
        """
        tokens = disagreed = 0
        found = None
        for lowest, count, same in zip(*map(reversed, (self.lowest, self.tokens, self.agreed)), strict=True):
            tokens += count
            disagreed += count - same
            if upper_bound(disagreed, tokens, level) < target_disagreement:
                found = lowest
        return found


def isotonic(rates: Sequence[float], weights: Sequence[float]) -> list[float]:
    """The non-decreasing sequence nearest to `rates` in weighted squares (pool adjacent violators)."""
    pools: list[tuple[float, float, int]] = []  # mean, weight, length
    for rate, weight in zip(rates, weights, strict=True):
        mean, total, length = rate, float(weight), 1
        while pools and pools[-1][0] > mean:
            above, heavier, longer = pools.pop()
            mean = (above * heavier + mean * total) / (heavier + total)
            total, length = total + heavier, length + longer
        pools.append((mean, total, length))
    return [mean for mean, _, length in pools for _ in range(length)]


def upper_bound(events: int, trials: int, level: float = 0.95) -> float:
    """Clopper-Pearson: the largest rate that still leaves a chance of 1 - level of at most `events` in
    `trials`."""
    if events >= trials:
        return 1.0
    low, high = events / trials, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        # P(X <= events) = 1 - I_middle(events + 1, trials - events)
        if 1.0 - incomplete_beta(events + 1, trials - events, middle) > 1.0 - level:
            low = middle
        else:
            high = middle
    return high


def incomplete_beta(a: float, b: float, x: float) -> float:
    """The regularised incomplete beta function I_x(a, b), by its continued fraction."""
    if x <= 0.0 or x >= 1.0:
        return float(x >= 1.0)
    if x > (a + 1) / (a + b + 2):  # the fraction converges fast on the other side only
        return 1.0 - incomplete_beta(b, a, 1.0 - x)
    front = a * math.log(x) + b * math.log1p(-x) + math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    return math.exp(front) / (a * _fraction(a, b, x))


def _fraction(a: float, b: float, x: float) -> float:
    """1 + d1/(1 + d2/(1 + ...)) by Lentz's method."""
    tiny = 1e-300
    value = ratio = 1.0
    inverse = 0.0
    for step in range(1, 10_000):
        m = step // 2
        if step % 2:
            term = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        else:
            term = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        inverse = 1.0 / ((1.0 + term * inverse) or tiny)
        ratio = (1.0 + term / ratio) or tiny
        value *= ratio * inverse
        if abs(ratio * inverse - 1.0) < 1e-14:
            break
    return value
