"""From the answers of a trace to what each run was worth: quality audited on every request, speed, and what
changes cost. Pure.

Called by `__main__` and `make`. Quality is in per cent of what the better candidate of each phase would have
made of it, in hindsight: the same reference that `decide` has, the best candidate on the same prompts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.report import Claim, claim, percentile

_SIGMAS = 1.96
BOTH = "both"
"""The run that has all candidates; every other has the one that it is called by."""
Worth = Mapping[str, Mapping[str, tuple[int, int]]]
"""By candidate and prompt: millibits of its full depth, and bytes."""


@dataclass(frozen=True)
class Answer:
    """candidate: that wrote its last token; sent, ended: seconds on one clock."""

    prompt: str
    candidate: str
    tokens: int
    sent: float
    ended: float


@dataclass(frozen=True)
class Played:
    """One phase of a run. began, ended: when its requests were sent and when so many as asked were answered;
    answers: also of those under way then; decided: what the loop said meanwhile, each with how many were
    answered until then."""

    kind: str
    began: float
    ended: float
    answers: tuple[Answer, ...]
    failed: int = 0
    decided: tuple[str, ...] = ()


@dataclass(frozen=True)
class Change:
    """source: what served before; ended: on the answers' clock; seconds: that it took."""

    kind: str
    source: str
    target: str
    message: str
    ended: float
    seconds: float


@dataclass(frozen=True)
class Run:
    """A trace from its beginning to its end. changes: those after the first choice."""

    phases: tuple[Played, ...]
    changes: tuple[Change, ...] = ()


# -- one run -------------------------------------------------------------------------------------------------


def summary(run: Run, worth: Worth) -> dict[str, Any]:
    """Of the run, of each phase, and of each change."""
    phases = [_phase(phase, worth) for phase in run.phases]
    answers = [answer for phase in run.phases for answer in phase.answers]
    return {
        "qualityPercent": 100 * sum(map(_best, phases)) / sum(each["millibits"] for each in phases),
        "bitsPerByte": sum(each["millibits"] for each in phases)
        / sum(each["bytes"] for each in phases)
        / 1e3,
        "tokensPerSecond": sum(each["tokens"] for each in phases) / sum(each["seconds"] for each in phases),
        "responseP99Ms": _response(answers, 99),
        "failed": sum(phase.failed for phase in run.phases),
        "phases": phases,
        "changes": [_change(change, run, worth) for change in run.changes],
    }


def _phase(phase: Played, worth: Worth) -> dict[str, Any]:
    served = sum(worth[answer.candidate][answer.prompt][0] for answer in phase.answers)
    best = min(_bits(phase, candidate, worth) for candidate in worth)
    size = _bytes(phase, worth)
    tokens, seconds = _tokens(phase.answers, phase.began, phase.ended), phase.ended - phase.began
    return {
        "kind": phase.kind,
        "requests": len(phase.answers),
        "servedBy": dict(Counter(answer.candidate for answer in phase.answers)),
        "millibits": served,
        "bytes": size,
        "bitsPerByte": served / size / 1000,
        "qualityPercent": 100 * best / served,
        "tokens": tokens,
        "seconds": seconds,
        "tokensPerSecond": tokens / seconds,
        "responseP50Ms": _response(phase.answers, 50),
        "responseP99Ms": _response(phase.answers, 99),
        "decided": list(phase.decided),
    }


def _change(change: Change, run: Run, worth: Worth) -> dict[str, Any]:
    """What it cost: the phase in which it ended knows how many requests the old one answered until then, and
    at what quality, and how fast answers came while it was made and else."""
    phase = next((each for each in run.phases if change.ended <= _last(each)), run.phases[-1])
    before = [answer for answer in phase.answers if answer.candidate == change.source]
    bits = sum(worth[change.source][answer.prompt][0] for answer in before)
    best = min(sum(by[answer.prompt][0] for answer in before) for by in worth.values())
    begun = change.ended - change.seconds
    meanwhile = _tokens(phase.answers, begun, change.ended)
    others = _tokens(phase.answers, phase.began, phase.ended) - meanwhile
    left = phase.ended - phase.began - change.seconds
    return {
        "kind": change.kind,
        "from": change.source,
        "to": change.target,
        "message": change.message,
        "seconds": change.seconds,
        "phase": phase.kind,
        "secondsIntoPhase": change.ended - phase.began,
        "requestsBefore": len(before),
        "qualityPercentBefore": 100 * best / bits if bits else None,
        "tokensPerSecondMeanwhile": meanwhile / change.seconds if change.seconds else None,
        "tokensPerSecondElse": others / left if left > 0 else None,
    }


