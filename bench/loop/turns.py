"""A loop and each choice that stays as it is, in turns on the same requests: what the machine does meanwhile
it does to both.

Called by `run`. While another one answers, the loop's processes are stopped, so that it neither audits nor
measures in the other's time; its own turn holds all that it does beside answering. It must not judge what
came of it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import psutil

from bench.loop.arms import Arm, Open
from bench.loop.figures import Run
from bench.loop.replay import Say, replay
from bench.loop.spent import watched
from bench.loop.trace import Arrival

T = TypeVar("T")
Turn = Callable[[], Awaitable[Run]]
LOOK_SECONDS = 0.2
"""How long a process that the loop has just started may run in another's turn."""
_AWAKE_SECONDS = 0.5
"""Before its turn, for what a pod says of itself to be heard."""


@dataclass(frozen=True)
class Pair:
    """Of one slice of the trace, one right after the other."""

    loop: Run
    other: Run


@dataclass(frozen=True)
class Pairing:
    """Who answers when. callers: requests under way at most; watts: of a busy core."""

    callers: int
    watts: float
    say: Say

    async def play(self, loop: Arm, others: Sequence[Arm], slices: Sequence[Sequence[Arrival]]) -> list[Pair]:
        """Each slice once with each of the others, another one first each time, so that what a loop does
        right after a shift falls on none in particular; who begins alternates. A turn must be so short that
        the operator does not miss the pod that is stopped meanwhile: a quarter of a minute."""
        async with AsyncExitStack() as stack:
            opened = {other.name: await stack.enter_async_context(other.open()) for other in others}
            apart = _children()
            mine = await stack.enter_async_context(loop.open())
            pairs = []
            for number, slice in enumerate(slices):
                for name, other in _from(number, list(opened.items())):
                    own = partial(self._turn, loop.name, mine, slice)
                    its = partial(self._undisturbed, apart, name, other, slice)
                    pairs.append(await _pair(own, its, its_first=number % 2 == 1))
                self.say(f"{loop.name}: {number + 1} of {len(slices)} slices")
            facts = mine.facts([each for pair in pairs for each in pair.loop.answered])
        return [replace(pair, loop=replace(pair.loop, facts=facts)) for pair in pairs]

    async def _undisturbed(
        self, apart: frozenset[psutil.Process], name: str, opened: Open, slice: Sequence[Arrival]
    ) -> Run:
        async with stopped(apart):
            return await self._turn(name, opened, slice)

    async def _turn(self, name: str, opened: Open, slice: Sequence[Arrival]) -> Run:
        await asyncio.sleep(_AWAKE_SECONDS)
        async with watched(self.watts) as spent:
            answered = await replay(slice, opened.ask, self.callers, lambda _: None)
        lasted = max(each.stream.ended for each in answered) - min(each.stream.sent for each in answered)
        return Run(name, answered, spent, lasted)


def _from(number: int, arms: Sequence[T]) -> list[T]:
    """All of them, another one first for each number."""
    first = number % len(arms)
    return [*arms[first:], *arms[:first]]


async def _pair(own: Turn, its: Turn, its_first: bool) -> Pair:
    if its_first:
        other = await its()
        return Pair(await own(), other)
    return Pair(await own(), await its())


def _children() -> frozenset[psutil.Process]:
    return frozenset(psutil.Process().children(recursive=True))


@asynccontextmanager
async def stopped(apart: frozenset[psutil.Process]) -> AsyncIterator[None]:
    """All processes that this one started, but for those apart, and those that they start meanwhile."""
    held: set[psutil.Process] = set()

    def hold() -> None:
        for process in _children() - apart - held:
            with contextlib.suppress(psutil.Error):  # it ended meanwhile
                process.suspend()
                held.add(process)

    async def watch() -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            hold()

    hold()
    watching = asyncio.create_task(watch())
    try:
        yield
    finally:
        watching.cancel()
        for process in held:
            with contextlib.suppress(psutil.Error):
                process.resume()
