"""One run: the rates of the machine, the trace, every arm that there is time for, and the parts.

Called by `__main__`. An arm that fails is named, and the others go on; arms that might not end in time are
named too. It must not judge what came of it.
"""

from __future__ import annotations

import asyncio
import sys
import time
from argparse import Namespace
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatch

from bench.loop.arms import TOKENS, Arm, Arms
from bench.loop.figures import Run
from bench.loop.parts import Rates, rates, saturated
from bench.loop.pods import address
from bench.loop.replay import Answered, Say, asking, replay
from bench.loop.spent import watched
from bench.loop.trace import Arrival, Shape, Texts, drawn, sliced
from bench.loop.turns import Pair, Pairing

PARTS = "parts"
"""Named beside the arms."""
_BURST = 8.0
"""Times what full depth as published can do: no arm keeps up."""


@dataclass
class Measured:
    """What came of it so far."""

    runs: list[Run] = field(default_factory=list)
    pairs: list[Pair] = field(default_factory=list)
    parts: Rates = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    errors: dict[str, str] = field(default_factory=dict)


class Bench:
    """One run: until all arms have had the trace, or the minutes are over."""

    def __init__(self, arms: Arms, texts: Texts, options: Namespace) -> None:
        self._arms = arms
        self._texts = texts
        self._options = options
        self._end = options.began + 60 * options.minutes
        self._longest = 0.0
        self.found = Measured()

    async def run(self) -> tuple[Shape, Measured]:
        shape = await self._shape()
        if self._options.turns:
            await self._in_turns(shape)
            return shape, self.found
        trace = drawn(shape, self._texts)
        say(f"{len(trace)} requests in {trace[-1].at:.0f} s, {shape.calm:.2f} a second in calms")
        arms = list(self._arms.first(self._options.short))
        for number in range(self._options.rounds):
            for arm in reversed(arms) if number % 2 else arms:
                await self._try(arm, trace)
        await self._parts()
        for arm in self._arms.others():
            await self._try(arm, trace)
        return shape, self.found

    async def _in_turns(self, shape: Shape) -> None:
        """Each loop beside each static arm."""
        slices = [drawn(one, self._texts) for one in sliced(shape, self._options.turns)]
        pairing = Pairing(self._options.callers, self._options.watts, say)
        rivals = [arm for arm in self._arms.statics() if self.is_asked(arm.name)]
        for loop in filter(lambda arm: self.is_asked(arm.name), self._arms.free_loops()):
            began = time.monotonic()
            if self._has_time(loop.name):
                async with self._named(loop.name):
                    self.found.pairs += await pairing.play(loop, rivals, slices)
            self._longest = max(self._longest, time.monotonic() - began)
        self.found.runs += [run for pair in self.found.pairs for run in (pair.loop, pair.other)]

    @asynccontextmanager
    async def _named(self, name: str) -> AsyncIterator[None]:
        """What goes wrong inside the block is told of `name`, and the others go on; what does not end in time
        is left out."""
        try:
            async with asyncio.timeout(self._end - time.monotonic()):
                yield
        except TimeoutError:
            self.found.left_out.append(name)
        except Exception as error:
            self.found.errors[name] = f"{type(error).__name__}: {error}"
            say(f"{name}: {error}")

    def _has_time(self, name: str) -> bool:
        """For as much as the longest took so far."""
        if time.monotonic() + self._longest < self._end:
            return True
        self.found.left_out.append(name)
        return False

    async def _shape(self) -> Shape:
        """Rates are shares of what full depth as published can do, unless they are given."""
        options, fixed = self._options, self._arms.fixed
        rate = options.rate
        if rate is None:
            limits = fixed.depth(fixed.subject.depths[0])
            async with fixed.serving(limits) as pod, asking(address(pod), fixed.subject.osl) as ask:
                [tokens] = await saturated(ask, self._texts, options.callers, 1)
            rate = tokens / fixed.subject.osl
        kinds, calm = tuple(options.kinds), options.load * rate
        return Shape(options.requests, kinds, calm, _BURST * rate, options.seed)

    def is_asked(self, name: str) -> bool:
        """An arm, or PARTS."""
        return any(fnmatch(name, pattern) for pattern in self._options.only)

    async def _try(self, arm: Arm, trace: Sequence[Arrival]) -> None:
        began = time.monotonic()
        if not self.is_asked(arm.name) or not self._has_time(arm.name):
            return
        async with self._named(arm.name):
            async with arm.open() as opened, watched(self._options.watts) as spent:
                answered = await replay(trace, opened.ask, self._options.callers, _saying(arm.name))
                facts = opened.facts(answered)
            _check(answered)
            seconds = time.monotonic() - began
            self.found.runs.append(Run(arm.name, answered, spent, seconds, facts, arm.name == TOKENS))
            say(f"{arm.name}: over after {seconds:.0f} s, with its start")
        self._longest = max(self._longest, time.monotonic() - began)

    async def _parts(self) -> None:
        if self.is_asked(PARTS) and self._has_time(PARTS):
            async with self._named(PARTS):
                count = self._options.part_requests
                self.found.parts = await rates(self._arms.fixed, self._texts, count, 2, say)


def _saying(name: str) -> Say:
    return lambda line: say(f"{name}: {line}")


def _check(answered: Sequence[Answered]) -> None:
    """Raises RuntimeError where nothing can be said of a kind of text."""
    for kind in {each.arrival.kind for each in answered}:
        errors = [each.stream.error for each in answered if each.arrival.kind == kind]
        if all(errors):
            raise RuntimeError(f"no request of {kind} was answered: {errors[0]}")


def say(line: str) -> None:
    """How far it is, on the error stream."""
    print(line, file=sys.stderr, flush=True)
