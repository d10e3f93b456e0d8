"""More than a pod can take: prompts that wait are bounded, clients that do not read lose their rows, and what
is too large or comes too often is refused by name."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from helios_proto.v1 import generation_pb2 as pb
from helios_proto.v1 import generation_pb2_grpc as rpc
from helios_server.engine.request import GenerationRequest, TokensEvent
from helios_server.engine.sampling import SamplingParams
from helios_server.rpc import stream
from helios_server.rpc.conversation import Prompt, answered
from helios_server.rpc.server import Access
from helios_server.rpc.tls import Certificates, TlsFiles

from tests.certificates import Authority
from tests.rpc.openai_door.clients import TEXT, post
from tests.rpc.pods import OPEN, Served, eventually, generate_request, serving

LONG = 3500


async def loaded(pod: Served, running: int, waiting: int) -> bool:
    load = await pod.load()
    return (load.running, load.waiting) == (running, waiting)


async def idle(pod: Served) -> bool:
    """Asked of the engine itself: the doors may be encrypted, or busy."""
    assert pod.server is not None
    load = pod.server.pod.loaded_engine().load()
    return (load.running, load.waiting, load.kv_used_tokens, pod.server.pod.calls) == (0, 0, 0, 0)


async def failure(call: object) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call  # type: ignore[misc]
    return error.value


async def complete(channel: grpc.aio.Channel) -> pb.Complete:
    *_, last = [message async for message in rpc.GenerationStub(channel).Generate(generate_request())]
    return last.complete


async def to_the_end(call: Any) -> Any:
    """Reads all that is left; returns the last message."""
    message = None
    while (following := await call.read()) is not grpc.aio.EOF:
        message = following
    return message


async def test_the_prompts_that_wait_are_bounded_by_their_tokens(tiny: Path) -> None:
    """One that finds nobody waiting may be longer than all that may wait."""
    hundred = pb.TokenizedInput(input_ids=[7] * 100)
    async with serving(tiny, engine={"max_queue_tokens": 150}, max_batch_size=1) as pod:
        first = asyncio.create_task(pod.generate(max_tokens=LONG))
        await eventually(lambda: loaded(pod, 1, 0))
        waiting = asyncio.create_task(pod.generate(tokenized=pb.TokenizedInput(input_ids=[7] * 160)))
        await eventually(lambda: loaded(pod, 1, 1))
        error = await failure(pod.generate(tokenized=pb.TokenizedInput(input_ids=[7])))
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "max_queue_tokens: prompts of 160 tokens are waiting, of at most 150" in str(error.details())
        status, retry = rpc_status.from_call(error), error_details_pb2.RetryInfo()
        assert status
        assert status.details[0].Unpack(retry)
        assert retry.retry_delay.ToMilliseconds() > 0
        answer = await post(pod, TEXT, prompt=[7])
        assert (answer.status, answer.error["code"]) == (429, "queue_full")
        assert int(answer.headers["Retry-After"]) >= 1
        waiting.cancel()
        await eventually(lambda: loaded(pod, 1, 0))
        both = [asyncio.create_task(pod.generate(tokenized=hundred, max_tokens=1)) for _ in range(1)]
        await eventually(lambda: loaded(pod, 1, 1))
        both.append(asyncio.create_task(pod.generate(tokenized=pb.TokenizedInput(input_ids=[7] * 50))))
        await eventually(lambda: loaded(pod, 1, 2))
        first.cancel()
        await asyncio.gather(*both)


async def test_as_a_rule_eight_pools_of_prompts_may_wait(tiny: Path) -> None:
    """One row's pool is its context, of 4096 tokens."""
    long = pb.TokenizedInput(input_ids=[7] * 4000)
    async with serving(tiny, max_batch_size=1, max_queue_size=100) as pod:
        first = asyncio.create_task(pod.generate(max_tokens=LONG))
        await eventually(lambda: loaded(pod, 1, 0))
        crowd = [asyncio.create_task(pod.generate(tokenized=long, max_tokens=1)) for _ in range(8)]
        await eventually(lambda: loaded(pod, 1, len(crowd)))
        error = await failure(pod.generate(tokenized=long, max_tokens=1))
        assert f"prompts of 32000 tokens are waiting, of at most {8 * 4096}" in str(error.details())
        for task in (first, *crowd):
            task.cancel()
        await asyncio.gather(first, *crowd, return_exceptions=True)
        await eventually(lambda: idle(pod))


@pytest.mark.parametrize("encrypted", [False, True])
async def test_a_grpc_client_that_does_not_read_loses_its_row(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encrypted: bool
) -> None:
    monkeypatch.setattr(stream, "MOST_UNREAD", 32)
    options = [("grpc.http2.lookahead_bytes", 1024), ("grpc.http2.bdp_probe", 0)]
    authority, access = Authority(), OPEN
    if encrypted:
        folder = authority.issue(tmp_path)
        access = Access(Certificates(TlsFiles(folder / "tls.crt", folder / "tls.key")))
    async with serving(tiny, access=access) as pod:
        at, tls = f"127.0.0.1:{pod.ports.port}", grpc.ssl_channel_credentials(authority.pem)
        async with (
            grpc.aio.secure_channel(at, tls, options) if encrypted else grpc.aio.insecure_channel(at, options)
        ) as channel:
            asked = generate_request(max_tokens=LONG, logprobs=True)
            call = rpc.GenerationStub(channel).Generate(asked)
            await call.read()
            await eventually(lambda: idle(pod))  # while the call still stands
            assert not call.done()
            error = await failure(to_the_end(call))  # what had gone out, and then the status
            assert (await complete(channel)).usage.completion_tokens == 8
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "client: 32 tokens have come that the client did not read" in str(error.details())


