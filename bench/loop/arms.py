"""What a trace is replayed against, in the order in which arms are left out last.

Called by `run`. An arm is opened for its replay alone and leaves nothing behind but what a loop had measured
before the trace, which the next one takes over.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from helios_contract.serves import AUTO
from helios_operator.local.runtime import Options
from helios_proto.v1.generation_pb2 import Chunk
from helios_server.models.cache import cache_root
from helios_server.models.store import resolve

from bench.frontier.front import Key, name
from bench.loop.looping import Asked, costs, looping
from bench.loop.peer import answering
from bench.loop.pods import Fixed, address
from bench.loop.replay import Answered, Ask, asking
from bench.loop.trace import Arrival
from examples.demo.kept import keep

TOKENS, PEER = "token-exit", "transformers"
_AS_PUBLISHED = "-as-published"


@dataclass(frozen=True)
class Open:
    """facts: what is known of the arm when its replay is over."""

    ask: Ask
    facts: Callable[[Sequence[Answered]], Mapping[str, Any]]


@dataclass(frozen=True)
class Arm:
    name: str
    open: Callable[[], AbstractAsyncContextManager[Open]]


@dataclass(frozen=True)
class Arms:
    """asked: of the loops, whose objective and weights vary; state: a folder for theirs; watts: of a busy
    core; peer_rows: requests that a peer takes at once."""

    fixed: Fixed
    asked: Asked
    objectives: Sequence[str]
    state: Path
    watts: float
    peer_rows: int
    settling: Sequence[Arrival]
    """Answered by a loop before its trace."""

    def loops(self, as_published: bool = False) -> Mapping[str, str]:
        """Their arms, by objective."""
        return {each: loop_name(each, as_published) for each in self.objectives}

    def first(self, short: bool) -> Iterator[Arm]:
        """Without which nothing can be said. short: of depths below full one in one precision."""
        whole, *below = self.fixed.subject.depths
        reference, *others = self.fixed.subject.precisions
        yield self._static((whole, reference))
        yield Arm(TOKENS, self._tokens)
        yield from self.free_loops()
        yield from (self._static((whole, precision)) for precision in others)
        shallow = [(depth, precision) for depth in below for precision in (reference, *others)]
        yield from map(self._static, shallow[-1:] if short else shallow)

    def free_loops(self) -> Iterator[Arm]:
        """With a choice of precision."""
        return (self._loop(objective, as_published=False) for objective in self.objectives)

    def statics(self) -> Iterator[Arm]:
        """Every depth in every precision."""
        return map(self._static, self.fixed.keys)

    def others(self) -> Iterator[Arm]:
        """Whose absence leaves the rest as it is."""
        yield Arm(PEER, self._peer)
        yield from (self._loop(objective, as_published=True) for objective in self.objectives)

    @property
    def _before(self) -> Path:
        """Of each loop what was known before its trace: what the trace had measured no other one knows."""
        folder = self.state / "before"
        folder.mkdir(exist_ok=True)
        return folder

    # -- each of them ----------------------------------------------------------------------------------------

    def _static(self, key: Key) -> Arm:
        limits = self.fixed.depth(*key)

        @asynccontextmanager
        async def opened() -> AsyncIterator[Open]:
            async with self.fixed.serving(limits) as pod, asking(address(pod), self.fixed.subject.osl) as ask:
                yield Open(ask, lambda _: {})

        return Arm(name(key), opened)

    @asynccontextmanager
    async def _tokens(self) -> AsyncIterator[Open]:
        limits, osl, left = self.fixed.tokens(self.fixed.threshold), self.fixed.subject.osl, Counter[int]()

        def heard(chunk: Chunk) -> None:
            left[chunk.depth] += len(chunk.token_ids)

        async with self.fixed.serving(limits) as pod, asking(address(pod), osl, heard) as ask:
            yield Open(ask, lambda _: {"sharesOfTokensByDepth": _shares(left)})

    def _loop(self, objective: str, as_published: bool) -> Arm:
        weights = [AUTO] if as_published else self.asked.weights
        asked = replace(self.asked, objective=objective, weights=weights)
        arm = loop_name(objective, as_published)

        @asynccontextmanager
        async def opened() -> AsyncIterator[Open]:
            shutil.rmtree(self.state / arm, ignore_errors=True)  # of an earlier round
            options = Options(
                volumes=cache_root(),
                dtype=self.fixed.dtype,
                watts=self.watts,
                port=0,
                http=False,
                command="bench.loop",
                neighbours=tuple(sorted(self._before.iterdir())),
            )
            deployment = asked.deployment(self.fixed.subject)
            async with (
                looping(deployment, self.state / arm, options) as loop,
                asking(loop.address, self.fixed.subject.osl) as ask,
            ):
                await loop.settle(self.settling, ask, self.peer_rows)
                if not (self._before / arm).exists():
                    keep(self.state / arm, self._before / arm)
                chose = {"chose": loop.chose}
                yield Open(ask, lambda answered: chose | {"changes": costs(loop.changes(), answered)})

        return Arm(arm, opened)

    @asynccontextmanager
    async def _peer(self) -> AsyncIterator[Open]:
        subject, model = self.fixed.subject, resolve(self.fixed.subject.uri).path
        async with answering(model, self.fixed.dtype, self.peer_rows, subject.tokens, subject.osl) as peer:
            yield Open(peer.ask, lambda _: {"batching": peer.batching})


def loop_name(objective: str, as_published: bool = False) -> str:
    """as_published: without a choice of precision."""
    return f"helios-{objective}{_AS_PUBLISHED if as_published else ''}"


def _shares(counts: Mapping[int, int]) -> Mapping[str, float]:
    total = sum(counts.values()) or 1
    return {str(depth): round(count / total, 4) for depth, count in sorted(counts.items())}
