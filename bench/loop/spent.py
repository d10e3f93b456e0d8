"""Energy of all processes that this one started: what serves, what profiles, and a peer.

By the processor's own counter (RAPL) where it can be read, else declared watts of a busy core times the
CPU-seconds of those processes; `Spent.source` says which. The callers and the operator live in this process:
declared watts count neither, the counter both.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from bisect import bisect_left
from collections.abc import AsyncIterator

import psutil
from helios_server.telemetry.energy import DeclaredMeter, EnergyMeter, open_rapl

_EVERY_SECONDS = 0.5
DECLARED = DeclaredMeter.source


def cpu_seconds_of_children() -> float:
    """Of those that ended, and of those that run."""
    own = psutil.Process()
    ended = own.cpu_times()
    total = ended.children_user + ended.children_system
    for child in own.children(recursive=True):
        with contextlib.suppress(psutil.Error):  # it ended meanwhile
            times = child.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return float(total)


class Spent:
    """Joules by moments of the monotonic clock."""

    def __init__(self, meter: EnergyMeter) -> None:
        self.source = meter.source
        self._meter = meter
        self._moments: list[float] = []
        self._joules: list[float] = []

    def look(self) -> None:
        """Reads the meter."""
        self._moments.append(time.monotonic())
        self._joules.append(self._meter.joules())

    def between(self, start: float, end: float) -> float:
        """Of the time from one moment to another, as far as it was watched."""
        return self._at(end) - self._at(start)

    def _at(self, moment: float) -> float:
        above = min(max(1, bisect_left(self._moments, moment)), len(self._moments) - 1)
        early, late = self._moments[above - 1 : above + 1]
        less, more = self._joules[above - 1 : above + 1]
        return less + min(max((moment - early) / (late - early), 0.0), 1.0) * (more - less)


@contextlib.asynccontextmanager
async def watched(watts: float) -> AsyncIterator[Spent]:
    """Readings are taken inside the block, and once when it is left. watts: of one busy core, where no
    counter can be read."""
    spent = Spent(open_rapl() or DeclaredMeter(watts, cpu_seconds_of_children))
    spent.look()

    async def look() -> None:
        while True:
            await asyncio.sleep(_EVERY_SECONDS)
            spent.look()

    looking = asyncio.create_task(look())
    try:
        yield spent
    finally:
        looking.cancel()
        spent.look()
