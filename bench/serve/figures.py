"""What calls come to: percentiles, rates, goodput, and how they ended. No I/O."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.report import Claim, claim, percentile
from bench.serve.load import ANSWERED, FAILED, REFUSED, TOLD_WHEN, Call

PERCENTS = (50, 90, 99)
UNITS = {"ttft": "ms", "itl": "ms", "e2e": "ms", "tokens-per-second": "tokens/s", "goodput": "requests/s"}


@dataclass(frozen=True)
class Slo:
    """Seconds: until the first token, and between tokens in the mean of a call."""

    ttft: float
    itl: float

    def met_by(self, call: Call) -> bool:
        return call.end == ANSWERED and call.ttft <= self.ttft and call.itl <= self.itl


def summary(calls: Sequence[Call], begin: float, seconds: float, slo: Slo) -> dict[str, float]:
    """Of one round, which began then and sent calls for so long. Latencies are of those answered; rates count
    what came within the round."""
    answered = [call for call in calls if call.end == ANSWERED]
    samples = {
        "ttft": [call.ttft for call in answered],
        "itl": [gap for call in answered for gap in call.gaps],
        "e2e": [call.e2e for call in answered],
    }
    found = {
        f"{name}-p{percent}": round(1000 * percentile(each, percent), 3)
        for name, each in samples.items()
        for percent in PERCENTS
    }
    end = begin + seconds
    tokens = sum(n for call in calls for n, at in zip(call.tokens, call.came, strict=True) if at <= end)
    good = sum(slo.met_by(call) for call in answered if call.came[-1] <= end)
    ends = Counter(call.end for call in calls)
    return found | {
        "tokens-per-second": round(tokens / seconds, 2),
        "goodput": round(good / seconds, 3),
        "sent": len(calls),
        **{how: ends[how] for how in (ANSWERED, TOLD_WHEN, REFUSED, FAILED)},
    }


def claims(name: str, rounds: Sequence[Mapping[str, float]]) -> Iterator[Claim]:
    """Medians of the rounds, with their least and greatest; of calls that failed or were refused, all."""
    for key in rounds[0]:
        unit = UNITS.get(key.rpartition("-p")[0]) or UNITS.get(key)
        if unit:
            yield claim(f"{name}-{key}", [each[key] for each in rounds], unit)
    for how, word in (
        (TOLD_WHEN, "refused-with-hint"),
        (REFUSED, "refused-without-hint"),
        (FAILED, "failed"),
    ):
        total = sum(each[how] for each in rounds)
        yield Claim(f"{name}-{word}", total, total, total, "requests")


def words(calls: Sequence[Call]) -> dict[str, Any]:
    """What those said that failed, or were refused without a hint, by how often."""
    said = Counter(call.words for call in calls if call.end in (FAILED, REFUSED))
    return dict(said.most_common(5))
