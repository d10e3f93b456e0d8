"""Times steps in rounds: every round runs every shape once, group by group, in random order, so that what
drifts hits all alike.

Called by `timing.py`. It knows how to measure, not what: a step is a function without arguments.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from statistics import median

Step = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Effort:
    """How long to measure. seconds: after which no further round begins; rounds: at least, the dropped one
    not counted."""

    seconds: float
    rounds: int


EFFORTS = {"rapid": Effort(12.0, 5), "thorough": Effort(60.0, 15)}


@dataclass(frozen=True, slots=True)
class StepDuration:
    """Of one shape, in nanoseconds. quiet: typical while little else ran on the machine; p50: typical,
    corrected for drift; p95: as it was; count: of steps."""

    quiet_ns: float
    p50_ns: float
    p95_ns: float
    count: int


def sweep(
    groups: Sequence[Sequence[Step]],
    effort: Effort,
    seed: int = 0,
    passed: Callable[[float], None] = lambda _: None,
) -> tuple[tuple[StepDuration, ...], ...]:
    """Durations in the order of the groups and of their steps. A group's steps run together, with what they
    share in the caches; the effort is for each of the groups. The first round warms up and is dropped.
    `passed` is told after every other which share of the effort is done, 0 to 1."""
    order, whole = random.Random(seed), replace(effort, seconds=effort.seconds * len(groups))
    _round(groups, order)
    started, rounds = time.monotonic(), list[list[int]]()
    while len(rounds) < whole.rounds or time.monotonic() - started < whole.seconds:
        rounds.append(_round(groups, order))
        passed(_share(len(rounds), time.monotonic() - started, whole))
    found = iter(summarize(rounds))
    return tuple(tuple(islice(found, len(group))) for group in groups)


def _share(rounds: int, seconds: float, effort: Effort) -> float:
    """By whichever of the effort's two ends is farther."""
    return min(rounds / effort.rounds, seconds / effort.seconds if effort.seconds else 1.0, 1.0)


def summarize(rounds: Sequence[Sequence[int]]) -> tuple[StepDuration, ...]:
    """rounds: durations in nanoseconds, one per step in each round.

    A round is as slow as the median of its steps against their own medians; dividing by that compares steps
    as if all had run in one round (the machine's speed drifts by more than the differences that matter). The
    quietest tenth of the rounds says how fast that round is without company: what was measured beside traffic
    and what was measured alone may then be compared.
    """
    raw = [list(column) for column in zip(*rounds, strict=True)]
    middles = [median(column) for column in raw]
    slowness = [
        median([duration / middle for duration, middle in zip(durations, middles, strict=True)])
        for durations in rounds
    ]
    quiet = sorted(slowness)[len(slowness) // 10]
    typical = [
        median([duration / slow for duration, slow in zip(column, slowness, strict=True)]) for column in raw
    ]
    return tuple(
        StepDuration(
            quiet_ns=quiet * p50,
            p50_ns=p50,
            p95_ns=sorted(column)[min(len(column) - 1, int(0.95 * len(column)))],
            count=len(column),
        )
        for p50, column in zip(typical, raw, strict=True)
    )


def _round(groups: Sequence[Sequence[Step]], order: random.Random) -> list[int]:
    """Durations of all steps in the order given."""
    durations = [[0] * len(group) for group in groups]
    for place in order.sample(range(len(groups)), len(groups)):
        steps = groups[place]
        for index in order.sample(range(len(steps)), len(steps)):
            started = time.perf_counter_ns()
            steps[index]()
            durations[place][index] = time.perf_counter_ns() - started
    return list(chain.from_iterable(durations))
