"""A gRPC message is read when there is a place for it: an interceptor.

Installed by `rpc.server` outside all others. gRPC by itself reads the message of a call as soon as Python
takes the call up, so that thousands of large ones are in memory before anything can refuse one. Here a method
of one message is one that streams to gRPC, which then takes in no more of it than a window until it is asked
to. Streams of messages are read ahead, and are bounded by their number. It must not know what a message says.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, cast

import grpc
from helios_proto.inference import open_inference_pb2
from helios_proto.v1 import generation_pb2

from helios_server.errors import HeliosError, InvalidRequest, QueueFull
from helios_server.rpc.bodies import BODY_SECONDS, MOST_ASIDE_BYTES, Bodies
from helios_server.rpc.calls import Behaviour, Context, Continuation, Handler, kind
from helios_server.rpc.errors import Late, refuse
from helios_server.rpc.pod import Pod

MOST_STREAMS = 1024
"""Of messages, open at once on a port: gRPC holds what has come of one message for each."""
_RETRY_SECONDS = 1.0
_GENERATION = generation_pb2.DESCRIPTOR.services_by_name["Generation"].full_name
_INFERENCE = open_inference_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name
_REQUESTS = frozenset({f"/{_GENERATION}/Generate", f"/{_INFERENCE}/ModelInfer"})
"""Methods that bring a prompt; all others of a port have places of their own, whatever these hold."""


class Receive(grpc.aio.ServerInterceptor):
    """RESOURCE_EXHAUSTED, with the time to come back, for a message that finds no place."""

    def __init__(self, pod: Pod) -> None:
        self._pod = pod
        self._asides = Bodies(MOST_ASIDE_BYTES)
        self._streams = 0

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Handler | None:
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        which = kind(handler)
        behaviour = cast(Behaviour, getattr(handler, which))  # grpc types them as those of threads
        read = handler.request_deserializer
        if handler.request_streaming:
            bounded = self._streaming(behaviour)
        else:
            bodies = self._pod.bodies if handler_call_details.method in _REQUESTS else self._asides
            bounded, read = self._received(behaviour, bodies), _sized(read)
        streams = which.replace("unary_", "stream_", 1) if which.startswith("unary_") else which
        make: Callable[..., Handler] = getattr(grpc, f"{streams}_rpc_method_handler")
        return make(bounded, read, handler.response_serializer)

    # -- one message

    def _received(self, behaviour: Behaviour, bodies: Bodies) -> Behaviour:
        async def call(_: object, context: Context) -> Any:
            async with AsyncExitStack() as stack:
                self._pod.calls += 1  # a drain waits for what has begun to come
                try:
                    place = await stack.enter_async_context(bodies.place())
                    size, message = await _read(context)
                except HeliosError as error:
                    await self._refuse(context, error)
                finally:
                    self._pod.calls -= 1
                place.is_read(size)
                return await behaviour(message, context)

        return call

    # -- many

    def _streaming(self, behaviour: Behaviour) -> Behaviour:
        async def call(messages: Any, context: Context) -> Any:
            async with self._among_streams(context):
                return await behaviour(messages, context)

        async def generate(messages: Any, context: Context) -> AsyncIterator[Any]:
            async with self._among_streams(context):
                async for answer in cast(Callable[..., AsyncIterator[Any]], behaviour)(messages, context):
                    yield answer

        return cast(Behaviour, generate) if inspect.isasyncgenfunction(behaviour) else call

    @asynccontextmanager
    async def _among_streams(self, context: Context) -> AsyncIterator[None]:
        if self._streams >= MOST_STREAMS:
            problem = f"{self._streams} streams are open"
            await self._refuse(context, QueueFull("server", problem, "Try again later", _RETRY_SECONDS))
        self._streams += 1
        try:
            yield
        finally:
            self._streams -= 1

    async def _refuse(self, context: Context, error: HeliosError) -> None:
        self._pod.metrics.rejected(error.code)
        await refuse(context, error)


def _sized(read: Callable[[bytes], Any] | None) -> Callable[[bytes], tuple[int, Any]]:
    """A message with its bytes on the wire."""
    return lambda content: (len(content), read(content) if read else content)


async def _read(context: Context) -> tuple[int, Any]:
    try:
        async with asyncio.timeout(BODY_SECONDS):
            read = await context.read()
    except TimeoutError:
        problem = f"did not arrive within {BODY_SECONDS:.0f} seconds"
        raise Late("message", problem, "Send it whole") from None
    if read is grpc.aio.EOF:
        raise InvalidRequest("message", "is missing", "Send one")
    return cast(tuple[int, Any], read)
