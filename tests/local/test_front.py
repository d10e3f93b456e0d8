"""The front address stays: connections keep their pod, new ones follow the route, none is lost while pods
change."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from helios_operator.errors import AddressInUseError
from helios_operator.local import front as local_front
from helios_operator.local.front import Front

Backend = tuple[str, int]


@asynccontextmanager
async def echo(name: str) -> AsyncIterator[Backend]:
    """A pod's stand-in on a real socket: says its name, then repeats what it hears until the end."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(f"{name}\n".encode())
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()
    finally:
        server.close()


@asynccontextmanager
async def front(backends: list[Backend], **options: float) -> AsyncIterator[Front]:
    forwarder = Front(lambda: backends, **options)  # type: ignore[arg-type]
    await forwarder.open("127.0.0.1", 0)
    try:
        yield forwarder
    finally:
        await forwarder.close()


class Caller:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def of(cls, forwarder: Front) -> Caller:
        host, port = forwarder.address.split(":")
        return cls(*await asyncio.open_connection(host, int(port)))

    async def pod(self) -> str:
        return (await self.reader.readline()).decode().strip()

    async def repeat(self, text: bytes) -> bytes:
        self.writer.write(text)
        return await self.reader.readexactly(len(text))


async def test_connections_take_turns() -> None:
    async with echo("a") as a, echo("b") as b, front([a, b]) as forwarder:
        pods = [await (await Caller.of(forwarder)).pod() for _ in range(4)]
    assert sorted(pods) == ["a", "a", "b", "b"]


async def test_a_standing_connection_keeps_its_pod_when_the_route_moves() -> None:
    async with echo("old") as old, echo("new") as new:
        route = [old]
        async with front(route) as forwarder:
            standing = await Caller.of(forwarder)
            assert await standing.pod() == "old"
            route[:] = [new]
            assert await (await Caller.of(forwarder)).pod() == "new"
            assert await standing.repeat(b"still here") == b"still here"


async def test_a_connection_waits_while_nothing_is_ready() -> None:
    route: list[Backend] = []
    async with echo("late") as late, front(route, patience=240) as forwarder:
        caller = await Caller.of(forwarder)
        waiting = asyncio.create_task(caller.pod())
        await asyncio.sleep(0.2)
        assert not waiting.done()
        route.append(late)
        assert await waiting == "late"


async def test_the_wait_is_bounded_and_so_are_those_who_wait() -> None:
    async with front([], patience=0.3, most_waiting=1) as forwarder:
        first, second = await Caller.of(forwarder), await Caller.of(forwarder)
        for caller in (second, first):
            assert await caller.reader.read() == b""  # closed: the client's own retries take over


async def test_a_pod_that_refuses_is_passed_over() -> None:
    async with echo("gone") as gone:
        pass
    async with echo("here") as here, front([gone, here]) as forwarder:
        assert [await (await Caller.of(forwarder)).pod() for _ in range(3)] == ["here"] * 3


async def test_much_data_comes_through_whole() -> None:
    async with echo("a") as a, front([a]) as forwarder:
        caller = await Caller.of(forwarder)
        await caller.pod()
        data = bytes(range(256)) * 20_000
        caller.writer.write(data)
        assert await caller.reader.readexactly(len(data)) == data


async def test_the_end_of_one_side_reaches_the_other() -> None:
    async with echo("a") as a, front([a]) as forwarder:
        caller = await Caller.of(forwarder)
        await caller.pod()
        caller.writer.write_eof()
        assert await caller.reader.read() == b""
        async with asyncio.timeout(60):
            while forwarder.connections:
                await asyncio.sleep(0.01)


async def test_an_address_in_use_is_named() -> None:
    async with front([]) as forwarder:
        host, port = forwarder.address.split(":")
        with pytest.raises(AddressInUseError, match=rf"port: {forwarder.address} is in use; .*--port"):
            await Front(lambda: []).open(host, int(port))


async def test_closing_ends_what_stands() -> None:
    async with echo("a") as a:
        async with front([a]) as forwarder:
            caller = await Caller.of(forwarder)
            await caller.pod()
        assert await caller.reader.read() == b""


LAST = bytes(range(256)) * 200
"""The end of an answer."""


async def test_the_end_of_an_answer_comes_though_the_pod_takes_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It closes behind it, over what it has not read, and its client sends and does not read yet."""
    monkeypatch.setattr(local_front, "_CHUNK_BYTES", 1000)
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as client:
        listener.setblocking(False)
        async with front([listener.getsockname()]) as forwarder:
            host, port = forwarder.address.split(":")
            client.setblocking(False)
            await loop.sock_connect(client, (host, int(port)))
            pod, _ = await loop.sock_accept(listener)
            pod.setblocking(False)
            sending = asyncio.create_task(loop.sock_sendall(client, bytes(10_000_000)))
            await asyncio.sleep(0.1)  # until nobody takes any more
            pod.setblocking(True)
            pod.sendall(LAST)  # and the front hears of both at one moment
            pod.close()
            heard = b""
            with contextlib.suppress(ConnectionResetError):
                async with asyncio.timeout(60):
                    while piece := await loop.sock_recv(client, 1000):
                        heard += piece
            assert heard == LAST
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)


async def test_what_breaks_on_one_side_is_broken_on_the_other() -> None:
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        async with front([listener.getsockname()]) as forwarder:
            caller = await Caller.of(forwarder)
            pod, _ = await loop.sock_accept(listener)
            pod.setblocking(False)
            caller.writer.write(b"x")
            await loop.sock_recv(pod, 1)
            pod.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            pod.close()  # a reset
            with pytest.raises(ConnectionResetError):
                await caller.reader.read()
            caller = await Caller.of(forwarder)
            pod, _ = await loop.sock_accept(listener)
            pod.setblocking(False)
            caller.writer.write(b"x")
            await loop.sock_recv(pod, 1)
            raw = caller.writer.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            caller.writer.transport.abort()
            async with asyncio.timeout(60):
                assert await loop.sock_recv(pod, 10) == b""
            pod.close()
