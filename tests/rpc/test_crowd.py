"""Thousands of calls at one moment: each is served, or refused with the time to come back."""

from __future__ import annotations

import asyncio
import resource
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import grpc
import pytest
import pytest_asyncio
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from helios_operator.local.front import Front
from helios_proto.client import CHANNEL_OPTIONS
from helios_proto.v1 import generation_pb2 as pb
from helios_proto.v1 import generation_pb2_grpc as rpc
from helios_server.rpc.door import Door

from tests.rpc.pods import child, eventually, generate_request
from tests.sizes import examples

CALLS = 3000
"""More than gRPC would let wait by itself."""
SERVED, TOLD_WHEN = "served", "told when to come back"


def channel(port: int) -> grpc.aio.Channel:
    own = ("grpc.use_local_subchannel_pool", 1)  # one connection a channel
    return grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=[*CHANNEL_OPTIONS, own])


async def outcome(connection: grpc.aio.Channel, request: pb.GenerateRequest) -> str:
    try:
        async for _ in rpc.GenerationStub(connection).Generate(request):
            pass
    except grpc.aio.AioRpcError as error:
        status = rpc_status.from_call(error)
        retry = error_details_pb2.RetryInfo()
        told = status is not None and any(detail.Unpack(retry) for detail in status.details)
        if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED and told and retry.retry_delay.ToMilliseconds():
            return TOLD_WHEN
        return f"{error.code().name}: {error.details()}"
    return SERVED


async def crowd(port: int, channels: int, count: int = CALLS) -> Counter[str]:
    request = generate_request(max_tokens=4)
    async with AsyncExitStack() as stack:
        connections = [await stack.enter_async_context(channel(port)) for _ in range(channels)]
        calls = (outcome(connections[index % channels], request) for index in range(count))
        return Counter(await asyncio.gather(*calls))


def assert_all_answered(outcomes: Counter[str], count: int = CALLS) -> None:
    assert set(outcomes) <= {SERVED, TOLD_WHEN}
    assert outcomes[SERVED]
    assert outcomes.total() == count


async def ready(port: int) -> bool:
    async with channel(port) as connection:
        return await outcome(connection, generate_request(max_tokens=1)) == SERVED


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def port(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[int]:
    """A pod that is a process of its own: none of the crowds may leave anything in it."""
    arguments = ("--model", f"file://{tiny}", "--max-queue-size", "64", "--max-batch-size", "8")
    async with child(tmp_path_factory.mktemp("pod"), *arguments) as process:
        bound = (await process.ports()).port
        await eventually(lambda: ready(bound), 180)
        yield bound


@pytest.mark.parametrize("channels", [1, 6])
async def test_a_crowd_is_served_or_told_when_to_come_back(port: int, channels: int) -> None:
    outcomes = await crowd(port, channels)
    assert_all_answered(outcomes)
    assert await ready(port)


@pytest.mark.long
async def test_the_front_address_takes_a_crowd_of_connections(port: int) -> None:
    """More of them than may wait for a pod to come up: with one there, none waits."""
    count = examples(CALLS // 3, long=CALLS)
    front = Front(lambda: [("127.0.0.1", port)], most_waiting=4)
    await front.open("127.0.0.1", 0)
    outcomes = await crowd(int(front.address.rpartition(":")[2]), 200, count)
    await front.close()
    assert_all_answered(outcomes, count)


async def test_calls_wait_for_a_loop_that_is_busy() -> None:
    """None of them has been taken up yet, and all of them are."""

    class Service(rpc.GenerationServicer):
        async def GetLoad(
            self, request: pb.GetLoadRequest, context: grpc.aio.ServicerContext
        ) -> pb.GetLoadResponse:
            time.sleep(0.0005)
            return pb.GetLoadResponse(running=1)

    door = Door([])
    rpc.add_GenerationServicer_to_server(Service(), door.server)
    bound = await door.open("127.0.0.1", 0)
    async with channel(bound) as connection:
        stub = rpc.GenerationStub(connection)
        answers = await asyncio.gather(*(stub.GetLoad(pb.GetLoadRequest()) for _ in range(5 * CALLS // 3)))
    await door.close(0)
    assert all(answer.running == 1 for answer in answers)


async def test_a_shells_limit_on_open_files_is_not_the_pods(tiny: Path, tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft // 2, hard))
    try:
        async with child(tmp_path, "--model", f"file://{tiny}") as process:
            await process.ports()
            assert resource.prlimit(process.process.pid, resource.RLIMIT_NOFILE) == (hard, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
