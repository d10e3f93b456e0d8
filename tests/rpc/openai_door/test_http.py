"""Raw HTTP, as a hostile or a plain client sends it: each request gets an answer in OpenAI's shape, and the
pod serves on with nothing left in it."""

from __future__ import annotations

import asyncio
import gzip
import json
import threading
from http import HTTPStatus
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from helios_server.errors import HeliosError
from helios_server.rpc.openai import body, door
from helios_server.rpc.openai.errors import encoded, told

from tests.checkpoints import make_checkpoint, spoil_token
from tests.rpc.openai_door.clients import BODIES, CHAT, TEXT, Answered, events, post, raw, send, url
from tests.rpc.pods import LAYERS, Served, eventually, serving

JSON = {"Content-Type": "application/json"}


async def serves(pod: Served) -> None:
    """A request is answered, and nothing is held."""
    assert (await post(pod, TEXT)).status == 200
    load = await pod.load()
    assert (load.running, load.waiting, load.kv_used_tokens) == (0, 0, 0)
    assert pod.server is not None
    assert pod.server.pod.calls == 0


BROKEN: list[bytes] = [
    b"",
    b"{",
    b"null",
    b"[]",
    b'"text"',
    b"5",
    b"\xff\xfe\xfd",
    b'{"prompt": "\xff"}',
    b"{}}",
    b"[" * 100_000,
    b'{"prompt": ' + b"[" * 100_000,
    b'{"max_tokens": ' + b"9" * 5000 + b"}",
    b'{"prompt": "a", "prompt": "b"}',
    b'{"messages": [{"role": "user", "content": "a", "content": "b"}]}',
]


@pytest.mark.parametrize("content", BROKEN, ids=[repr(content[:12]) for content in BROKEN])
async def test_what_is_no_json_object_is_refused(shared_pod: Served, content: bytes) -> None:
    for path in (CHAT, TEXT):
        answer = await send(shared_pod, "POST", path, content, JSON)
        assert (answer.status, answer.error["param"]) == (400, "body")
        assert answer.error["type"] == "invalid_request_error"
    await serves(shared_pod)


@pytest.mark.parametrize(
    "kind",
    [None, "application/x-www-form-urlencoded", "text/plain", "multipart/form-data; boundary=x", "nonsense"],
)
async def test_another_type_is_refused(shared_pod: Served, kind: str | None) -> None:
    headers = {"Content-Type": kind} if kind else {}
    content = json.dumps(BODIES[TEXT]).encode()
    answer = await send(shared_pod, "POST", TEXT, content, headers)
    assert (answer.status, answer.error["param"]) == (415, "body")
    assert "Content-Type: application/json" in answer.error["message"]


