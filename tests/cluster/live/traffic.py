"""Callers of a scene's front address in a closed loop: what they were answered, and that nothing was lost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from helios_proto.client import GenerationClient
from helios_proto.v1.generation_pb2 import GenerateRequest, SamplingParams

from tests.cluster.live.scene import Scene

OWN_CONNECTION = [("grpc.use_local_subchannel_pool", 1)]
"""Or clients of one process and address share one, and none is new while any of them lives."""


async def ask(client: GenerationClient, tokens: int = 40) -> str:
    """The candidate that ended the stream. Raises what gRPC raises when the request is lost."""
    parameters = SamplingParams(max_tokens=tokens, ignore_eos=True, temperature=1.0)
    request = GenerateRequest(model="chat", text="Call me Ishmael.", sampling_params=parameters)
    answer = client.generate(request, timeout=120)
    complete = await answer.complete()
    assert complete.usage.completion_tokens == tokens
    return str((await answer.spans())[-1]["candidate"])


@asynccontextmanager
async def traffic(
    place: Scene, callers: int = 3, name: str = "chat", *, anew: bool = False, tokens: int = 40
) -> AsyncIterator[list[str]]:
    """Inside the block the list grows by the candidate of each finished stream; at its end every caller has
    had another answer. `anew`: with a connection for each request; others stay where they are until a pod
    goes."""
    answered: list[str] = []
    stop = asyncio.Event()
    address = await place.front(name)

    async def call() -> None:
        while not stop.is_set():
            async with GenerationClient(address, options=OWN_CONNECTION) as client:
                while not stop.is_set():
                    answered.append(await ask(client, tokens))
                    await asyncio.sleep(0.05)
                    if anew:
                        break

    async with asyncio.TaskGroup() as group:
        for _ in range(callers):
            group.create_task(call())
        while not answered:
            await asyncio.sleep(0.05)
        yield answered
        after = len(answered) + 2 * callers
        while len(answered) < after:
            await asyncio.sleep(0.05)
        stop.set()


async def rate(answered: list[str], requests: int) -> float:
    """Finished requests per second, while the next so many are answered."""
    begin, before = time.monotonic(), len(answered)
    while len(answered) < before + requests:
        await asyncio.sleep(0.05)
    return requests / (time.monotonic() - begin)
