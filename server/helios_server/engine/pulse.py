"""Signs of life: what the engine is at, and for how long without getting on.

Told by the engine, judged by the doors. Pure: it must read no clock and judge nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Work(StrEnum):
    """What takes time; each value is how a probe calls it."""

    STEP = "a step"
    TASK = "a task between two steps"
    CHANGE = "a change of limits"


@dataclass(frozen=True)
class Activity:
    """seconds: since the last sign of life of whoever does this work."""

    work: Work
    seconds: float


class Pulse:
    """Set by the engine's thread, read by any. Seconds on the monotonic clock.

    progressed: when requests last got on.
    """

    def __init__(self, now: float) -> None:
        self.progressed = now
        self._held: tuple[Work | None, float] = None, now  # together, for those who read meanwhile

    def beat(self, work: Work | None, now: float) -> None:
        """The thread turns to this, None to sleep. What tasks take, requests are not blamed for."""
        before, since = self._held
        if before is Work.TASK:
            self.progressed += now - since
        self._held = work, now

    def activities(self, now: float, waited_for: bool, change: float | None, ended: float) -> list[Activity]:
        """waited_for: there are requests; change: when the change under way began, None without one; ended:
        when the last one did."""
        work, since = self._held
        found = [] if work is None else [Activity(work, max(0.0, now - since))]
        if change is not None:
            found.append(Activity(Work.CHANGE, now - change))
        elif waited_for and work is not Work.TASK:
            found.append(Activity(Work.STEP, max(0.0, now - max(self.progressed, ended))))
        return found
