"""What a process takes: memory and processor time, sampled from /proc, and whether the memory grows."""

from __future__ import annotations

import asyncio
import math
import os
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist

_TICKS = os.sysconf("SC_CLK_TCK")
_BLOCKS = 20
"""Samples are averaged over so many stretches of time: long enough that their errors hardly hang together."""


@dataclass(frozen=True)
class Sample:
    """`seconds`: of a clock that only runs forward; `cpu_seconds`: used since the process began."""

    seconds: float
    rss_mib: float
    cpu_seconds: float


def sample(pid: int) -> Sample:
    status = Path(f"/proc/{pid}/status").read_text()
    resident = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return Sample(
        time.monotonic(), int(resident.split()[1]) / 1024, (int(fields[11]) + int(fields[12])) / _TICKS
    )


async def samples(pid: int, seconds: float, every: float = 1.0) -> list[Sample]:
    taken = [sample(pid)]
    while taken[-1].seconds - taken[0].seconds < seconds:
        await asyncio.sleep(every)
        taken.append(sample(pid))
    return taken


def stretches(taken: Sequence[Sample]) -> list[tuple[float, float]]:
    """Mean time and mean memory of each."""
    block_seconds = (taken[-1].seconds - taken[0].seconds) / (_BLOCKS - 1e-6)
    blocks: dict[int, list[Sample]] = {}
    for one in taken:
        blocks.setdefault(int((one.seconds - taken[0].seconds) / block_seconds), []).append(one)
    return [
        (statistics.fmean(s.seconds for s in block), statistics.fmean(s.rss_mib for s in block))
        for block in blocks.values()
    ]


def growth(taken: Sequence[Sample], over_seconds: float = 600.0) -> tuple[float, float, float]:
    """Per cent of the mean per `over_seconds`: the slope of a straight line through means of blocks, and its
    95 % interval. The blocks' residuals are taken as independent."""
    x, y = zip(*stretches(taken), strict=True)
    slope, intercept = statistics.linear_regression(x, y)
    residuals = sum((b - slope * a - intercept) ** 2 for a, b in zip(x, y, strict=True))
    free = len(x) - 2
    spread = sum((a - statistics.fmean(x)) ** 2 for a in x)
    half = _quantile(free) * math.sqrt(residuals / free / spread)
    scale = 100 * over_seconds / statistics.fmean(y)
    return scale * slope, scale * (slope - half), scale * (slope + half)


def _quantile(free: int) -> float:
    """97.5 % of Student's t, by the first terms of its series: within 0.5 % from 4 degrees of freedom on."""
    z = NormalDist().inv_cdf(0.975)
    return (
        z
        + (z**3 + z) / (4 * free)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * free**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * free**3)
    )
