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
    answer = await ask(port, b"HEAD /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    assert b"200 OK" in answer
    assert b"Content-Length: 5\r\n" in answer
    assert answer.endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    ("first_line", "status", "words"),
    [
        (b"GET /nowhere HTTP/1.1", b" 404 ", b"no such page; there are /healthz\n"),
        (b"HEAD /nowhere HTTP/1.1", b" 404 ", b""),
        (b"POST /nowhere HTTP/1.1", b" 404 ", b"no such page; there are /healthz\n"),
        (b"POST /healthz HTTP/1.1", b" 405 ", b"only GET and HEAD\n"),
        (b"DELETE /healthz HTTP/1.1", b" 405 ", b"only GET and HEAD\n"),
        (b"nonsense", b" 400 ", b""),
    ],
)
async def test_what_it_does_not_serve_it_says(
    port: int, first_line: bytes, status: bytes, words: bytes
) -> None:
    answer = await ask(port, first_line + b"\r\nHost: x\r\n\r\n")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert status in head.split(b"\r\n")[0]
    if status != b" 400 ":
        assert body == words
        assert b"Connection: close" in head
        assert b"Content-Type: text/plain; charset=utf-8" in head


async def test_an_endless_head_is_cut_off(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /healthz HTTP/1.1\r\n" + b"x" * 40_000)
    try:
        await writer.drain()
        assert b" 400 " in await reader.readline()
        await reader.read()
    except ConnectionResetError:
        pass
    writer.close()
    assert b"200 OK" in await ask(port, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")


async def test_a_page_that_fails_is_an_error_and_the_others_go_on() -> None:
    async def broken() -> Answer:
        raise RuntimeError("of the page")

    server = HttpServer({"/metrics": broken})
    port = await server.listen("127.0.0.1", 0)
    assert b" 500 " in await ask(port, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
    assert b" 404 " in await ask(port, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    await server.close()


async def test_an_answer_under_way_goes_out_at_the_end_and_idle_clients_hold_nothing_up() -> None:
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def slow() -> Answer:
        asked.set()
        await go_on.wait()
        return Answer(HTTPStatus.OK, b"slow\n")

    server = HttpServer({"/metrics": slow})
    port = await server.listen("127.0.0.1", 0)
    _, idle = await asyncio.open_connection("127.0.0.1", port)
    answer = asyncio.create_task(ask(port, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"))
    await asked.wait()
    closing = asyncio.create_task(server.close())
    await asyncio.sleep(0)
    go_on.set()
    assert (await answer).endswith(b"slow\n")
    await closing
    idle.close()
    with pytest.raises(OSError):
        await asyncio.open_connection("127.0.0.1", port)
