"""One way to speak through both clients, so that a test says once what holds of each."""

from __future__ import annotations

import asyncio
from typing import Any

from helios_client import Answer, AsyncClient, Chunk, Client

KINDS = ("sync", "aio")


async def ask(kind: str, address: str, call: str, *given: Any, client: Any = None, **options: Any) -> Any:
    """What a call of a client of its own returns. client: what the client is made with."""
    made = client or {}
    if kind == "aio":
        async with AsyncClient(address, **made) as speaking:
            return await getattr(speaking, call)(*given, **options)

    def in_a_thread() -> Any:
        with Client(address, **made) as speaking:
            return getattr(speaking, call)(*given, **options)

    return await asyncio.to_thread(in_a_thread)


async def read(
    kind: str, address: str, call: str, *given: Any, client: Any = None, **options: Any
) -> tuple[list[Chunk], Answer]:
    """The chunks of a stream, and the answer at its end."""
    made = client or {}
    if kind == "aio":
        async with (
            AsyncClient(address, **made) as speaking,
            getattr(speaking, call)(*given, **options) as stream,
        ):
            return [chunk async for chunk in stream], stream.answer

    def in_a_thread() -> tuple[list[Chunk], Answer]:
        with Client(address, **made) as speaking, getattr(speaking, call)(*given, **options) as stream:
            return list(stream), stream.answer

    return await asyncio.to_thread(in_a_thread)
