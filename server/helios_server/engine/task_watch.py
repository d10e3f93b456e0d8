"""A detector of a lasting fall of passes: Page's CUSUM on tasks that the profile says are passed.

Fed by `watch` as answers are judged. Pure: no clock, no task, no answer. What is asked passed before, so that
a failure is news; but the profile was taken in another process, perhaps on another device, where a near-tie
of two tokens falls otherwise: a few failures must not alarm, several in a row must.
"""

from __future__ import annotations

import math

from helios_server.engine.cusum import Change

USUAL, FALLEN = 0.97, 0.8
"""Shares of passes that are told apart: of what was profiled, and of a fall that is looked for."""
THRESHOLD = 5.0
"""Summed logarithms of likelihoods at which a fall is called: three failures in a row, or one in four for
long."""
_FAILURE = math.log((1 - FALLEN) / (1 - USUAL))
_PASS = math.log(FALLEN / USUAL)


class TaskWatch:
    """asked, passed: since it was made."""

    def __init__(self) -> None:
        self.asked = self.passed = 0
        self._sum = 0.0
        self._since = 0

    def observe(self, passes: bool, label: int) -> Change | None:
        """Takes the next judgement. label: the newest request's ordinal. After a call it begins anew."""
        self.asked += 1
        self.passed += passes
        if self._sum == 0:
            self._since = label
        self._sum = max(0.0, self._sum + (_PASS if passes else _FAILURE))
        if self._sum <= THRESHOLD:
            return None
        change = Change(True, self._since, self._sum)
        self._sum = 0.0
        return change
