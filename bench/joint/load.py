"""Offered loads on a pod that serves one combination: the open loop of `bench.serve`, rate by rate.

Called by `__main__`. The pod is a process of its own, started with the limits that an operator would write.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from helios_contract.limits import Limits

from bench.joint.curve import Round
from bench.serve import figures
from bench.serve.doors import Access, Door, Native
from bench.serve.load import Caller
from bench.serve.pod import limited

_ANY = figures.Slo(float("inf"), float("inf"))
"""Goodput is not what is asked here."""
_WARM_SECONDS, _WARM_CALLERS = 1.0, 2


@dataclass(frozen=True)
class Shape:
    """isl, osl: tokens of a prompt and of an answer; seconds: in which a load sends; threads: of the pod's
    engine."""

    isl: int
    osl: int
    seconds: float
    threads: int


async def capacity(limits: Limits, shape: Shape, callers: int) -> float:
    """Requests a second that are answered while so many callers wait."""
    async with _door(limits, shape) as door:
        caller = Caller(door, shape.isl, shape.osl)
        begin = time.monotonic()
        await caller.closed(callers, shape.seconds)
        found = figures.summary(caller.calls, begin, shape.seconds, _ANY)
    return found["tokens-per-second"] / shape.osl


async def under(limits: Limits, shape: Shape, loads: Sequence[tuple[float, int]]) -> list[Round]:
    """Of each rate and seed, in that order; the next begins when all calls of one have ended."""
    async with _door(limits, shape) as door:
        return [await offered(door, shape, rate, seed) for rate, seed in loads]


async def offered(door: Door, shape: Shape, rate: float, seed: int) -> Round:
    """rate: requests a second; seed: of their moments and prompts, which it makes the same for every pod."""
    caller = Caller(door, shape.isl, shape.osl, seed)
    begin = time.monotonic()
    await caller.opened(rate, shape.seconds)
    return figures.summary(caller.calls, begin, shape.seconds, _ANY)


@asynccontextmanager
async def _door(limits: Limits, shape: Shape) -> AsyncIterator[Door]:
    """Of a pod that has answered before."""
    async with (
        limited(limits, "--threads", str(shape.threads)) as pod,
        Native(Native.at(pod.ports[Native.PORT]), "", Access()) as door,
    ):
        await Caller(door, shape.isl, shape.osl, seed=-1).closed(_WARM_CALLERS, _WARM_SECONDS)
        yield door