def _best(phase: Mapping[str, Any]) -> float:
    return float(phase["qualityPercent"] * phase["millibits"] / 100)


def _bits(phase: Played, candidate: str, worth: Worth) -> int:
    return sum(worth[candidate][answer.prompt][0] for answer in phase.answers)


def _bytes(phase: Played, worth: Worth) -> int:
    return sum(worth[answer.candidate][answer.prompt][1] for answer in phase.answers)


def _tokens(answers: Sequence[Answer], begin: float, end: float) -> int:
    """Of answers that ended in between."""
    return sum(answer.tokens for answer in answers if begin <= answer.ended <= end)


def _last(phase: Played) -> float:
    return max([phase.ended, *(answer.ended for answer in phase.answers)])


def _response(answers: Sequence[Answer], percent: float) -> float:
    return 1000 * percentile([answer.ended - answer.sent for answer in answers], percent)


# -- all runs ------------------------------------------------------------------------------------------------


def claims(rounds: Sequence[Mapping[str, Mapping[str, Any]]]) -> Iterator[Claim]:
    """rounds: summaries by run. Medians of the rounds, with their least and greatest."""
    for name in rounds[0]:
        runs = [each[name] for each in rounds]
        yield from _of(f"-{name}", runs)
        for number, phase in enumerate(runs[0]["phases"]):
            played = [run["phases"][number] for run in runs]
            yield from _of(f"-{name}-{number + 1}-{phase['kind']}", played)
    alone = [[run for name, run in each.items() if name != BOTH] for each in rounds]
    both = [each[BOTH] for each in rounds]
    for words, key in (("quality", "qualityPercent"), ("tokens-per-second", "tokensPerSecond")):
        ratios = [run[key] / max(one[key] for one in others) for run, others in zip(both, alone, strict=True)]
        yield claim(f"{words}-{BOTH}-over-best-alone", ratios, "x")
    yield claim("switches", [len(run["changes"]) for run in both], "changes")
    made = [change for run in both for change in run["changes"]]
    if made:
        yield claim("seconds-of-a-switch", [change["seconds"] for change in made], "s")
        yield claim("seconds-until-a-switch", [change["secondsIntoPhase"] for change in made], "s")
        yield claim("requests-before-a-switch", [change["requestsBefore"] for change in made], "requests")
    failed = sum(run["failed"] for each in rounds for run in each.values())
    yield Claim("failed", failed, failed, failed, "requests")


def _of(name: str, found: Sequence[Mapping[str, Any]]) -> Iterator[Claim]:
    yield claim(f"quality{name}", [each["qualityPercent"] for each in found], "percent")
    yield claim(f"bits-per-byte{name}", [each["bitsPerByte"] for each in found], "bits/byte")
    yield claim(f"tokens-per-second{name}", [each["tokensPerSecond"] for each in found], "tokens/s")
    yield claim(f"response-p99{name}", [each["responseP99Ms"] for each in found], "ms")


def ratio_claim(
    id: str, above: Sequence[float], below: Sequence[float], unit: str, times: float = 1
) -> Claim:
    """A ratio of sums over paired texts, with the interval in which 95 of 100 such texts would put it."""
    share = sum(above) / sum(below)
    left = [a - share * b for a, b in zip(above, below, strict=True)]
    count = len(left)
    error = (sum(x * x for x in left) * count / max(count - 1, 1)) ** 0.5 / sum(below)
    value, low, high = (round(times * (share + sign * _SIGMAS * error), 4) for sign in (0, -1, 1))
    return Claim(id, value, low, high, unit)
