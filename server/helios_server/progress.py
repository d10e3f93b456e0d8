"""What a person sees of long work while it lasts: lines on stderr, and how long the rest will take.

Used by `helios profile` and `helios tune`; `helios_contract.progress` has the words. It measures and decides
nothing.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from helios_contract.progress import words

Say = Callable[[str], None]
_SAY_SECONDS = 5.0


def _on_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


class Progress:
    """Lines, each with the seconds since the start; to `say`."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, say: Say = _on_stderr) -> None:
        self.clock = clock
        self._say = say
        self._started = self._said = clock()

    def __call__(self, message: str) -> None:
        self._say(f"[{self.clock() - self._started:6.1f} s] {message}")

    def share(self, done: float, total: float) -> None:
        """How much of the work is done, and for how long the rest will take at this pace; every few seconds.
        `helios up` shows it."""
        now = self.clock()
        if done > 0:
            self._tell(now, (now - self._started) * max(total - done, 0) / done)

    def part(self, before: float, total: float) -> Callable[[float], None]:
        """Of work that comes after `before` of the `total`: takes how much of it is done."""
        return lambda done: self.share(before + done, total)

    def left(self, seconds: float) -> None:
        """The same of work that has more than one pace, by the seconds that are left of it."""
        self._tell(self.clock(), seconds)

    def _tell(self, now: float, left: float) -> None:
        if now - self._said < _SAY_SECONDS:
            return
        self._said = now
        passed = now - self._started
        self(words(passed / (passed + left), left))


@dataclass(frozen=True, slots=True)
class Stage:
    """units: of work, about as long each as those of the other stages; seconds: how long it lasts, where a
    clock ends it."""

    units: float = 0.0
    seconds: float | None = None


class Stages:
    """Work in stages, one after the other. What has not begun is expected at the pace of what has; what has
    begun, the more at its own pace the more of it is done."""

    def __init__(self, progress: Progress, stages: Mapping[str, Stage]) -> None:
        self._progress = progress
        self._waiting = dict(stages)
        self._unit_seconds = 0.0

    def begin(self, name: str) -> Callable[[float], None]:
        """The next one. Takes which share of it is done, 0 to 1."""
        stage, began = self._waiting.pop(name), self._progress.clock()
        expected = self._expected(stage)

        def passed(done: float) -> None:
            if done <= 0:
                return
            lasts = stage.seconds
            if lasts is None:
                took = self._progress.clock() - began
                lasts = took + (1 - done) * expected if expected else took / done
                self._unit_seconds = lasts / stage.units
            self._progress.left(lasts * max(1 - done, 0) + sum(map(self._expected, self._waiting.values())))

        return passed

    def _expected(self, stage: Stage) -> float:
        return stage.units * self._unit_seconds if stage.seconds is None else stage.seconds
