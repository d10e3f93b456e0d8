"""The client for asyncio. For applications."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
from helios_proto.client import CHANNEL_OPTIONS
from helios_proto.v1 import generation_pb2 as pb

from helios_client import errors
from helios_client.answers import Answer, Chunk, ModelInfo
from helios_client.calls import Calls
from helios_client.connection import TLS, Connection
from helios_client.waiting import Patience


class AsyncStream:
    """A request under way: iterate its chunks; at their end `answer` is the whole. Leaving the `async with`
    block, or `aclose`, ends the request and frees its row; whoever reads on gets Cancelled."""

    def __init__(self, send: Callable[[float | None], Any], patience: Patience, address: str) -> None:
        self._send = send
        self._patience = patience
        self._address = address
        self._call: Any = None
        self._closed = False
        self._answer: Answer | None = None
        self._chunks = self._read()

    async def __aenter__(self) -> AsyncStream:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __aiter__(self) -> AsyncIterator[Chunk]:
        return self

    async def __anext__(self) -> Chunk:
        """Raises HeliosError."""
        return await anext(self._chunks)

    async def aclose(self) -> None:
        self._closed = True
        if self._call is not None:
            self._call.cancel()

    @property
    def answer(self) -> Answer:
        """RuntimeError before the end."""
        if self._answer is None:
            raise RuntimeError("the answer is whole when all of its chunks are read")
        return self._answer

    async def _read(self) -> AsyncIterator[Chunk]:
        last, began = pb.Complete(), False
        while not self._closed:
            self._call = self._send(self._patience.left())
            try:
                async for message in self._call:
                    began = True
                    if message.HasField("chunk"):
                        yield Chunk.of(message.chunk)
                    else:
                        last = message.complete
                self._answer = Answer.of(last, dict(await self._call.trailing_metadata() or ()))
                return
            except grpc.aio.AioRpcError as raised:
                error = errors.of(raised, self._address)
                pause = None if began else self._patience.pause(error)
                if pause is None:
                    raise error from None
            except asyncio.CancelledError:
                if self._closed and not _is_cancelled():  # the call is, by another task
                    break
                raise
            await asyncio.sleep(pause)
        raise errors.cancelled()


class AsyncClient(Calls[AsyncStream, Awaitable[Answer], Awaitable[ModelInfo], Awaitable[bool]]):
    """One channel to a deployment's address, as `Client`; to be made where a loop runs. A task that is
    cancelled ends its request. An async context manager. Raises InvalidArgument."""

    def __init__(
        self,
        address: str,
        *,
        tls: TLS | None = None,
        token: str = "",
        timeout: float | None = None,
        patience: float = 30.0,
    ) -> None:
        connection = Connection(address, tls, token)
        channel = (
            grpc.aio.secure_channel(address, tls.credentials(), CHANNEL_OPTIONS)
            if tls
            else grpc.aio.insecure_channel(address, CHANNEL_OPTIONS)
        )
        super().__init__(connection, channel, timeout, patience)

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Ends what still runs."""
        await self._channel.close()

    def _stream(self, asked: pb.GenerateRequest, timeout: float | None) -> AsyncStream:
        return AsyncStream(self._sending(asked), self._patience(timeout), self._connection.address)

    async def _whole(self, asked: pb.GenerateRequest, timeout: float | None) -> Answer:
        async with self._stream(asked, timeout) as stream:
            async for _ in stream:
                pass
            return stream.answer

    async def _ask(self, method: Any, message: Any, read: Callable[[Any], Any], timeout: float | None) -> Any:
        try:
            return read(
                await method(message, timeout=self._deadline(timeout), metadata=self._connection.metadata)
            )
        except grpc.aio.AioRpcError as raised:
            raise errors.of(raised, self._connection.address) from None


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
