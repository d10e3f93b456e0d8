"""What a replay came to, over the whole trace and for each kind of its text. No I/O.

Throughput is of the bursts alone, where each arm has more than it can do: a calm gives all what was offered.
Waits are of all requests, from the moment when they came.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from statistics import fmean
from typing import Any

from bench.loop.quality import Worth
from bench.loop.replay import Answered
from bench.loop.spent import Spent
from bench.report import Claim, percentile
from bench.serve.figures import Slo
from bench.serve.load import ANSWERED, Call
from examples.demo.traffic import Stream

UNITS = {
    "tokens-per-second": "tokens/s",
    "response-mean": "ms",
    **{f"{wait}-p{percent}": "ms" for wait in ("response", "ttft", "itl") for percent in (50, 99)},
    "slo-violations": "%",
    "quality": "%",
    "batch": "rows",
    "joules-per-token": "J",
}
Metrics = Mapping[str, float]


@dataclass(frozen=True)
class Run:
    """An arm's replay. seconds: with its start; facts: what else is known of it; single_tokens: each left
    where it was sure enough."""

    arm: str
    answered: Sequence[Answered]
    spent: Spent
    seconds: float
    facts: Mapping[str, Any] = field(default_factory=dict)
    single_tokens: bool = False

    def part(self, kind: str) -> Run:
        """While the texts were of a kind."""
        part = [each for each in self.answered if each.arrival.kind == kind]
        return replace(self, answered=part)


@dataclass(frozen=True)
class Figures:
    """quality: percent with its interval; failed: requests; rounds: what this is the mean of."""

    whole: Metrics
    kinds: Mapping[str, Metrics]
    quality: tuple[float, float, float]
    failed: int
    rounds: Sequence[Figures] = ()

    @classmethod
    def together(cls, rounds: Sequence[Figures]) -> Figures:
        """Of one arm. Not each round needs to have every kind."""
        names = dict.fromkeys(kind for one in rounds for kind in one.kinds)
        kinds = {kind: _mean([one.kinds[kind] for one in rounds if kind in one.kinds]) for kind in names}
        value, low, high = (fmean(ends) for ends in zip(*(one.quality for one in rounds), strict=True))
        failed = sum(one.failed for one in rounds)
        return cls(_mean([one.whole for one in rounds]), kinds, (value, low, high), failed, rounds)

    def range(self, metric: str) -> tuple[float, float, float]:
        """Over the whole trace, and the least and greatest of its kinds and rounds."""
        parts = [metrics[metric] for metrics in (*self.kinds.values(), *(one.whole for one in self.rounds))]
        value = self.whole[metric]
        return value, min([value, *parts]), max([value, *parts])


def _mean(rounds: Sequence[Metrics]) -> Metrics:
    return {metric: fmean(one[metric] for one in rounds) for metric in rounds[0]}


def figures(run: Run, worth: Worth, slo: Slo) -> Figures:
    kinds = list(dict.fromkeys(each.arrival.kind for each in run.answered))
    return Figures(
        _metrics(run, kinds, worth, slo),
        {kind: _metrics(run.part(kind), [kind], worth, slo) for kind in kinds},
        worth.percent(_ok(run), single_tokens=run.single_tokens),
        len(run.answered) - len(_ok(run)),
    )


def claims(name: str, found: Figures, *, with_quality: bool = True) -> Iterator[Claim]:
    """low, high: of kinds of text and rounds; for quality, its interval. with_quality: of an arm whose
    quality was measured, not taken for granted."""
    for metric, unit in UNITS.items():
        if metric != "quality" or with_quality:
            ends = found.quality if metric == "quality" else found.range(metric)
            value, low, high = (round(end, 4) for end in ends)
            yield Claim(f"{name}-{metric}", value, low, high, unit)
    yield Claim(f"{name}-failed", found.failed, found.failed, found.failed, "requests")


def _metrics(run: Run, kinds: Sequence[str], worth: Worth, slo: Slo) -> Metrics:
    ok = _ok(run)
    calls = [_call(each.stream) for each in ok]
    waits = {
        "response": [call.e2e for call in calls],
        "ttft": [call.ttft for call in calls],
        "itl": [call.itl for call in calls],
    }
    start, end, bursts = *_span(run.answered), _bursts(run, kinds)
    met = sum(slo.met_by(call) for call in calls)
    return {
        "tokens-per-second": _rate(ok, bursts),
        "response-mean": 1000 * fmean(waits["response"] or [0.0]),
        **{
            f"{wait}-p{percent}": 1000 * percentile(seconds, percent)
            for wait, seconds in waits.items()
            for percent in (50, 99)
        },
        "slo-violations": 100 * (1 - met / len(run.answered)),
        "quality": worth.percent(ok, single_tokens=run.single_tokens)[0],
        "batch": float(_rows([each.stream for each in ok], bursts)),
        "joules-per-token": run.spent.between(start, end) / tokens_between(ok, start, end),
    }


def _ok(run: Run) -> list[Answered]:
    return [each for each in run.answered if not each.stream.error]


def _call(stream: Stream) -> Call:
    """As the bench of the doors has it: a first token, and the others when the answer ended."""
    others = len(stream.output_ids) - 1
    came, counts = ([stream.began, stream.ended], [1, others]) if others else ([stream.began], [1])
    return Call(stream.sent, came, counts, ANSWERED)


def _span(answered: Sequence[Answered]) -> tuple[float, float]:
    return min(each.stream.sent for each in answered), max(each.stream.ended for each in answered)


def _bursts(run: Run, kinds: Sequence[str]) -> list[tuple[float, float]]:
    """Of each kind, from its first request to the end of its last."""
    return [
        _span([each for each in run.answered if each.arrival.is_burst and each.arrival.kind == kind])
        for kind in kinds
    ]


def _rate(ok: Sequence[Answered], spans: Sequence[tuple[float, float]]) -> float:
    """Tokens a second in these spans, whosever they are."""
    return sum(tokens_between(ok, *span) for span in spans) / sum(end - start for start, end in spans)


def tokens_between(answered: Sequence[Answered], start: float, end: float) -> float:
    """Taken to come evenly from the first of an answer to its end."""
    return sum(_tokens_between(each.stream, start, end) for each in answered)


def _tokens_between(stream: Stream, start: float, end: float) -> float:
    lasted = stream.ended - stream.began
    if lasted <= 0:
        return len(stream.output_ids) if start <= stream.ended <= end else 0
    shared = min(stream.ended, end) - max(stream.began, start)
    return len(stream.output_ids) * min(max(shared / lasted, 0.0), 1.0)


def _rows(streams: Sequence[Stream], spans: Sequence[tuple[float, float]]) -> int:
    """Answers under way for a tenth of the spans' time or more: that a row's end is heard after the next
    one's beginning makes no row more."""
    lasted = defaultdict[int, float](float)
    for start, end in spans:
        clipped = [(max(one.began, start), min(one.ended, end)) for one in streams]
        inside = [(begun, ended) for begun, ended in clipped if begun < ended]
        moments = sorted([(start, 0), (end, 0), *_changes(inside)])
        rows = 0
        for (at, change), (following, _) in pairwise(moments):
            rows += change
            lasted[rows] += following - at
    tenth, above = sum(lasted.values()) / 10, 0.0
    for rows in sorted(lasted, reverse=True):
        above += lasted[rows]
        if above >= tenth:
            return rows
    return 0


def _changes(answers: Sequence[tuple[float, float]]) -> list[tuple[float, int]]:
    return [moment for begun, ended in answers for moment in ((begun, 1), (ended, -1))]


def as_declared(found: Claim) -> Claim:
    """What rests on declared watts is called so: nothing is asked of it."""
    if found.id.startswith("energy-over-"):
        return replace(found, id=f"declared-{found.id}")
    return replace(found, id=found.id.replace("joules-per-token", "declared-joules-per-token"))
