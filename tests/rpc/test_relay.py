"""The relay on a real gRPC server: bytes pass unchanged, and no call is lost when a connection is let go."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from helios_operator.local.front import Front
from helios_proto.client import CHANNEL_OPTIONS
from helios_proto.v1 import generation_pb2 as pb
from helios_proto.v1 import generation_pb2_grpc as rpc
from helios_server.rpc import relay
from helios_server.rpc.door import CONNECTION_AGE_SECONDS, Door
from helios_server.rpc.relay import FrameCursor, Mark, Relay
from helios_server.rpc.tls import GRPC, Certificates, TlsFiles
from hypothesis import given
from hypothesis import strategies as st

from tests.certificates import Authority
from tests.sizes import LONG

CHUNKS = 8
AGE_SECONDS = 0.1
"""Less than a stream takes."""
AGED_SECONDS = 60.0 if LONG else 1.0
SERVICE = pb.DESCRIPTOR.services_by_name["Generation"]


class Slow(rpc.GenerationServicer):
    """Answers in a few chunks with time between them; refuses once it drains."""

    def __init__(self) -> None:
        self.draining = False

    async def Generate(self, request: pb.GenerateRequest, context: grpc.aio.ServicerContext) -> None:
        await self._admit(context)
        for index in range(CHUNKS):
            await asyncio.sleep(0.03)
            await context.write(pb.GenerateResponse(chunk=pb.Chunk(text=request.text, index=index)))

    async def GetLoad(
        self, request: pb.GetLoadRequest, context: grpc.aio.ServicerContext
    ) -> pb.GetLoadResponse:
        await self._admit(context)
        return pb.GetLoadResponse(running=1)

    async def _admit(self, context: grpc.aio.ServicerContext) -> None:
        if self.draining:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "draining")


class Pod:
    def __init__(
        self, tls: ssl.SSLContext | None = None, age_seconds: float = CONNECTION_AGE_SECONDS
    ) -> None:
        self.service = Slow()
        self.door = Door([], tls, age_seconds)
        rpc.add_GenerationServicer_to_server(self.service, self.door.server)


@pytest.fixture
async def pod() -> AsyncIterator[Pod]:
    pod = Pod()
    yield pod
    await pod.door.close(0)


def channel(port: int, *options: tuple[str, object], roots: bytes = b"") -> grpc.aio.Channel:
    own = ("grpc.use_local_subchannel_pool", 1)  # one connection a channel
    if roots:
        credentials = grpc.ssl_channel_credentials(roots)
        return grpc.aio.secure_channel(f"127.0.0.1:{port}", credentials, options=[*options, own])
    return grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=[*options, own])


def encryption(folder: Path) -> tuple[ssl.SSLContext, bytes]:
    """Of a server, and the CA that its clients trust."""
    authority = Authority()
    authority.issue(folder)
    certificates = Certificates(TlsFiles(folder / "tls.crt", folder / "tls.key"))
    return certificates.context(GRPC), authority.pem


@pytest.mark.parametrize("size", [0, 1, 200_000])
@pytest.mark.parametrize("encrypted", [False, True])
async def test_messages_pass_unchanged(size: int, encrypted: bool, tmp_path: Path) -> None:
    tls, roots = encryption(tmp_path) if encrypted else (None, b"")
    pod = Pod(tls)
    port = await pod.door.open("127.0.0.1", 0)
    async with channel(port, roots=roots) as connection:
        call = rpc.GenerationStub(connection).Generate(pb.GenerateRequest(text="x" * size))
        answers = [message.chunk async for message in call]
    assert [answer.index for answer in answers] == list(range(CHUNKS))
    assert all(answer.text == "x" * size for answer in answers)
    await pod.door.close(0)


@pytest.mark.parametrize("encrypted", [False, True])
async def test_nothing_is_lost_when_connections_are_let_go(
    encrypted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clients that never pause, with the service config: each call ends with OK, before and after the
    move."""
    monkeypatch.setattr(relay, "SHUTDOWN_SECONDS", 0.1)
    tls, roots = encryption(tmp_path) if encrypted else (None, b"")
    first = Pod(tls)
    port = await first.door.open("127.0.0.1", 0)
    outcomes: Counter[str] = Counter()
    done = asyncio.Event()

    async def stream(connection: grpc.aio.Channel) -> None:
        call = rpc.GenerationStub(connection).Generate(pb.GenerateRequest(text="a"))
        outcomes[f"streams of {len([message async for message in call])}"] += 1

    async def hammer(connection: grpc.aio.Channel) -> None:
        stub = rpc.GenerationStub(connection)
        while not done.is_set():
            try:
                await stub.GetLoad(pb.GetLoadRequest())
                outcomes["OK"] += 1
            except grpc.aio.AioRpcError as error:
                outcomes[f"{error.code().name} {error.details()}"] += 1

    connections = [channel(port, *CHANNEL_OPTIONS, roots=roots) for _ in range(3)]
    streams = [asyncio.create_task(stream(c)) for c in connections for _ in range(4)]
    hammers = [asyncio.create_task(hammer(c)) for c in connections for _ in range(6)]
    await asyncio.sleep(0.1)

    first.service.draining = True
    await first.door.let_go(SERVICE)
    second = Pod(tls)
    assert await second.door.open("127.0.0.1", port) == port
    await first.door.close(10)
    await asyncio.gather(*streams)
    before = outcomes["OK"]
    while outcomes["OK"] < before + 50:
        await asyncio.sleep(0.01)
    done.set()
    await asyncio.gather(*hammers)
    for connection in connections:
        await connection.close()
    await second.door.close(0)
    assert set(outcomes) == {"OK", f"streams of {CHUNKS}"}
    assert outcomes[f"streams of {CHUNKS}"] == len(streams)


