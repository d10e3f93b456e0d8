"""How a request ends before its end: left, closed, cancelled, late. Its row is free then; and a stream that
breaks is an error, not a shorter answer."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from helios_client import AsyncClient, Client, errors

from tests.client.both import KINDS, ask
from tests.client.test_answers import at
from tests.rpc.pods import PROMPT, Served, eventually

LONG: dict[str, Any] = {"max_tokens": 3000, "ignore_eos": True}


async def frees(pod: Served) -> None:
    """The row that ran."""

    async def idle() -> bool:
        load = await pod.load()
        assert pod.server is not None
        return (load.running, load.waiting, pod.server.pod.calls) == (0, 0, 0)

    await eventually(idle)


async def test_leaving_an_async_stream_frees_the_row(pod: Served) -> None:
    async with AsyncClient(at(pod)) as client:
        async with client.stream(PROMPT, **LONG) as stream:
            await anext(stream)
        await frees(pod)
        with pytest.raises(errors.Cancelled):
            await anext(stream)
        with pytest.raises(RuntimeError, match="whole"):
            _ = stream.answer


async def test_leaving_a_stream_frees_the_row(pod: Served) -> None:
    def leave(client: Client) -> None:
        with client.stream(PROMPT, **LONG) as stream:
            next(stream)
        with pytest.raises(errors.Cancelled):
            next(stream)
        with pytest.raises(RuntimeError, match="whole"):
            _ = stream.answer

    with Client(at(pod)) as client:
        await asyncio.to_thread(leave, client)
        await frees(pod)


async def test_another_thread_or_task_may_close_a_stream(pod: Served) -> None:
    begun = threading.Event()

    def read(stream: Any) -> None:
        for _ in stream:
            begun.set()

    async def follow(stream: Any, first: asyncio.Event) -> None:
        async for _ in stream:
            first.set()

    with Client(at(pod)) as client:
        closed = client.stream(PROMPT, **LONG)
        reading = asyncio.create_task(asyncio.to_thread(read, closed))
        await asyncio.to_thread(begun.wait)
        closed.close()
        with pytest.raises(errors.Cancelled):
            await reading
    async with AsyncClient(at(pod)) as also:
        left, first = also.stream(PROMPT, **LONG), asyncio.Event()
        following = asyncio.create_task(follow(left, first))
        await first.wait()
        await left.aclose()
        with pytest.raises(errors.Cancelled):
            await following
    await frees(pod)


async def test_a_task_that_is_cancelled_frees_the_row(pod: Served) -> None:
    async with AsyncClient(at(pod)) as client:
        task = asyncio.create_task(client.generate(PROMPT, **LONG))  # type: ignore[arg-type]
        await eventually(lambda: _runs(pod))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await frees(pod)


async def _runs(pod: Served) -> bool:
    return (await pod.load()).running == 1


@pytest.mark.parametrize("kind", KINDS)
async def test_a_timeout_frees_the_row(pod: Served, kind: str) -> None:
    """Of a call, or of the client."""
    with pytest.raises(errors.DeadlineExceeded) as raised:
        await ask(kind, at(pod), "generate", PROMPT, timeout=0.3, **LONG)
    assert raised.value.field == "timeout"
    with pytest.raises(errors.DeadlineExceeded):
        await ask(kind, at(pod), "generate", PROMPT, client={"timeout": 0.3}, **LONG)
    await frees(pod)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_request_is_ended_by_its_id(pod: Served, kind: str) -> None:
    running = asyncio.create_task(ask(kind, at(pod), "generate", PROMPT, request_id="mine", **LONG))
    await eventually(lambda: _runs(pod))
    assert await ask(kind, at(pod), "abort", "mine") is True
    assert (await running).finish_reason == "abort"
    assert await ask(kind, at(pod), "abort", "mine") is False


async def test_a_stream_that_breaks_is_an_error(pod: Served) -> None:
    """Its connection is cut; the answer does not go on, nor begin again."""
    assert pod.server is not None
    async with AsyncClient(at(pod)) as client, client.stream(PROMPT, **LONG) as stream:
        await anext(stream)
        for connection in list(pod.server._generation._relay.clients):
            connection.close()
        with pytest.raises(errors.Unavailable) as raised:
            async for _ in stream:
                pass
        assert raised.value.field == at(pod)
        await frees(pod)
