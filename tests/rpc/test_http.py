"""The probe server: one answer a connection, and nothing that a stray client can do holds it up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from http import HTTPStatus

import pytest
from helios_server.rpc.http import Answer, HttpServer


@pytest.fixture
async def port() -> AsyncIterator[int]:
    async def page() -> Answer:
        return Answer(HTTPStatus.OK, b"fine\n")

    server = HttpServer({"/healthz": page})
    yield await server.listen("127.0.0.1", 0)
    await server.close()


async def ask(port: int, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    answer = await reader.read()
    writer.close()
    return answer


async def test_a_page_is_answered_and_the_connection_ends(port: int) -> None:
    answer = await ask(port, b"GET /healthz?verbose HTTP/1.1\r\nHost: x\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"Content-Length: 5\r\n" in answer
    assert answer.endswith(b"\r\n\r\nfine\n")


async def test_head_has_no_body(port: int) -> None:
    answer = await ask(port, b"HEAD /healthz HTTP/1.1\r\n\r\n")
    assert b"200 OK" in answer
    assert answer.endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET /nowhere HTTP/1.1\r\n\r\n", b"404"),
        (b"POST /healthz HTTP/1.1\r\n\r\n", b"405"),
        (b"nonsense\r\n\r\n", b"400"),
    ],
)
async def test_what_it_does_not_serve_it_says(port: int, request_bytes: bytes, status: bytes) -> None:
    assert (await ask(port, request_bytes)).startswith(b"HTTP/1.1 " + status)


async def test_an_endless_head_is_cut_off(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /healthz HTTP/1.1\r\n" + b"x" * 40_000)
    try:
        await writer.drain()
        assert await reader.read() == b""
    except ConnectionResetError:
        pass
    writer.close()
    assert b"200 OK" in await ask(port, b"GET /healthz HTTP/1.1\r\n\r\n")
