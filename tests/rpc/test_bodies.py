"""What clients send is bounded in bytes over all calls of a pod: what finds no place is refused unread, with
the time to come back."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import grpc
import psutil
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status
from helios_proto.inference import open_inference_pb2 as oip
from helios_proto.inference import open_inference_pb2_grpc
from helios_proto.v1 import generation_pb2 as pb
from helios_proto.v1 import generation_pb2_grpc as rpc
from helios_server.errors import QueueFull
from helios_server.rpc import bodies, receiving
from helios_server.rpc.bodies import MOST_BYTES, MOST_HELD_BYTES, Bodies
from helios_server.rpc.callers import CallerTokens
from helios_server.rpc.openai import body as http_body
from helios_server.rpc.server import Access

from tests.rpc.flood import Flood
from tests.rpc.openai_door.clients import TEXT, post
from tests.rpc.pods import Served, child, eventually, generate_request, serving
from tests.sizes import LONG

GENERATE = "/helios.v1.Generation/Generate"
MIB = 1 << 20


# -- the bound by itself -----------------------------------------------------------------------------------


async def test_a_place_is_as_large_as_its_body_once_that_is_read() -> None:
    held = Bodies(100)
    async with held.place(90) as place:
        assert held.held == 90
        place.is_read(10)
        async with held.place(90):
            assert held.held == 100
    assert held.held == 0


async def test_who_comes_first_is_read_first() -> None:
    """A small one does not pass by a large one, which might wait for ever."""
    held, order = Bodies(100), list[str]()

    async def one(name: str, size: int) -> None:
        async with held.place(size):
            order.append(name)
            await asyncio.sleep(0.01)

    async with held.place(90):
        tasks = [asyncio.create_task(one(name, size)) for name, size in (("large", 80), ("small", 10))]
        await asyncio.sleep(0.01)
        assert order == []
    await asyncio.gather(*tasks)
    assert order == ["large", "small"]
    assert held.held == 0


async def test_what_is_held_is_not_waited_for() -> None:
    held = Bodies(100)
    async with held.place(50) as place:
        place.is_read(50)
        with pytest.raises(QueueFull, match="50 bytes of requests are under way, of at most 100") as error:
            async with held.place(60):
                pass
        assert error.value.retry_seconds > 0
        with pytest.raises(QueueFull), held.whole(51):
            pass
        with held.whole(50):
            assert held.held == 100
    assert held.held == 0


@pytest.mark.parametrize("how", ["patience", "cancelled", "promised and cancelled"])
async def test_who_waits_no_longer_leaves_nothing(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "_PATIENCE_SECONDS", 0.02 if how == "patience" else 60)
    held = Bodies(100)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(held.place(90))
        waiting = asyncio.create_task(stack.enter_async_context(held.place(20)))
        await asyncio.sleep(0.01)
        if how == "promised and cancelled":
            await stack.aclose()
        if how != "patience":
            waiting.cancel()
        outcome = (await asyncio.gather(waiting, return_exceptions=True))[0]
        assert isinstance(outcome, QueueFull if how == "patience" else asyncio.CancelledError)
    assert held.held == 0


async def test_no_more_than_some_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "_MOST_WAITING", 1)
    held = Bodies(100)
    async with held.place(90), asyncio.TaskGroup() as group:
        waiting = group.create_task(held.place(20).__aenter__())
        await asyncio.sleep(0.01)
        with pytest.raises(QueueFull):
            async with held.place(20):
                pass
        waiting.cancel()


# -- by each door ------------------------------------------------------------------------------------------


async def failure(call: object) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call  # type: ignore[misc]
    return error.value


def channel(pod: Served) -> grpc.aio.Channel:
    return grpc.aio.insecure_channel(f"127.0.0.1:{pod.ports.port}", [("grpc.enable_retries", 0)])


async def test_each_door_refuses_what_finds_no_place_and_other_calls_go_on(tiny: Path) -> None:
    async with serving(tiny) as pod, channel(pod) as connection:
        assert pod.server is not None
        pod.server.pod.bodies = Bodies(MOST_BYTES + 1000)
        first = asyncio.create_task(pod.generate("x" * 2000, max_tokens=1500))

        async def held() -> bool:
            assert pod.server is not None
            return pod.server.pod.bodies.held > 2000 and (await pod.load()).running == 1

        await eventually(held)
        error = await failure(pod.generate())
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert str(error.details()).startswith("server: ")
        status, retry = rpc_status.from_call(error), error_details_pb2.RetryInfo()
        assert status
        assert status.details[0].Unpack(retry)
        assert retry.retry_delay.ToMilliseconds() > 0
        infer = open_inference_pb2_grpc.GRPCInferenceServiceStub(connection)
        assert (await failure(infer.ModelInfer(text()))).code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        async for message in infer.ModelStreamInfer(iter([text("y" * (MOST_BYTES - 1000))])):
            assert message.error_message.startswith("RESOURCE_EXHAUSTED: server: ")
            assert message.infer_response.parameters["retry_after_ms"].int64_param > 0
        answer = await post(pod, TEXT, prompt="y" * (MOST_BYTES - 1000))
        assert (answer.status, answer.error["code"]) == (429, "queue_full")
        assert int(answer.headers["Retry-After"]) >= 1
        assert (await post(pod, TEXT)).status == 200  # its length is known, and there is so much room
        asked = health_pb2.HealthCheckRequest(service="helios.v1.Generation")
        assert (await health_pb2_grpc.HealthStub(connection).Check(asked)).status == 1
        assert (await infer.ServerReady(oip.ServerReadyRequest())).ready
        _, page = await pod.page("/metrics")
        assert 'helios_request_failure_total{code="RESOURCE_EXHAUSTED",model_name="chat"} 4.0' in page
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)

        async def free() -> bool:
            assert pod.server is not None
            return (pod.server.pod.bodies.held, pod.server.pod.calls) == (0, 0)

        await eventually(free)
        assert len((await pod.generate()).output_ids) == 8


def text(words: str = "A prompt") -> oip.ModelInferRequest:
    request = oip.ModelInferRequest(model_name="chat")
    given = request.inputs.add(name="text_input", datatype="BYTES", shape=[1])
    given.contents.bytes_contents.append(words.encode())
    return request


async def test_of_messages_that_do_not_end_few_come_in(tiny: Path) -> None:
    """The others keep what they send unasked."""
    async with serving(tiny) as pod:
        assert pod.server is not None
        pod.server.pod.bodies = Bodies(3 * MOST_BYTES)
        flood, end = Flood(pod.ports.port, GENERATE, MOST_BYTES), asyncio.Event()
        running = asyncio.create_task(flood.run(40, end))

        async def three_are_there() -> bool:
            return sum(sent > MOST_BYTES - 1 for sent in flood.sent.values()) >= 3

        await eventually(three_are_there)
        assert not (await pod.load()).draining  # other calls are read beside them
        assert sum(flood.sent.values()) < 3 * MOST_BYTES + 40 * (17 << 10)
        end.set()
        await running

        async def free() -> bool:
            assert pod.server is not None
            return (pod.server.pod.bodies.held, pod.server.pod.calls) == (0, 0)

        await eventually(free)


async def test_streams_of_requests_are_bounded_by_number(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receiving, "MOST_STREAMS", 1)
    async with serving(tiny) as pod, channel(pod) as connection:
        infer = open_inference_pb2_grpc.GRPCInferenceServiceStub(connection)
        first = infer.ModelStreamInfer()
        await first.write(text())
        assert not (await first.read()).error_message
        error = await failure(infer.ModelStreamInfer(iter([text()])).read())
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert error.details() == "server: 1 streams are open; Try again later"
        await first.done_writing()
        while await first.read() is not grpc.aio.EOF:
            pass
        assert not (await infer.ModelStreamInfer(iter([text()])).read()).error_message


async def test_bodies_that_do_not_come_are_told_to_come_back(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many as there are places for are waited for."""
    monkeypatch.setattr(bodies, "_PATIENCE_SECONDS", 0.05)
    monkeypatch.setattr(http_body, "BODY_SECONDS", 0.5)
    head = (
        f"POST {TEXT} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        f"Content-Length: {MOST_BYTES}\r\nConnection: close\r\n\r\n{{"
    )
    async with serving(tiny) as pod:
        assert pod.server is not None
        pod.server.pod.bodies = Bodies(2 * MOST_BYTES)

        async def status() -> int:
            reader, writer = await asyncio.open_connection("127.0.0.1", pod.ports.http_port)
            writer.write(head.encode())
            line = await reader.readline()
            writer.close()
            return int(line.split()[1])

        assert sorted(await asyncio.gather(*(status() for _ in range(6)))) == [408] * 2 + [429] * 4
        assert (await post(pod, TEXT)).status == 200


async def test_a_message_that_does_not_come_and_one_that_is_not_there(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receiving, "BODY_SECONDS", 0.1)
    async with serving(tiny) as pod, channel(pod) as connection:
        call = connection.stream_stream(GENERATE)()
        error = await failure(call.read())
        assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert "message: did not arrive within" in str(error.details())
        call = connection.stream_stream(GENERATE)()
        await call.done_writing()
        error = await failure(call.read())
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert error.details() == "message: is missing; Send one"
        assert len((await pod.generate()).output_ids) == 8


async def test_a_drain_waits_for_a_message_that_has_begun_to_come(tiny: Path) -> None:
    """Its client is told to ask another pod, and not cut off."""
    async with serving(tiny) as pod, channel(pod) as connection:
        assert pod.server is not None
        call = connection.stream_stream(GENERATE)()
        await call.wait_for_connection()

        async def comes() -> bool:
            assert pod.server is not None
            return pod.server.pod.calls == 1

        await eventually(comes)
        draining = asyncio.create_task(pod.server.drain())
        await eventually(lambda: _is(pod, draining=True))
        await asyncio.sleep(0.1)
        assert not draining.done()
        await call.write(generate_request().SerializeToString())
        await call.done_writing()
        error = await failure(call.read())
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        await draining


async def _is(pod: Served, draining: bool) -> bool:
    assert pod.server is not None
    return pod.server.pod.health.draining is draining


async def test_nothing_is_read_of_whom_nobody_knows(tiny: Path, tmp_path: Path) -> None:
    """He is refused though his message never comes."""
    (tmp_path / "tokens").mkdir()
    (tmp_path / "tokens" / "team-a").write_text("a-token-of-the-tests")
    access = Access(callers=CallerTokens(tmp_path / "tokens"))
    async with serving(tiny, access=access) as pod, channel(pod) as connection:
        for method in (GENERATE, "/inference.GRPCInferenceService/ModelInfer"):
            error = await failure(connection.stream_stream(method)().read())
            assert error.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_a_prompt_that_fits_nowhere_does_not_wait_for_the_engine(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would hold its tokens while limits are changed, which may take minutes."""
    async with serving(tiny) as pod:
        assert pod.server is not None
        monkeypatch.setattr(pod.server.pod, "hand_over", None)
        error = await failure(pod.generate(tokenized=pb.TokenizedInput(input_ids=[7] * 5000)))
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "the prompt of 5000 tokens leaves no room" in str(error.details())


# -- memory ------------------------------------------------------------------------------------------------

CALLS, PLACES = 2000, MOST_HELD_BYTES // MOST_BYTES


@pytest.mark.long
@pytest.mark.skipif(
    not LONG, reason="`make test-long` runs it: 2,000 calls of a process; few are counted above"
)
async def test_memory_is_bounded_whatever_comes_at_once(tiny: Path, tmp_path: Path) -> None:
    """Large messages, which together have many times the bound: those that find no place are refused."""
    async with child(tmp_path, "--model", f"file://{tiny}", "--max-queue-size", "8") as process:
        bound = (await process.ports()).port
        await eventually(lambda: _serves(bound), 180)
        there = psutil.Process(process.process.pid)
        before, most, end = there.memory_info().rss, 0, asyncio.Event()
        flood = Flood(bound, GENERATE, MOST_BYTES)
        running = asyncio.create_task(flood.run(CALLS, end))
        while len(flood.ended) < CALLS - PLACES:
            most = max(most, there.memory_info().rss - before)
            await asyncio.sleep(0.05)
        assert sum(sent > MOST_BYTES / 2 for sent in flood.sent.values()) <= PLACES
        end.set()
        await running
        assert most < 1.5 * MOST_HELD_BYTES + CALLS * (64 << 10), most // MIB
        await eventually(lambda: _serves(bound), 60)


async def _serves(port: int) -> bool:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as connection:
        try:
            async for _ in rpc.GenerationStub(connection).Generate(generate_request(max_tokens=1)):
                pass
        except grpc.aio.AioRpcError:
            return False
        return True
