"""Calls through a door, as an open or a closed loop makes them, and when their tokens came.

Called by `__main__` and `crowd`, in the process that is not the pod's. An open loop sends at moments that a
Poisson process draws, whoever has been answered; a closed one keeps a number of calls under way.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from itertools import pairwise

from bench.serve.doors import Door, Failed, Refused

ANSWERED, TOLD_WHEN, REFUSED, FAILED = "answered", "refused with a hint", "refused without", "failed"
_LONGEST_WAIT_SECONDS = 1.0
"""That a caller of a closed loop heeds of a hint."""
_TELL_SECONDS = 5.0


@dataclass
class Call:
    """sent, and each of `came`: seconds on the monotonic clock; end: "" while it runs."""

    sent: float
    came: list[float] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    end: str = ""
    hint: float | None = None
    words: str = ""

    @property
    def ttft(self) -> float:
        return self.came[0] - self.sent

    @property
    def gaps(self) -> list[float]:
        """Between two messages."""
        return [after - before for before, after in pairwise(self.came)]

    @property
    def e2e(self) -> float:
        return self.came[-1] - self.sent

    @property
    def itl(self) -> float:
        """Mean seconds a token after the first."""
        return (self.came[-1] - self.came[0]) / max(1, sum(self.tokens[1:]))


class Caller:
    """Makes calls through one door and keeps them."""

    def __init__(self, door: Door, prompt: int, new: int, seed: int = 0) -> None:
        self._door = door
        self._prompt = prompt
        self._new = new
        self._draw = random.Random(seed)
        self.calls: list[Call] = []

    async def one(self) -> Call:
        """A call from its beginning to its end, whatever that is."""
        call = Call(time.monotonic())
        self.calls.append(call)
        try:
            async for count in self._door.ask(self._ids(), self._new):
                call.came.append(time.monotonic())
                call.tokens.append(count)
            call.end = ANSWERED if sum(call.tokens) == self._new else FAILED
            call.words = "" if call.end is ANSWERED else f"{sum(call.tokens)} of {self._new} tokens came"
        except Refused as refused:
            call.end, call.hint = TOLD_WHEN if refused.hint else REFUSED, refused.hint
            call.words = str(refused)
        except Failed as failed:
            call.end, call.words = FAILED, str(failed)
        return call

    def _ids(self) -> tuple[int, ...]:
        """Of any vocabulary; no two prompts begin alike, so that none is found in a cache."""
        return tuple(self._draw.randrange(3, 256) for _ in range(self._prompt))

    async def closed(self, concurrency: int, seconds: float) -> None:
        """Keeps so many calls under way for so long; returns when the last has ended."""
        end = time.monotonic() + seconds

        async def worker() -> None:
            while time.monotonic() < end:
                call = await self.one()
                if call.end != ANSWERED:
                    await asyncio.sleep(min(call.hint or _LONGEST_WAIT_SECONDS, _LONGEST_WAIT_SECONDS))

        await asyncio.gather(*(worker() for _ in range(concurrency)))

    async def opened(self, rate: float, seconds: float) -> None:
        """Sends `rate` calls a second for so long; returns when the last has ended."""
        begin = time.monotonic()
        async with asyncio.TaskGroup() as group:
            async for _ in _moments(begin, rate, seconds, self._draw):
                group.create_task(self.one())

    async def burst(self, number: int) -> None:
        """So many at one moment; returns when all have ended."""
        await asyncio.gather(*(self.one() for _ in range(number)))


async def _moments(begin: float, rate: float, seconds: float, draw: random.Random) -> AsyncIterator[float]:
    """A moment that has passed already is not left out: what is late is sent at once."""
    moment = begin
    while (moment := moment + draw.expovariate(rate)) < begin + seconds:
        await asyncio.sleep(max(0.0, moment - time.monotonic()))
        yield moment


async def told(caller: Caller, what: str, say: Callable[[str], None]) -> None:
    """Says how far the calls are, until it is cancelled."""
    began = time.monotonic()
    while True:
        await asyncio.sleep(_TELL_SECONDS)
        ends = [call.end for call in caller.calls]
        tokens = sum(sum(call.tokens) for call in caller.calls)
        say(
            f"{what}: {time.monotonic() - began:.0f} s, {ends.count('')} under way,"
            f" {ends.count(ANSWERED)} answered, {ends.count(TOLD_WHEN) + ends.count(REFUSED)} refused,"
            f" {ends.count(FAILED)} failed, {tokens} tokens"
        )
