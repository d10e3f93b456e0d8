"""Replays a trace: each request is sent when it came, whoever has been answered, as far as there are callers.

Called for every arm with what asks it. A request that finds all callers busy waits on this side, and its wait
counts: no arm's queue is so long that it refuses. It must not judge an answer.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace

from helios_proto.client import GenerationClient
from helios_proto.v1.generation_pb2 import Chunk

from bench.loop.trace import Arrival
from examples.demo.traffic import Stream, ask

_CONNECTIONS = 4
_PATIENCE_SECONDS = 3600.0
_TELL_SECONDS = 10.0

Ask = Callable[[Arrival], Awaitable[Stream]]
Say = Callable[[str], None]


@dataclass(frozen=True)
class Answered:
    """stream.sent: when the request came, on the monotonic clock."""

    arrival: Arrival
    stream: Stream


@asynccontextmanager
async def asking(
    address: str, osl: int, heard: Callable[[Chunk], None] = lambda _: None
) -> AsyncIterator[Ask]:
    """Through the gRPC door at an address. heard: is told of what comes."""
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(GenerationClient(address)) for _ in range(_CONNECTIONS)]

        async def one(arrival: Arrival) -> Stream:
            client = clients[arrival.number % len(clients)]
            return await ask(
                client, arrival.domain, arrival.text, osl=osl, heard=heard, timeout=_PATIENCE_SECONDS
            )

        yield one


async def replay(arrivals: Sequence[Arrival], ask: Ask, callers: int, say: Say) -> list[Answered]:
    """In the order of the trace, when all have ended. callers: requests under way at most."""
    begin, free, ended = time.monotonic(), asyncio.Semaphore(callers), 0

    async def one(arrival: Arrival) -> Answered:
        nonlocal ended
        came = time.monotonic()
        async with free:
            stream = await ask(arrival)
        ended += 1
        return Answered(arrival, replace(stream, sent=came))

    async def tell() -> None:
        while True:
            await asyncio.sleep(_TELL_SECONDS)
            say(f"{time.monotonic() - begin:.0f} s, {ended} of {len(arrivals)} requests ended")

    telling = asyncio.create_task(tell())
    try:
        async with asyncio.TaskGroup() as group:
            running = []
            for arrival in arrivals:
                await asyncio.sleep(max(0.0, begin + arrival.at - time.monotonic()))
                running.append(group.create_task(one(arrival)))
    finally:
        telling.cancel()
    return [task.result() for task in running]
