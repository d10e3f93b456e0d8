"""One call of ModelStreamInfer: many requests side by side, each with answers of its own.

Run by `service`. A request that fails is told so and its stream goes on; the stream ends when its client has
no more requests, or, with the word to come back, when the pod drains and nothing is open on it. It must not
know what a request asks.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial

import grpc
from helios_proto.inference import open_inference_pb2 as pb

from helios_server.errors import Draining, HeliosError, InvalidRequest, RequestFailed
from helios_server.rpc.conversation import MAX_ID
from helios_server.rpc.health import Health
from helios_server.rpc.oip.answers import failure, refusal

logger = logging.getLogger(__name__)

Write = Callable[[pb.ModelStreamInferResponse], Awaitable[None]]
Answer = Callable[[pb.ModelInferRequest, Write], Awaitable[None]]

_MOST_OPEN = 1024
_MOST_OPEN_BYTES = 32 << 20
"""Requests of one call, and the bytes of them; who sends more is not read until some have ended."""
_NOT_OURS = (grpc.aio.AbortError, asyncio.CancelledError, KeyboardInterrupt, SystemExit, GeneratorExit)


class Many:
    """model: as clients know it; write: of the call, which takes one at a time; answer: one request, in as
    many writes as it has answers; it raises HeliosError."""

    def __init__(self, model: str, health: Health, write: Write, answer: Answer) -> None:
        self._model = model
        self._health = health
        self._write = write
        self._answer = answer
        self._outbox: asyncio.Queue[pb.ModelStreamInferResponse | None] = asyncio.Queue(1)
        self._places = asyncio.Semaphore(_MOST_OPEN)
        self._open: set[asyncio.Task[None]] = set()
        self._bytes = 0

    async def run(self, requests: AsyncIterator[pb.ModelInferRequest]) -> None:
        """Returns when the last request has its last answer. Raises Draining when no more are taken."""
        serving, writing = asyncio.create_task(self._serve(requests)), asyncio.create_task(self._hand_out())
        try:
            await asyncio.wait({serving, writing}, return_when=asyncio.FIRST_EXCEPTION)
            if writing.done():
                writing.result()
            if not serving.result():
                raise Draining("server", "is draining", "Open another stream: another pod will answer")
        finally:
            left = {serving, writing, *self._open}
            for task in left:
                task.cancel()
            await asyncio.wait(left)

    async def _serve(self, requests: AsyncIterator[pb.ModelInferRequest]) -> bool:
        """Returns whether the client has ended the stream, and not the pod."""
        reading = asyncio.create_task(self._read(requests))
        leaving = asyncio.create_task(self._health.drain_begun.wait())
        try:
            await asyncio.wait({reading, leaving}, return_when=asyncio.FIRST_COMPLETED)
            while self._open:  # what comes meanwhile is refused by name
                await asyncio.wait(self._open)
            ended = reading.done()
            if ended:
                reading.result()
        finally:
            reading.cancel()
            leaving.cancel()
        await self._outbox.put(None)
        return ended

    async def _read(self, requests: AsyncIterator[pb.ModelInferRequest]) -> None:
        async for request in requests:
            await self._places.acquire()
            size = 0 if isinstance(request, InvalidRequest) else request.ByteSize()
            task = asyncio.create_task(self._one(request))
            self._open.add(task)
            self._bytes += size
            task.add_done_callback(partial(self._ended, size))
            while self._bytes > _MOST_OPEN_BYTES and self._open:
                await asyncio.wait(self._open, return_when=asyncio.FIRST_COMPLETED)

    def _ended(self, size: int, task: asyncio.Task[None]) -> None:
        self._open.discard(task)
        self._bytes -= size
        self._places.release()

    async def _hand_out(self) -> None:
        """The one that writes: a request that is taken back while it waits for its turn leaves no answer to
        the others half-written."""
        while (answer := await self._outbox.get()) is not None:
            await self._write(answer)

    async def _one(self, request: pb.ModelInferRequest | InvalidRequest) -> None:
        """Whatever happens, its client hears the end of it."""
        if isinstance(request, InvalidRequest):  # what was sent is no message
            await self._outbox.put(refusal("", self._model, request))
            return
        try:
            await self._answer(request, self._outbox.put)
        except HeliosError as error:
            await self._outbox.put(refusal(request.id[:MAX_ID], self._model, error))
        except _NOT_OURS:
            raise
        except BaseException:  # a panic of the tokenizers library is no Exception
            logger.exception("a request of a stream failed")
            words = "the server failed; its log has the trace"
            await self._outbox.put(failure(request.id[:MAX_ID], self._model, RequestFailed.code, words))