async def test_without_the_service_config_refused_calls_are_unavailable_and_nothing_else(pod: Pod) -> None:
    port = await pod.door.open("127.0.0.1", 0)
    codes: Counter[grpc.StatusCode] = Counter()
    done = asyncio.Event()

    async def hammer(connection: grpc.aio.Channel) -> None:
        while not done.is_set():
            try:
                await rpc.GenerationStub(connection).GetLoad(pb.GetLoadRequest())
            except grpc.aio.AioRpcError as error:
                codes[error.code()] += 1
                await asyncio.sleep(0.01)

    async with channel(port, ("grpc.enable_retries", 0)) as connection:
        hammers = [asyncio.create_task(hammer(connection)) for _ in range(12)]
        await asyncio.sleep(0.1)
        pod.service.draining = True
        await pod.door.let_go(SERVICE)
        await pod.door.close(0)
        await asyncio.sleep(0.1)
        done.set()
        await asyncio.gather(*hammers)
    assert set(codes) == {grpc.StatusCode.UNAVAILABLE}


@pytest.mark.parametrize("way", ["clear", "tls", "front"])
@pytest.mark.long
async def test_nothing_is_lost_when_connections_age(way: str, tmp_path: Path) -> None:
    """Streams longer than the age, one behind the other, and short calls between them, with the service
    config."""
    tls, roots = encryption(tmp_path) if way == "tls" else (None, b"")
    pod = Pod(tls, AGE_SECONDS)
    port = await pod.door.open("127.0.0.1", 0)
    front = Front(lambda: [("127.0.0.1", port)])
    await front.open("127.0.0.1", 0)
    target = int(front.address.rpartition(":")[2]) if way == "front" else port
    outcomes: Counter[str] = Counter()
    ends = asyncio.get_running_loop().time() + AGED_SECONDS

    async def call(connection: grpc.aio.Channel, streams: bool) -> None:
        stub = rpc.GenerationStub(connection)
        while asyncio.get_running_loop().time() < ends:
            try:
                if streams:
                    messages = [message async for message in stub.Generate(pb.GenerateRequest(text="a"))]
                    outcomes[f"streams of {len(messages)}"] += 1
                else:
                    await stub.GetLoad(pb.GetLoadRequest())
                    outcomes["OK"] += 1
                    await asyncio.sleep(0.01)
            except grpc.aio.AioRpcError as error:
                outcomes[f"{streams} {error.code().name} {error.details()}"] += 1

    connections = [channel(target, *CHANNEL_OPTIONS, roots=roots) for _ in range(10)]
    await asyncio.gather(*(call(c, streams) for c in connections for streams in (True, True, False)))
    for connection in connections:
        await connection.close()
    await front.close()
    await pod.door.close(0)
    assert set(outcomes) == {"OK", f"streams of {CHUNKS}"}, outcomes


