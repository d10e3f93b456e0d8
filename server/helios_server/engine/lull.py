"""When audits are least in the way: while no more requests are here than on average.

Asked by the auditor before each unit of work. It knows numbers and times alone.
"""

from __future__ import annotations

import math

MEMORY_SECONDS = 30.0
"""Over which the average is taken: what is longer ago counts ever less."""


class Lull:
    """now: seconds on a monotonic clock, that never go back."""

    def __init__(self) -> None:
        self._mean = 0.0
        self._requests = 0
        self._seen: float | None = None

    def observe(self, requests: int, now: float) -> None:
        """So many requests, running or waiting, are here from now on."""
        if self._seen is None:
            self._mean = float(requests)
        else:
            weight = -math.expm1((self._seen - now) / MEMORY_SECONDS)
            self._mean += weight * (self._requests - self._mean)
        self._requests, self._seen = requests, now

    def __bool__(self) -> bool:
        """A load that stays the same is a lull too: there will be no better moment."""
        return self._requests <= self._mean + 0.5
