"""The loop beside what stays as it is: the best choice in hindsight, full depth, token exit, peers. Pure.

Every ratio is above 1 where the loop did better. low and high: of the kinds of text, and of the rounds. What
an objective is for is compared: tokens a second in bursts, the mean response, joules a token, quality. (A
median would fall where calms end and bursts begin, since each has half of the requests, and jump from one to
the other.)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import exp, log
from statistics import fmean, harmonic_mean, stdev

from bench.loop.figures import Figures, Metrics
from bench.report import Claim

METRIC = {
    "throughput": "tokens-per-second",
    "latency": "response-mean",
    "energy": "joules-per-token",
    "quality": "quality",
}
"""By optimizationType."""
_LESS_IS_BETTER = {"response-mean", "joules-per-token"}
_SIGMAS = 1.96
_BESIDE_TOKENS = {
    "throughput": ("throughput", "tokens-per-second"),
    "response-time": ("latency", "response-mean"),
    "energy": ("energy", "joules-per-token"),
    "batch": ("throughput", "batch"),
}
"""The paper's four figures: of the loop for which objective, and in what."""


def ratio(name: str, mine: Figures, other: Figures, metric: str) -> Claim:
    value = round(times(mine.whole, other.whole, metric), 4)
    pairs = [(own, other.kinds[kind]) for kind, own in mine.kinds.items()]
    pairs += [(own.whole, its.whole) for own, its in zip(mine.rounds, other.rounds, strict=False)]
    parts = [value, *(round(times(own, its, metric), 4) for own, its in pairs)]
    return Claim(name, value, min(parts), max(parts), "x")


def times(mine: Metrics, other: Metrics, metric: str) -> float:
    """So many times as good; above 1: mine is better."""
    more, less = (other, mine) if metric in _LESS_IS_BETTER else (mine, other)
    return more[metric] / less[metric]


def best(statics: Mapping[str, Figures], objective: str, least_quality: float) -> str | None:
    """In hindsight, of those that kept the quality on every kind of text; None: none did."""
    metric = METRIC[objective]
    sign = -1 if metric in _LESS_IS_BETTER else 1
    kept = [name for name, one in statics.items() if _keeps(one, least_quality)]
    return max(kept, key=lambda name: sign * statics[name].whole[metric], default=None)


def _keeps(one: Figures, least_quality: float) -> bool:
    return all(metrics["quality"] >= least_quality for metrics in one.kinds.values())


def ideal(statics: Mapping[str, Figures], least_quality: float) -> float | None:
    """Tokens a second of whoever knew each kind's best choice beforehand and changed for nothing: as many
    tokens of each."""
    kinds = [kind for one in list(statics.values())[:1] for kind in one.kinds]
    by_kind = [[one.kinds[kind] for one in statics.values()] for kind in kinds]
    rates = [_fastest(each, least_quality) for each in by_kind]
    return harmonic_mean(rates) if rates and all(rates) else None


def _fastest(statics: Sequence[Metrics], least_quality: float) -> float:
    return max((m["tokens-per-second"] for m in statics if m["quality"] >= least_quality), default=0.0)


def claims(
    loops: Mapping[str, Figures],
    statics: Mapping[str, Figures],
    others: Mapping[str, Figures],
    full: Figures | None,
    least_quality: float,
    setting: str,
) -> Iterator[Claim]:
    """loops: by objective; others: single-token exit and peers, by name; full: as published;
    setting: what the names end with."""
    for objective, mine in loops.items():
        metric = METRIC[objective]
        if name := best(statics, objective, least_quality):
            yield ratio(f"{objective}-over-best-static-{setting}", mine, statics[name], metric)
        if full:
            yield ratio(f"{objective}-over-full-depth-{setting}", mine, full, metric)
    fastest, most = loops.get("throughput"), ideal(statics, least_quality)
    if fastest and most:
        share = round(fastest.whole["tokens-per-second"] / most, 4)
        yield Claim(f"throughput-over-ideal-{setting}", share, share, share, "x")
    name = best(statics, "throughput", least_quality)
    if name and most:
        kinds = [metrics["tokens-per-second"] for metrics in statics[name].kinds.values()]
        bound = round(most / harmonic_mean(kinds), 4)
        yield Claim(f"ideal-throughput-over-best-static-{setting}", bound, bound, bound, "x")
    for other, theirs in others.items():
        for what, (objective, metric) in _BESIDE_TOKENS.items():
            if objective in loops:
                yield ratio(f"{what}-over-{other}-{setting}", loops[objective], theirs, metric)


Turns = Mapping[str, Sequence[tuple[Figures, Figures]]]
"""Of a loop and each static arm, in pairs."""


def in_turns(objective: str, turns: Turns, full: str, least_quality: float, setting: str) -> Iterator[Claim]:
    """The geometric mean of the pairs, with the interval of 95 % in which other pairs would put it. full: as
    published. Where there are several kinds of text, beside the ideal too: the best choice of each."""
    best = best_of_turns(objective, turns, least_quality)
    others = {
        "full-depth": turns.get(full, ()),
        "best-static": turns[best] if best else (),
        "ideal": _ideal_pairs(objective, turns, least_quality),
    }
    beside = {what: _mean(ratios(pairs, METRIC[objective])) for what, pairs in others.items() if pairs}
    for what, found in beside.items():
        yield Claim(f"{objective}-over-{what}-{setting}", *found, "x")
    if "ideal" in beside and "best-static" in beside:
        gain = round(beside["best-static"][0] / beside["ideal"][0], 4)
        yield Claim(f"ideal-{objective}-over-best-static-{setting}", gain, gain, gain, "x")


def _ideal_pairs(objective: str, turns: Turns, least_quality: float) -> list[tuple[Figures, Figures]]:
    """Of each kind of text those with its best choice. None where there is but one kind, or one of which no
    choice kept the quality."""
    kinds = dict.fromkeys(kind for pairs in turns.values() for _, its in pairs for kind in its.kinds)
    found = [_best_pairs(objective, turns, kind, least_quality) for kind in kinds]
    return [pair for pairs in found for pair in pairs] if len(found) > 1 and all(found) else []


def _best_pairs(
    objective: str, turns: Turns, kind: str, least_quality: float
) -> Sequence[tuple[Figures, Figures]]:
    alike = {name: [pair for pair in pairs if kind in pair[1].kinds] for name, pairs in turns.items()}
    name = best_of_turns(objective, alike, least_quality)
    return alike[name] if name else []


def best_of_turns(objective: str, turns: Turns, least_quality: float) -> str | None:
    """Of those that kept the quality the one beside which the loop did worst; None: none did."""
    kept = [name for name, pairs in turns.items() if all(_keeps(its, least_quality) for _, its in pairs)]
    return min(kept, key=lambda name: _mean(ratios(turns[name], METRIC[objective])), default=None)


def ratios(pairs: Sequence[tuple[Figures, Figures]], metric: str) -> list[float]:
    """Of each pair, in turn."""
    return [times(mine.whole, its.whole, metric) for mine, its in pairs]


def _mean(found: Sequence[float]) -> tuple[float, float, float]:
    logs = [log(each) for each in found]
    error = stdev(logs) / len(logs) ** 0.5 if len(logs) > 1 else 0.0
    value, low, high = (round(exp(fmean(logs) + sign * _SIGMAS * error), 4) for sign in (0, -1, 1))
    return value, low, high
