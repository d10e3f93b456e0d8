"""What is sent again, and what never is: a server that plays each case counts what arrives."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from helios_client import AsyncClient, errors
from helios_proto.v1 import generation_pb2 as pb
from helios_proto.v1 import generation_pb2_grpc
from helios_server.errors import Draining, HeliosError, QueueFull, RequestFailed, SlowReader
from helios_server.rpc.errors import refuse

from tests.client.both import KINDS, ask
from tests.client.test_answers import at
from tests.client.test_ends import LONG
from tests.rpc.pods import PROMPT, eventually, serving

pytestmark = pytest.mark.usefixtures("quick_retries")

TOKEN = pb.GenerateResponse(chunk=pb.Chunk(text="a", token_ids=[1]))
END = pb.GenerateResponse(complete=pb.Complete(text="a"))
DRAINS = Draining("server", "drains", "Try another one")


def full(seconds: float) -> QueueFull:
    return QueueFull("max_queue_size", "1 requests are waiting", "Try again later", seconds)


@dataclass
class Played(generation_pb2_grpc.GenerationServicer):
    """Answers each call by the next of its parts, the last one again and again: messages, and how it ends."""

    parts: Sequence[Sequence[pb.GenerateResponse | HeliosError]]
    calls: list[pb.GenerateRequest] = field(default_factory=list)

    async def Generate(self, request: pb.GenerateRequest, context: Any) -> None:
        self.calls.append(request)
        for each in self.parts[min(len(self.calls), len(self.parts)) - 1]:
            if isinstance(each, HeliosError):
                await refuse(context, each)
            await context.write(each)


@asynccontextmanager
async def played(*parts: Sequence[pb.GenerateResponse | HeliosError]) -> AsyncIterator[tuple[Played, str]]:
    servicer, server = Played(parts), grpc.aio.server()
    generation_pb2_grpc.add_GenerationServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield servicer, f"127.0.0.1:{port}"
    await server.stop(None)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [1, 1 << 20], ids=["short", "long"])
async def test_what_a_draining_pod_refuses_is_sent_again(kind: str, size: int) -> None:
    """However long the prompt."""
    async with played([DRAINS], [DRAINS], [TOKEN, END]) as (server, address):
        assert (await ask(kind, address, "generate", "a" * size)).text == "a"
        assert len(server.calls) == 3
        assert {len(call.text) for call in server.calls} == {size}


@pytest.mark.parametrize("kind", KINDS)
async def test_a_pod_that_stays_away_is_an_error_after_four_tries(kind: str) -> None:
    async with played([DRAINS]) as (server, address):
        with pytest.raises(errors.Unavailable) as raised:
            await ask(kind, address, "generate", "a")
        assert str(raised.value) == f"{DRAINS}, in 1 seconds"
        assert len(server.calls) == 4


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "error",
    [DRAINS, full(0.01), RequestFailed("request", "x", "Report this"), SlowReader("client", "x", "Read")],
    ids=lambda error: error.code,
)
async def test_nothing_is_sent_again_once_a_token_was_given(kind: str, error: HeliosError) -> None:
    async with played([TOKEN, error], [TOKEN, END]) as (server, address):
        with pytest.raises(errors.HeliosError) as raised:
            await ask(kind, address, "generate", "a")
        assert (raised.value.code, len(server.calls)) == (error.code, 1)


@pytest.mark.parametrize("kind", KINDS)
async def test_what_would_fail_again_is_not_sent_again(kind: str) -> None:
    for error in (RequestFailed("request", "x", "Report this"), SlowReader("client", "x", "Read")):
        async with played([error], [TOKEN, END]) as (server, address):
            with pytest.raises(errors.HeliosError):
                await ask(kind, address, "generate", "a")
            assert len(server.calls) == 1


@pytest.mark.parametrize("kind", KINDS)
async def test_a_full_queue_is_waited_for_as_long_as_patience_lasts(kind: str) -> None:
    async with played([full(0.1)], [full(0.1)], [TOKEN, END]) as (server, address):
        assert (await ask(kind, address, "generate", "a")).text == "a"
        assert len(server.calls) == 3
    async with played([full(0.1)], [full(60)]) as (server, address):
        with pytest.raises(errors.ResourceExhausted) as raised:
            await ask(kind, address, "generate", "a", client={"patience": 5})
        assert (raised.value.retry_after, len(server.calls)) == (60, 2)
        assert str(raised.value).endswith("Try again later, in 60 seconds")
    async with played([full(600)]) as (server, address):
        with pytest.raises(errors.ResourceExhausted):
            await ask(kind, address, "generate", "a", client={"patience": 0})
        with pytest.raises(errors.ResourceExhausted):
            await ask(kind, address, "generate", "a", client={"patience": 1000}, timeout=300)
        assert len(server.calls) == 2


async def test_a_wait_can_be_left() -> None:
    async with played([full(20)], [TOKEN, END]) as (server, address), AsyncClient(address) as client:
        task = asyncio.create_task(client.generate("a"))  # type: ignore[arg-type]
        while not server.calls:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(server.calls) == 1


async def test_a_place_in_a_real_queue_is_waited_for(tiny: Path) -> None:
    async with serving(tiny, max_batch_size=1, max_queue_size=1) as pod:
        holds = [asyncio.create_task(ask("aio", at(pod), "generate", PROMPT, **LONG)) for _ in range(2)]
        await eventually(lambda: _holds(pod, 2))
        with pytest.raises(errors.ResourceExhausted) as raised:
            await ask("aio", at(pod), "generate", PROMPT, client={"patience": 0})
        assert raised.value.field == "max_queue_size"
        assert raised.value.retry_after is not None
        assert f", in {raised.value.retry_after:.3g} seconds" in str(raised.value)
        waits = asyncio.create_task(ask("aio", at(pod), "generate", PROMPT, max_tokens=4))
        for task in holds:
            task.cancel()
        await asyncio.gather(*holds, return_exceptions=True)
        assert (await waits).completion_tokens <= 4


async def _holds(pod: Any, requests: int) -> bool:
    load = await pod.load()
    return bool(load.running + load.waiting == requests)