async def test_who_goes_without_reading_is_no_error_of_ours(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(stream, "MOST_UNREAD", 8)
    options = [("grpc.http2.lookahead_bytes", 1024), ("grpc.http2.bdp_probe", 0)]
    async with serving(tiny) as pod:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{pod.ports.port}", options) as channel:
            call = rpc.GenerationStub(channel).Generate(generate_request(max_tokens=LONG, logprobs=True))
            await call.read()
            await eventually(lambda: idle(pod))
            call.cancel()
        assert len((await pod.generate()).output_ids) == 8
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []


async def test_an_http_client_that_does_not_read_loses_its_row(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "MOST_UNREAD", 32)
    body = (
        b'{"model": "chat", "prompt": [7, 8], "max_tokens": %d, "stream": true, "logprobs": 0, '
        b'"ignore_eos": true}' % LONG
    )
    head = (
        b"POST /v1/completions HTTP/1.1\r\nHost: pod\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n" % len(body)
    )
    async with serving(tiny) as pod:
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
            client.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(client, ("127.0.0.1", pod.ports.http_port))
            await loop.sock_sendall(client, head + body)
            await loop.sock_recv(client, 100)
            assert pod.server is not None
            await eventually(lambda: idle(pod))
            heard = b""
            async with asyncio.timeout(60):
                while b"client: 32 tokens have come" not in heard:
                    piece = await loop.sock_recv(client, 65536)
                    assert piece, heard[-400:]
                    heard += piece
        _, metrics = await pod.page("/metrics")
        assert 'request_failure_total{code="RESOURCE_EXHAUSTED",model_name="chat"} 1.0' in metrics
        assert (await post(pod, TEXT)).status == 200


async def test_a_client_that_pauses_and_reads_on_gets_all(tiny: Path) -> None:
    async with serving(tiny) as pod:
        call = pod.client.stub.Generate(generate_request(max_tokens=300))
        await call.read()
        await eventually(lambda: loaded(pod, 0, 0))
        assert len((await to_the_end(call)).complete.output_ids) == 300


async def test_a_message_beyond_the_bound_is_refused(pod: Served) -> None:
    error = await failure(pod.generate("x" * (5 << 20)))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "4194304" in str(error.details())
    assert len((await pod.generate()).output_ids) == 8


async def test_pings_beyond_what_is_allowed_end_the_connection(pod: Served) -> None:
    """As a client that floods with them finds."""
    reader, writer = await asyncio.open_connection("127.0.0.1", pod.ports.port)
    writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\x04\0\0\0\0\0")
    ping = b"\0\0\x08\x06\0\0\0\0\0" + b"12345678"
    async with asyncio.timeout(60):
        writer.write(ping * 50)
        heard = await reader.read(1 << 20)
        while piece := await reader.read(1 << 20):
            heard += piece
    assert b"too_many_pings" in heard
    writer.close()
    assert len((await pod.generate()).output_ids) == 8


@pytest.mark.parametrize("door", ["grpc", "http"])
async def test_a_connection_that_is_half_closed_leaves_nothing(pod: Served, door: str) -> None:
    """Its client has ended what it sends; nobody's rows or descriptors stay."""
    if door == "grpc":
        reader, writer = await asyncio.open_connection("127.0.0.1", pod.ports.port)
        writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\x04\0\0\0\0\0")
        await reader.read(9)
    else:
        reader, writer = await asyncio.open_connection("127.0.0.1", pod.ports.http_port)
        writer.write(b"POST /v1/completions HTTP/1.1\r\nHost: pod\r\nContent-Length: 100\r\n")
    writer.write_eof()
    async with asyncio.timeout(60):
        await reader.read()
    writer.close()
    assert pod.server is not None
    server = pod.server

    async def gone() -> bool:
        kept = len(server._generation._relay.clients) - 1  # the client of these tests
        return kept <= 0 and not server._openai._http.connections

    await eventually(gone)
    await eventually(lambda: idle(pod))


async def test_what_comes_when_a_client_has_left_is_no_fault(tiny: Path) -> None:
    """As many tokens as may wait do, it goes, and one more comes before its request is taken back."""
    async with serving(tiny) as pod:
        assert pod.server is not None
        served, faults = pod.server.pod, list[dict[str, Any]]()
        asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context))
        asked = GenerationRequest("left", (5, 6, 7), SamplingParams(max_tokens=8))
        prompt = Prompt(asked.prompt_ids, str)
        async with answered(served, served.loaded_engine(), asked, prompt) as events:
            events.most_unread = 0
        events.on_event(TokensEvent("left", 0, (5,), "", (), (0.5,), (False,), 2))
        await eventually(lambda: idle(pod))
        assert not faults
