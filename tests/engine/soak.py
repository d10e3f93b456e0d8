"""A crowd and what changes under it, for as many requests as one asks: what a soak consists of.

Requests of any length and depth, many of which begin alike, come as others end; their callers give up, at a
token or when their time is over; every so many steps other limits hold; the pool stays short of pages. What
it must leave behind is nothing, and `Soaked` tells what each request was told.
"""

from __future__ import annotations

import gc
import itertools
import random
import threading
from collections.abc import Mapping
from collections.abc import Sequence as Many
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Any

from helios_contract.limits import Limits
from helios_server.engine.engine import Engine
from helios_server.engine.request import Event, FinishedEvent, FinishReason, GenerationRequest, TokensEvent
from helios_server.engine.sampling import SamplingParams
from helios_server.engine.sequence import Sequence
from helios_server.errors import InvalidRequest

from tests.engine.company import idle, wait_until
from tests.engine.helpers import Stream, prompt_of, send
from tests.engine.oracle import Library

AT_ONCE = 24
_NEVER = 1 << 30


@dataclass(frozen=True)
class Kind:
    """Of requests. depths: in layers, 0 for the budget; longest, most: tokens of a prompt, of an answer;
    stems: what prompts begin with; vocabulary: ids below it are asked."""

    depths: tuple[int, ...]
    vocabulary: int
    longest: int = 60
    most: int = 24
    stems: int = 4

    def stem(self, dice: random.Random) -> tuple[int, ...]:
        """Some of one of few texts."""
        text = random.Random(dice.randrange(self.stems))
        whole = text.choices(range(self.vocabulary), k=self.longest)
        return tuple(whole[: dice.choice((0, 0, 16, 32, 40))])


@dataclass(frozen=True)
class Asked:
    """cancelled_at: the token at which its caller gives up, beyond its length for most; seconds: after which
    its caller does, None for most."""

    prompt: tuple[int, ...]
    depth: int
    sampling: SamplingParams
    cancelled_at: int
    seconds: float | None


