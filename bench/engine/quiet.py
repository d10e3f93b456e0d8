"""Whether anything else uses this machine: figures taken on a busy one mean nothing.

Looks at what the processors do while we sleep, and at what we get of them when we ask for all.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

_LOOK_SECONDS = 2.0
_MOST_BUSY_PERCENT, _LEAST_GOT_PERCENT = 3.0, 97.0
_SPIN = """
import time
wall, cpu = time.perf_counter(), time.process_time()
while time.perf_counter() < wall + {seconds}: pass
print((time.process_time() - cpu) / (time.perf_counter() - wall))
"""


def look(threads: int) -> Mapping[str, float]:
    """others: percent of all processors that others used while we slept; got: percent of a processor, of the
    one of so many processes asking for all of it that got least."""
    return {"othersPercent": round(_others(), 1), "gotPercent": round(_got(threads), 1)}


def objection(seen: Mapping[str, float]) -> str | None:
    """Why not to measure now."""
    if seen["othersPercent"] > _MOST_BUSY_PERCENT:
        return f"others use {seen['othersPercent']:g} % of the processors"
    if seen["gotPercent"] < _LEAST_GOT_PERCENT:
        return f"a process that asks for a whole processor gets {seen['gotPercent']:g} % of it"
    return None


def insist(threads: int, busy: bool) -> Mapping[str, float]:
    """What was seen. Ends the process when others are at work, unless it is told to measure all the same."""
    seen = look(threads)
    if (why := objection(seen)) and not busy:
        raise SystemExit(f"not measured: {why}. Wait until nothing else runs, or pass --busy to go on")
    return seen


def _others() -> float:
    before = _ticks()
    time.sleep(_LOOK_SECONDS)
    after = _ticks()
    everything = sum(after) - sum(before)
    idle = sum(after[3:5]) - sum(before[3:5])  # idle, waiting for a disk
    return 100 * (1 - idle / everything) if everything else 0.0


def _ticks() -> list[int]:
    """user, nice, system, idle, iowait, irq, softirq, steal of all processors; zeros without /proc."""
    stat = Path("/proc/stat")
    return [int(word) for word in stat.read_text().split("\n")[0].split()[1:9]] if stat.exists() else [0] * 8


def _got(threads: int) -> float:
    spin = [sys.executable, "-c", _SPIN.format(seconds=1.0)]
    count = min(threads, os.cpu_count() or 1)
    running = [subprocess.Popen(spin, stdout=subprocess.PIPE, text=True) for _ in range(count)]
    return min(100 * float(process.communicate()[0]) for process in running)
