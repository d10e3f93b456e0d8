"""What holds for the doors' gRPC holds for every service and every kind of method: errors, farewell,
health."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, cast

import grpc
import pytest
from google.protobuf.descriptor import ServiceDescriptor
from grpc_health.v1 import health_pb2
from helios_server.errors import Draining, InvalidRequest
from helios_server.rpc.door import Door
from helios_server.rpc.errors import AnswerErrors
from helios_server.rpc.health import Health, Phase

KINDS = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")
FOREIGN = "inference.Other"
"""A service of another package than ours."""


class Service:
    """One method of each kind. It fails as its last message says: "refuse", "panic", anything else is
    echoed."""

    def __init__(self) -> None:
        self.draining = False
        self.asked: list[str] = []

    def behaviour(self, kind: str) -> Any:
        async def call(request: Any, context: Any) -> Any:
            self.asked.append(kind)
            if self.draining:
                raise Draining("server", "is draining", "Try again")
            messages = [request] if kind.startswith("unary") else [message async for message in request]
            match messages[-1]:
                case b"refuse":
                    raise InvalidRequest("word", "is refused", "Say another")
                case b"panic":
                    raise BaseException("of a library")
            if kind.endswith("unary"):
                return messages[-1]
            for message in messages:
                await context.write(message)
            return None

        return call

    def handlers(self) -> grpc.GenericRpcHandler:
        made = {kind: getattr(grpc, f"{kind}_rpc_method_handler")(self.behaviour(kind)) for kind in KINDS}
        return grpc.method_handlers_generic_handler(FOREIGN, made)

    @property
    def descriptor(self) -> ServiceDescriptor:
        methods = [SimpleNamespace(name=kind) for kind in KINDS]
        return cast(ServiceDescriptor, SimpleNamespace(full_name=FOREIGN, methods=methods))


@pytest.fixture
async def service() -> Service:
    return Service()


@pytest.fixture
async def door(service: Service) -> AsyncIterator[tuple[Door, grpc.aio.Channel]]:
    door = Door([AnswerErrors()])
    door.server.add_generic_rpc_handlers([service.handlers()])
    port = await door.open("127.0.0.1", 0)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield door, channel
    await door.close(0)


async def ask(channel: grpc.aio.Channel, kind: str, word: bytes) -> list[bytes]:
    call = getattr(channel, kind)(f"/{FOREIGN}/{kind}")(word if kind.startswith("unary") else iter([word]))
    if kind.endswith("unary"):
        return [await call]
    return [message async for message in call]


@pytest.mark.parametrize("kind", KINDS)
async def test_every_kind_of_method_answers_and_fails_in_our_words(
    door: tuple[Door, grpc.aio.Channel], kind: str
) -> None:
    _, channel = door
    assert await ask(channel, kind, b"echo") == [b"echo"]
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await ask(channel, kind, b"refuse")
    assert (refused.value.code(), refused.value.details()) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "word: is refused; Say another",
    )
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await ask(channel, kind, b"panic")
    assert failed.value.details() == "the server failed; its log has the trace"
    assert await ask(channel, kind, b"echo") == [b"echo"]


async def test_a_door_is_let_go_for_all_its_methods(
    door: tuple[Door, grpc.aio.Channel], service: Service
) -> None:
    opened, channel = door
    assert await ask(channel, "stream_stream", b"echo") == [b"echo"]
    service.asked.clear()
    service.draining = True
    async with asyncio.timeout(20):
        await opened.let_go(service.descriptor)
    assert sorted(service.asked) == sorted(KINDS)


async def test_health_is_told_of_every_service() -> None:
    services = ("", "helios.v1.Generation", FOREIGN)
    health = Health(services[1:])
    await health.start()

    async def told() -> list[int]:
        asked = [health_pb2.HealthCheckRequest(service=name) for name in services]
        return [(await health.servicer.Check(request, None)).status for request in asked]

    serving, not_serving = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
    assert await told() == [serving, not_serving, not_serving]
    await health.become(Phase.SERVING)
    assert await told() == [serving, serving, serving]
    await health.become(Phase.DRAINING)
    assert await told() == [serving, not_serving, not_serving]