def asked(dice: random.Random, kind: Kind) -> Asked:
    tokens = dice.randint(1, kind.most)
    sampling = SamplingParams(
        max_tokens=tokens,
        temperature=dice.choice((0.0, 0.0, 0.9)),
        seed=dice.randrange(1 << 30),
        ignore_eos=True,
        logprobs=True,
    )
    stem = kind.stem(dice)
    own = dice.choices(range(kind.vocabulary), k=dice.randint(1, kind.longest - len(stem)))
    cancelled_at, seconds = dice.choice(
        ((_NEVER, None),) * 9 + ((tokens // 2, None), (_NEVER, 0.0), (_NEVER, 0.02))
    )
    return Asked((*stem, *own), dice.choice(kind.depths), sampling, cancelled_at, seconds)


@dataclass
class Changing:
    """Every `steps` steps other limits, in turn, over `base`; the pool stays short of `pages`."""

    engine: Engine
    turns: Many[Mapping[str, Any]]
    base: Limits
    steps: int
    pages: int
    made: list[Future[Any]] = field(default_factory=list)
    ended: bool = False

    def begin(self) -> None:
        self._limits = itertools.cycle(self.turns)
        self._run = 0
        self.engine.at_boundary(self._before_step).result()

    def _before_step(self) -> None:
        serving = self.engine.serving
        if self.ended:
            return
        if serving.runner is not None:
            serving.resize(max(self.pages, serving.scheduler.pages.used))
        self._run += 1
        if self._run % self.steps == 0 and all(change.done() for change in self.made):
            generation = self.base.generation + len(self.made) + 1
            limits = replace(self.base, generation=generation, **next(self._limits))
            self.made.append(self.engine.set_limits(limits))
        self.engine.at_boundary(self._before_step)


@dataclass
class Soaked:
    """What was asked, what became of it, and the limits that came meanwhile."""

    streams: list[tuple[Asked, Stream]]
    changes: int

    def ends(self) -> list[FinishedEvent]:
        return [stream.result() for _, stream in self.streams]

    def check(self, library: Library) -> None:
        """Nobody was told anything but what the plain loop says; those who stayed were told all of it."""
        for (one, stream), end in zip(self.streams, self.ends(), strict=True):
            assert tuple(stream.tokens) == end.output_ids
            if end.reason is not FinishReason.ABORT:
                assert len(end.output_ids) == one.sampling.max_tokens
            if end.output_ids:
                library.check(one.prompt, end, one.sampling)

    def check_it_was_a_soak(self) -> None:
        """Some gave up and some in time, some ran at several depths, some found what others had computed."""
        ends = self.ends()
        for kind in (lambda one: one.cancelled_at < _NEVER, lambda one: one.seconds is not None):
            gave_up = [end for (one, _), end in zip(self.streams, ends, strict=True) if kind(one)]
            assert any(end.reason is FinishReason.ABORT for end in gave_up)
        assert any(len(end.spans) > 1 for end in ends)
        assert any(end.prefix_hits for end in ends)


def soak(engine: Engine, requests: int, kind: Kind, changing: Changing, dice: random.Random) -> Soaked:
    """Asks them all, as others end, and waits until nothing is held any more."""
    _crowd(engine, changing.pages)
    room, streams = threading.Semaphore(AT_ONCE), list[tuple[Asked, Stream]]()
    changing.begin()
    for index in range(requests):
        room.acquire()
        one = asked(dice, kind)
        streams.append((one, _submit(engine, one, f"soak-{index}", room)))
    for _, stream in streams:
        stream.end()
    changing.ended = True
    for change in changing.made:
        change.result(60)
    wait_until(lambda: idle(engine))
    assert engine.failed is None
    assert engine.telemetry().requests_failed == 0
    engine.at_boundary(lambda: _check_nothing_is_left(engine)).result()
    return Soaked(streams, len(changing.made))


def _crowd(engine: Engine, pages: int) -> None:
    """Answers that need more pages than there are: the newest are sent back."""
    tokens = pages * engine.serving.config.page_tokens
    engine.at_boundary(lambda: engine.serving.resize(pages)).result()
    count = 2 * tokens // 90 + 1
    streams = [send(engine, prompt_of(30, seed), max_tokens=60, ignore_eos=True) for seed in range(count)]
    for stream in streams:
        stream.result()
    assert engine.telemetry().preemptions > 0


def _submit(engine: Engine, one: Asked, name: str, room: threading.Semaphore) -> Stream:
    stream = Stream(name)
    deadline = None if one.seconds is None else threading.Timer(one.seconds, engine.abort, (name,))

    def heard(event: Event) -> None:
        if isinstance(event, TokensEvent) and event.index == one.cancelled_at:
            engine.abort(name)
        stream(event)
        if not isinstance(event, TokensEvent):
            if deadline is not None:
                deadline.cancel()
            room.release()

    try:
        engine.submit(GenerationRequest(name, one.prompt, one.sampling, one.depth), heard)
    except InvalidRequest:  # the budget of the moment is below what it asks for
        engine.submit(GenerationRequest(name, one.prompt, one.sampling), heard)
    if deadline is not None:
        deadline.start()
    return stream


def _check_nothing_is_left(engine: Engine) -> None:
    """No row, no page, no hash of what a page held, and no sequence anywhere in the process."""
    scheduler = engine.serving.scheduler
    pages = scheduler.pages
    assert not scheduler.running
    assert not scheduler.waiting
    assert (pages.used, pages.free) == (0, pages.capacity)
    scheduler.prefixes.clear()
    everything = pages.take(pages.capacity)
    assert sorted(everything) == list(range(pages.capacity))
    pages.give_back(everything)
    gc.collect()
    alive = [one for one in gc.get_objects() if type(one) is Sequence and one.request_id.startswith("soak-")]
    assert not alive