async def test_a_large_body_is_read_where_no_stream_waits_for_it(
    shared_pod: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    where: list[int] = []

    def noted(read: Any) -> Any:
        def call(*given: Any, **named: Any) -> Any:
            where.append(threading.get_ident())
            return read(*given, **named)

        return call

    monkeypatch.setattr(body, "parse_object", noted(body.parse_object))
    monkeypatch.setattr(door.ChatRequest, "__init__", noted(door.ChatRequest.__init__))
    here, message = threading.get_ident(), {"role": "user", "content": "a"}
    for messages, aside in ((1, False), (9000, True)):
        where.clear()
        answer = await post(shared_pod, CHAT, messages=[message] * messages)
        assert answer.status == (400 if aside else 200)
        assert [thread != here for thread in where] == [aside, aside]


async def test_a_type_may_name_its_charset_and_a_body_may_be_packed(shared_pod: Served) -> None:
    content = json.dumps(BODIES[TEXT]).encode()
    kind = {"Content-Type": "application/json; charset=utf-8"}
    assert (await send(shared_pod, "POST", TEXT, content, kind)).status == 200
    packed = kind | {"Content-Encoding": "gzip"}
    assert (await send(shared_pod, "POST", TEXT, gzip.compress(content), packed)).status == 200


@pytest.mark.parametrize("packed", [False, True])
async def test_a_body_has_a_bound_also_unpacked(shared_pod: Served, packed: bool) -> None:
    content = json.dumps({"prompt": "x" * (5 << 20)}).encode()
    headers = JSON | ({"Content-Encoding": "gzip"} if packed else {})
    answer = await send(shared_pod, "POST", TEXT, gzip.compress(content) if packed else content, headers)
    assert answer.status == 413
    assert f"at most {4 << 20} bytes" in answer.error["message"]
    await serves(shared_pod)


@pytest.mark.parametrize(
    ("method", "path", "status", "words"),
    [
        ("GET", CHAT, 405, "use POST"),
        ("OPTIONS", TEXT, 405, "use POST"),
        ("DELETE", "/v1/models", 405, "use GET, HEAD"),
        ("POST", "/v1/embeddings", 404, "/v1/chat/completions"),
        ("GET", "/v1/../etc/passwd", 404, "/v1/models"),
        ("GET", "/metrics", 404, "/v1/models"),
    ],
)
async def test_what_is_not_here_says_what_is(
    shared_pod: Served, method: str, path: str, status: int, words: str
) -> None:
    answer = await send(shared_pod, method, path)
    assert answer.status == status
    assert words in answer.error["message"]
    assert answer.headers.get("Allow") == (words.removeprefix("use ") if status == 405 else None)


async def test_the_events_of_a_stream(pod: Served) -> None:
    *chunks, done = await events(pod, CHAT, stream_options={"include_usage": True}, ignore_eos=True)
    assert done == "[DONE]"
    assert [chunk["object"] for chunk in chunks] == ["chat.completion.chunk"] * len(chunks)
    assert [chunk["usage"] for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert chunks[-2]["choices"][0] == {"index": 0, "delta": {}, "logprobs": None, "finish_reason": "length"}
    assert set(chunks[-1]["usage"]) == {"prompt_tokens", "completion_tokens", "total_tokens"}
    plain = await events(pod, CHAT)
    assert not any("usage" in chunk for chunk in plain[:-1])


async def test_a_refusal_before_a_stream_is_no_stream(pod: Served) -> None:
    answer = await post(pod, CHAT, stream=True, max_tokens=99_999)
    assert (answer.status, answer.error["param"]) == (400, "max_tokens")


async def test_an_error_in_mid_stream_is_an_event_and_a_status_otherwise(
    tmp_path: Path, shared_pod: Served
) -> None:
    """A model that overflows on one token."""
    spoilt, token = tmp_path / "spoilt", 260
    make_checkpoint(spoilt, layers=LAYERS, tied=False, max_position_embeddings=4096)
    spoil_token(spoilt, token)
    async with serving(spoilt) as pod:
        bad = [1, 2, token, 3]
        answer = await post(pod, TEXT, prompt=bad)
        assert (answer.status, answer.error["type"], answer.error["param"]) == (500, "server_error", None)
        assert answer.error["message"].startswith("logits: not finite; ")
        *_, last = await events(pod, TEXT, prompt=bad)
        assert last["error"] == answer.error
        _, page = await pod.page("/metrics")
        assert 'helios_request_failure_total{code="INTERNAL",model_name="chat"} 2.0' in page
        await serves(pod)


class Panic(BaseException):
    """No Exception, as the panics of the tokenizers library are none."""


@pytest.mark.parametrize("error", [Panic("byte index"), RuntimeError("of ours")])
async def test_a_failure_of_ours_ends_one_request(
    pod: Served, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    assert pod.server is not None
    tokenizer = pod.server.pod.loaded_engine().serving.model.tokenizer

    def encode(text: str, add_special: bool = False) -> list[int]:
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(tokenizer, "encode", encode)
        answer = await post(pod, TEXT)
    assert (answer.status, answer.error["code"]) == (500, "internal")
    assert answer.error["message"] == "the server failed; its log has the trace"
    await serves(pod)


async def test_a_body_that_does_not_arrive(pod: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body, "BODY_SECONDS", 0.2)
    head = (
        f"POST {TEXT} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{{"
    )
    answer = await raw(pod, head.encode())
    assert b" 408 " in answer.splitlines()[0]
    assert b"did not arrive within" in answer


HEAD = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
UNREADABLE: dict[str, tuple[list[bytes], int, str]] = {
    "no HTTP": ([b"nonsense\r\n\r\n"], 400, "request: Invalid method encountered; Send what"),
    "TLS": (
        [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"],
        400,
        "request: Received HTTPS traffic on an HTTP port",
    ),
    "HTTP/2": ([b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"], 400, "request: "),
    "HTTP/9": ([b"GET / HTTP/9.9\r\nHost: x\r\n\r\n"], 400, "request: "),
    "a path with a space": ([b"GET /a b HTTP/1.1\r\nHost: x\r\n\r\n"], 400, "request: "),
    "a length below 0": ([HEAD + b"Content-Length: -1\r\n\r\n"], 400, "request: "),
    "a length that is no number": ([HEAD + b"Content-Length: few\r\n\r\n"], 400, "request: "),
    "two lengths": ([HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n"], 400, "request: "),
    "length and chunks": (
        [HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"],
        400,
        "",
    ),
    "a header without a name": ([b"GET / HTTP/1.1\r\nHost: x\r\n: y\r\n\r\n"], 400, "request: "),
    "no host": ([b"GET / HTTP/1.1\r\n\r\n"], 400, "request: Missing 'Host' header in request; Send what"),
    "a long header": ([HEAD, b"A: " + b"x" * 300_000], 400, "has more than 8190 bytes; Send what HTTP/1.1"),
    "a long path": ([b"GET /" + b"x" * 300_000], 400, "has more than 8190 bytes; Send what HTTP/1.1 allows"),
    "many headers": ([HEAD + b"".join(b"A%d: x\r\n" % i for i in range(200))], 400, "Too many headers"),
    "an expectation": (
        [HEAD + b"Expect: wonders\r\nContent-Length: 2\r\n\r\n"],
        417,
        "Unknown Expect: wonders",
    ),
    "one of nothing": (
        [b"GET /nowhere HTTP/1.1\r\nHost: x\r\nExpect: wonders\r\n\r\n"],
        417,
        "Unknown Expect",
    ),
    "no chunk": ([CHUNKED + b"zz\r\n{}\r\n"], 400, "request: "),
    "no chunk, later": ([CHUNKED, b"zz\r\n{}\r\n"], 400, "body: is cut short ("),
    "no second chunk": ([CHUNKED + b"2\r\n{}\r\n", b"zz\r\n{}\r\n"], 400, "body: is cut short ("),
    "a chunk that is longer": ([CHUNKED + b"2\r\n", b"{}xx\r\n"], 400, "body: is cut short ("),
    "what is not packed": ([HEAD + b"Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}"], 400, "body: "),
    "more than there may be": ([HEAD + b"Content-Length: 5000000\r\n\r\n{"], 413, "at most 4194304 bytes"),
    "no method": ([b"BREW / HTTP/1.1\r\nHost: x\r\n\r\n"], 400, "request: Invalid method encountered"),
    "another method": ([b"PROPFIND / HTTP/1.1\r\nHost: x\r\n\r\n"], 405, "use GET, HEAD"),
    "everything": ([b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n"], 404, "there are /, "),
    "no path of ours": ([b"GET /%ff%00 HTTP/1.1\r\nHost: x\r\n\r\n"], 404, "there are /, "),
}


@pytest.mark.parametrize("kind", UNREADABLE)
async def test_what_is_no_request_is_told_so_in_openais_shape(
    shared_pod: Served, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    """At once, also where the client has more to say."""
    pieces, status, words = UNREADABLE[kind]
    reader, writer = await asyncio.open_connection("127.0.0.1", shared_pod.ports.http_port)
    for piece in pieces:
        writer.write(piece)
        await asyncio.sleep(0.02)
    async with asyncio.timeout(20):
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        length = int(head.lower().partition("content-length: ")[2].partition("\r\n")[0])
        answer = Answered(int(head.split(" ")[1]), json.loads(await reader.readexactly(length)), head)
    assert (answer.status, answer.error["param"]) == (status, "body" if words.startswith("body") else None)
    assert (answer.error["type"], answer.error["code"] is None) == ("invalid_request_error", False)
    assert words in answer.error["message"]
    assert "Content-Type: application/json" in head
    writer.close()
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []
    await serves(shared_pod)


async def test_an_answer_under_way_is_not_lost_for_what_follows_it(pod: Served) -> None:
    body = json.dumps(BODIES[TEXT] | {"stream": True, "max_tokens": 20, "ignore_eos": True}).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", pod.ports.http_port)
    writer.write(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)
    heard = await reader.readuntil(b"data: ")
    writer.write(b"nonsense\r\n\r\n")
    async with asyncio.timeout(60):
        heard += await reader.read(-1)
    writer.close()
    first, _, second = heard.partition(b"\r\n0\r\n\r\n")
    assert first.count(b"data: ") == 22
    assert first.endswith(b"data: [DONE]\n\n")
    assert b" 400 " in second.splitlines()[0]
    assert b'{"error":{"message":"request: Invalid method encountered; ' in second


async def test_clients_that_leave_at_any_moment_leave_nothing(pod: Served) -> None:
    body = json.dumps(BODIES[CHAT] | {"stream": True, "max_tokens": 2000, "ignore_eos": True}).encode()
    head = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    head += f"Content-Length: {len(body)}\r\n\r\n"
    request = head.encode() + body

    async def leave(index: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", pod.ports.http_port)
        writer.write(request[: len(request) - max(0, 8 - index) * 10])
        await writer.drain()
        if index > 8:
            await reader.readuntil(b"data: ")
        await asyncio.sleep(0.01 * (index % 5))
        writer.transport.abort()

    await asyncio.gather(*(leave(index) for index in range(16)))
    assert pod.server is not None

    async def idle() -> bool:
        load = await pod.load()
        assert pod.server is not None
        return (load.running, load.waiting, load.kv_used_tokens, pod.server.pod.calls) == (0, 0, 0, 0)

    await eventually(idle)
    await serves(pod)


async def test_a_connection_serves_many_requests(pod: Served) -> None:
    connector = aiohttp.TCPConnector(limit=1)
    async with aiohttp.ClientSession(connector=connector) as session:
        for _ in range(3):
            async with session.post(url(pod) + TEXT, json=BODIES[TEXT]) as answer:
                assert answer.status == 200
                assert "close" not in answer.headers.get("Connection", "")
                await answer.read()
        assert pod.server is not None
        assert pod.server._openai._http.connections == 1


async def test_refusals_are_counted_as_those_of_grpc_are(pod: Served) -> None:
    await send(pod, "POST", TEXT, b"{", JSON)
    await post(pod, CHAT, n=2)
    await post(pod, CHAT, model="other")
    _, page = await pod.page("/metrics")
    assert 'helios_request_failure_total{code="INVALID_ARGUMENT",model_name="chat"} 2.0' in page
    assert 'helios_request_failure_total{code="NOT_FOUND",model_name="chat"} 1.0' in page


def kinds(error: type[HeliosError]) -> set[type[HeliosError]]:
    return {error}.union(*(kinds(child) for child in error.__subclasses__()))


@pytest.mark.parametrize("kind", sorted(kinds(HeliosError), key=lambda kind: kind.__name__))
def test_every_error_has_a_status(kind: Any) -> None:
    error = kind.__new__(kind)
    HeliosError.__init__(error, "field", "problem", "fix")
    error.status = HTTPStatus.BAD_REQUEST if kind.__name__ == "Unreadable" else None
    if error.status is None:
        del error.status
    error.retry_seconds = 1.0
    status, body = told(error, {})
    assert (status == 500) == (error.code == "INTERNAL")
    assert body["error"]["message"] == "field: problem; fix"


def test_half_a_pair_in_what_a_client_is_told_is_still_json() -> None:
    assert json.loads(encoded({"\ud800": "é\udc00"})) == {"\ud800": "é\udc00"}
