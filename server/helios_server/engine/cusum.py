"""Detectors of a lasting change: the two-sided CUSUM on per-request values, and the paper's breach counter.

Fed by the engine as requests end and audits complete. Pure: no clock, no tensor, no request. A single odd
request must not alarm; a small shift that stays must.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

SLACK = 0.5
"""Standard deviations by which a value may miss the mean without counting: half of the shift looked for."""
THRESHOLD = 8.0
"""Summed standard deviations at which a change is called."""
WINSOR = 4.0
"""Values further off count as this many standard deviations, so that it takes three odd requests to alarm."""
NEWEST = 4
"""Values by which the size of a change is judged, to date it."""
LEARN_LONG = 300
"""Values after which what was learnt is good enough to stand still."""
BREACH_WINDOW = 100
BREACH_LIMIT = 50


@dataclass(frozen=True)
class Expected:
    """What a per-request value should be: mean, and standard deviation between requests (above 0)."""

    mean: float
    deviation: float


@dataclass(frozen=True)
class Change:
    """A change that was called. down: the values fell; since: what the first observation after it was
    labelled with.

    statistic: summed standard deviations (breaches, for the counter).
    """

    down: bool
    since: int
    statistic: float


class Cusum:
    """Watches a stream of values. expected None: learnt from the first `learn` values, and made better by the
    next ones.

    floor: least deviation. Learning goes on for LEARN_LONG values, or until a first change is called: a mean
    known from twenty values alone is so far off that half of all long runs would alarm over nothing.
    """

    def __init__(self, expected: Expected | None, learn: int, floor: float) -> None:
        self._given = expected
        self._learn = learn
        self._floor = floor
        self._count = 0
        self._mean = 0.0
        self._squares = 0.0  # summed squared distances from the mean
        self._learning = expected is None
        self._sides = (_Side(down=True), _Side(down=False))

    @property
    def expected(self) -> Expected | None:
        """None while too little is known."""
        if self._given is not None:
            return Expected(self._given.mean, max(self._given.deviation, self._floor))
        if self._count < self._learn:
            return None
        return Expected(self._mean, max(math.sqrt(self._squares / (self._count - 1)), self._floor))

    def observe(self, value: float, label: int) -> Change | None:
        """Takes the next value.

        label: the request's ordinal. After a call it begins anew: what stays, is called again.
        """
        expected = self.expected
        change = None if expected is None else self._compare(value, expected, label)
        self._learning = self._learning and change is None and self._count < LEARN_LONG
        if self._learning:
            self._take(value)
        return change

    def _compare(self, value: float, expected: Expected, label: int) -> Change | None:
        # A value differs from a mean of n values by more than it differs from the true one.
        spread = 1.0 if self._given else math.sqrt(1 + 1 / self._count)
        z = (value - expected.mean) / (expected.deviation * spread)
        z = max(-WINSOR, min(WINSOR, z))
        changes = [side.observe(z, label) for side in self._sides]
        change = next((change for change in changes if change), None)
        if change:
            for side in self._sides:
                side.restart()
        return change

    def _take(self, value: float) -> None:
        self._count += 1
        off = value - self._mean
        self._mean += off / self._count
        self._squares += off * (value - self._mean)


class _Side:
    """One direction, and what it observed since its sum was last zero."""

    def __init__(self, down: bool) -> None:
        self._down = down
        self.restart()

    def restart(self) -> None:
        self._sum = 0.0
        self._path: list[tuple[int, float]] = []  # label, how far off in this direction

    def observe(self, z: float, label: int) -> Change | None:
        off = -z if self._down else z
        self._sum = max(0.0, self._sum + off - SLACK)
        if self._sum == 0:
            self._path = []
            return None
        self._path.append((label, off))
        return Change(self._down, _onset(self._path), self._sum) if self._sum > THRESHOLD else None


def _onset(path: Sequence[tuple[int, float]]) -> int:
    """Label at which the change most likely began. The sum's last zero may lie well before a strong change,
    for chance alone keeps a sum with so little slack above zero: the sum is run again, backwards, with the
    slack that suits the size of the newest values.
    """
    newest = [off for _, off in path[-NEWEST:]]
    slack = max(SLACK, sum(newest) / len(newest) / 2)
    total, best, onset = 0.0, -math.inf, path[-1][0]
    for label, off in reversed(path):
        total += off - slack
        if total > best:
            best, onset = total, label
    return onset


class BreachWindow:
    """The paper's counter: more than half of the last 100 tokens with confidence under the threshold.

    in_window: breaches among the last 100 tokens.
    """

    def __init__(self) -> None:
        self.total = self.in_window = 0
        self._recent: deque[tuple[bool, int]] = deque(maxlen=BREACH_WINDOW)  # breach, request

    def observe(self, breach: bool, label: int) -> Change | None:
        """Takes the next token. After a call the window begins anew."""
        self.total += breach
        self.in_window += breach - (len(self._recent) == BREACH_WINDOW and self._recent[0][0])
        self._recent.append((breach, label))
        if len(self._recent) < BREACH_WINDOW or not breach or self.in_window <= BREACH_LIMIT:
            return None
        change = Change(True, min(label for _, label in self._recent), float(self.in_window))
        self._recent.clear()
        self.in_window = 0
        return change