class Behind:
    """A server that is behind a relay: one end of a pair of sockets."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        ours, self.socket = socket.socketpair()
        loop = asyncio.get_running_loop()
        self.relay = Relay(lambda protocol: loop.create_connection(protocol, sock=ours), tls)

    async def heard(self, words: bytes) -> None:
        self.socket.setblocking(False)
        assert await asyncio.get_running_loop().sock_recv(self.socket, 100) == words


LAST = (50_000).to_bytes(3) + b"\0" * 50_006
"""The end of an answer, a frame of it."""


async def test_the_end_of_an_answer_is_read_although_a_write_has_failed() -> None:
    """The server has closed behind it, and in that moment the client says something more."""
    behind = Behind()
    port = await behind.relay.listen("127.0.0.1", 0)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"hello")
    await behind.heard(b"hello")
    (client,) = behind.relay.clients
    behind.socket.setblocking(True)
    behind.socket.sendall(LAST)
    behind.socket.close()
    client.data_received(b"more")  # before the loop has looked at what the server sent
    assert await reader.readexactly(len(LAST)) == LAST
    writer.close()
    await behind.relay.close(1)


@pytest.mark.parametrize("encrypted", [False, True])
async def test_a_connection_is_closed_when_its_client_has_read_the_end(
    encrypted: bool, tmp_path: Path
) -> None:
    """Until then it may go on to write: it would hear of a reset, and perhaps read no more."""
    tls, roots = encryption(tmp_path) if encrypted else (None, b"")
    behind = Behind(tls)
    port = await behind.relay.listen("127.0.0.1", 0)
    trusted = ssl.create_default_context(cadata=roots.decode()) if roots else None
    name = "localhost" if roots else None
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trusted, server_hostname=name)
    writer.write(b"hello")
    await behind.heard(b"hello")
    await asyncio.get_running_loop().sock_sendall(behind.socket, LAST)
    behind.socket.close()
    assert await reader.readexactly(len(LAST)) == LAST
    ping = await reader.readexactly(17)
    for _ in range(3):
        writer.write(b"more")
        await asyncio.sleep(0.02)
        assert behind.relay.clients
    writer.write(ping[:4] + b"\x01" + ping[5:])
    assert await reader.read() == b""
    writer.close()
    await behind.relay.close(1)


@pytest.mark.parametrize("words", [b"", LAST, LAST[:-1]])
async def test_a_client_that_does_not_read_the_end_is_not_waited_for_for_ever(
    words: bytes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(relay, "LINGER_SECONDS", 0.05)
    behind = Behind()
    port = await behind.relay.listen("127.0.0.1", 0)
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(b"hello")
        await behind.heard(b"hello")
        await asyncio.get_running_loop().sock_sendall(behind.socket, words)
        behind.socket.close()
        async with asyncio.timeout(60):
            while behind.relay.clients:
                await asyncio.sleep(0.01)
    await behind.relay.close(1)


async def test_a_client_that_vanished_does_not_hold_up_the_rest() -> None:
    """A connection that never answers: the farewell is given up after its patience."""

    class Silent(asyncio.Protocol):
        pass

    loop = asyncio.get_running_loop()
    backend = await loop.create_server(Silent, "127.0.0.1", 0)
    backend_port = backend.sockets[0].getsockname()[1]
    between = Relay(lambda protocol: loop.create_connection(protocol, "127.0.0.1", backend_port))
    port = await between.listen("127.0.0.1", 0)
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    while not between.clients:
        await asyncio.sleep(0.01)
    async with asyncio.timeout(60):
        await between.let_go(0.1)
        await between.close(0.1)
    writer.close()
    backend.close()


async def test_a_client_that_was_being_encrypted_is_let_go_too(tmp_path: Path) -> None:
    """It is connected when the others have been told: its farewell comes behind the server's SETTINGS."""
    tls, roots = encryption(tmp_path)
    pod = Pod(tls)
    port = await pod.door.open("127.0.0.1", 0)
    with socket.create_connection(("127.0.0.1", port)) as early:
        early.setblocking(False)
        await asyncio.sleep(0.1)  # it is accepted
        await pod.door.let_go(SERVICE)
        trusted = ssl.create_default_context(cadata=roots.decode())
        trusted.set_alpn_protocols(["h2"])
        reader, writer = await asyncio.open_connection(sock=early, ssl=trusted, server_hostname="localhost")
        writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes.fromhex("000000040000000000"))
        kinds = set[int]()
        async with asyncio.timeout(60):
            while 0x7 not in kinds:  # GOAWAY
                header = await reader.readexactly(9)
                await reader.readexactly(int.from_bytes(header[:3]))
                kinds.add(header[3])
        writer.close()
    await pod.door.close(0)


def frames(sizes: list[int]) -> bytes:
    return b"".join(size.to_bytes(3) + b"\0" * 6 + b"x" * size for size in sizes)


@given(st.lists(st.integers(0, 40), min_size=1), st.lists(st.integers(1, 30), min_size=1))
def test_the_cursor_finds_every_boundary_however_the_bytes_are_cut(sizes: list[int], cuts: list[int]) -> None:
    data = frames(sizes)
    ends, position = set(), 0
    for size in sizes:
        position += 9 + size
        ends.add(position)
    cursor, offset, index = FrameCursor(), 0, 0
    while offset < len(data):
        piece = data[offset : offset + cuts[index % len(cuts)]]
        boundary = cursor.advance(piece)
        inside = sorted(end - offset for end in ends if offset < end <= offset + len(piece))
        assert boundary == (inside[0] if inside else None)
        assert cursor.at_boundary == (offset + len(piece) in ends)
        offset, index = offset + len(piece), index + 1


@given(st.binary(max_size=40), st.binary(max_size=40), st.integers(1, 20))
def test_a_mark_is_found_however_the_bytes_are_cut(before: bytes, after: bytes, cut: int) -> None:
    mark = Mark()
    acknowledgement = mark.ping[:4] + b"\x01" + mark.ping[5:]
    data = before + acknowledgement + after
    ends = []
    for offset in range(0, len(data), cut):
        end = mark.end_in(data[offset : offset + cut])
        if end is not None:
            ends.append(offset + end)
    assert ends == [len(before) + len(acknowledgement)]
