"""OpenAI's API at the front address: its own port, and no request lost when the pods behind it change."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import openai
import pytest
from helios_operator.errors import AddressInUseError, OperatorError
from helios_operator.local import front as local_front
from helios_operator.local import unready
from helios_operator.local.front import Front
from helios_operator.local.runtime import LocalRuntime
from helios_operator.render.commands import OPEN

from tests.certificates import Authority
from tests.local.test_pods import LIMITS, NEW, place
from tests.local.world import deployment, options


async def test_a_switch_by_surge_loses_no_request_of_the_sdk(tmp_path: Path) -> None:
    """Eight callers in a closed loop, with the retries that the SDK makes by itself and none of their own."""
    async with place(tmp_path) as here:
        here.revisions.create(1, LIMITS, 1, datetime.now(UTC))
        here.revisions.create(2, NEW, 1, datetime.now(UTC))
        here.revisions.route(1)
        await here.ready(2)
        front = Front(here.revisions.http_backends)
        await front.open("127.0.0.1", 0)
        answers: list[str] = []
        stop = asyncio.Event()
        asked: dict[str, Any] = {"model": "chat", "prompt": "Call me Ishmael.", "max_tokens": 40}

        async def call(stream: bool) -> None:
            async with openai.AsyncOpenAI(base_url=f"http://{front.address}/v1", api_key="none") as client:
                while not stop.is_set():
                    extra = {"ignore_eos": True}
                    answer: Any = await client.completions.create(stream=stream, extra_body=extra, **asked)
                    chunks = [chunk async for chunk in answer] if stream else [answer]
                    assert chunks[-1].choices[0].finish_reason == "length"
                    (span,) = chunks[-1].helios["spans"]
                    answers.append(span["candidate"])

        async with asyncio.TaskGroup() as callers:
            for index in range(8):
                callers.create_task(call(stream=bool(index % 2)))
            await here.until(lambda _: len(answers) >= 8)
            here.revisions.route(2)
            here.revisions.drain(1, 30)
            await here.until(lambda seen: not seen[0].pods)
            later = len(answers) + 16
            while len(answers) < later:
                await asyncio.sleep(0.1)
            stop.set()
        await front.close()
        assert {answers[0], answers[-1]} == {"old", "new"}
        assert set(answers[later - 8 :]) == {"new"}
        assert [words for words in here.said if words[2] == "BackOff"] == []


@asynccontextmanager
async def refusing(**options: Any) -> AsyncIterator[Front]:
    """No pod is ready."""
    front = Front(lambda: [], refusal=unready.answer("chat"), **({"patience": 0.1} | options))
    await front.open("127.0.0.1", 0)
    try:
        yield front
    finally:
        await front.close()


@pytest.mark.parametrize("waits", [True, False], ids=["in time", "too many wait"])
async def test_who_asks_while_no_pod_is_ready_is_told_so(waits: bool) -> None:
    """By the SDK, with a body that is still on its way when the answer comes."""
    async with (
        refusing(most_waiting=int(waits)) as front,
        openai.AsyncOpenAI(base_url=f"http://{front.address}/v1", api_key="none", max_retries=0) as client,
    ):
        with pytest.raises(openai.InternalServerError) as raised:
            await client.completions.create(model="chat", prompt="word " * 400_000)
    error, headers = raised.value, raised.value.response.headers
    assert (error.status_code, error.code, error.type, error.param) == (
        503,
        "unavailable",
        "server_error",
        None,
    )
    assert "no pod of chat is ready; " in error.message
    assert int(headers["Retry-After"]) > 0
    assert headers["Connection"] == "close"


@pytest.mark.parametrize("ends", [True, False], ids=["ends", "says nothing"])
async def test_who_asks_nothing_is_told_nothing(monkeypatch: pytest.MonkeyPatch, ends: bool) -> None:
    """A browser connects ahead of what it may ask."""
    monkeypatch.setattr(local_front, "_LINGER_SECONDS", 0.1 if not ends else 600.0)
    async with refusing() as front:
        host, port = front.address.split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        if ends:
            writer.write_eof()
        assert await reader.read() == b""
        writer.close()


@pytest.mark.parametrize("encrypted", [False, True])
async def test_only_what_is_not_encrypted_is_answered_in_plain(tmp_path: Path, encrypted: bool) -> None:
    given = OPEN
    if encrypted:
        Authority().issue(tmp_path)
        given = replace(OPEN, tls_cert=str(tmp_path / "tls.crt"), tls_key=str(tmp_path / "tls.key"))
    async with runtime(tmp_path, {}, access=given) as running:
        running._sites["chat"].http_front._patience = 0.1
        assert running.encrypted("chat") is encrypted
        host, port = running.http_address("chat").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"GET /v1/models HTTP/1.1\r\nHost: here\r\n\r\n")
        writer.write_eof()
        try:
            said = await reader.read()
        except ConnectionResetError:
            said = b""
        assert said.startswith(b"HTTP/1.1 503 ") is not encrypted
        assert bool(said) is not encrypted
        writer.close()


def runtime(folder: Path, service: dict[str, int], **changes: Any) -> LocalRuntime:
    obj = deployment(replicas=0, service=service)
    return LocalRuntime([obj], folder / "state", options(folder / "volumes", **changes))


async def test_where_it_listens(tmp_path: Path) -> None:
    async with runtime(tmp_path, {}) as running:
        host, port = running.http_address("chat").split(":")
        assert (host, running.front_address("chat") != running.http_address("chat")) == ("127.0.0.1", True)
        taken = runtime(tmp_path / "other", {"httpPort": int(port)}, http_port=None)
        with pytest.raises(AddressInUseError) as raised:
            async with taken:
                pytest.fail("two runtimes share a port")
        assert str(raised.value).startswith(f"http-port: 127.0.0.1:{port} is in use; ")
        assert "--http-port (free: any free port, 0: none)" in str(raised.value)


@pytest.mark.parametrize(
    ("service", "changes"),
    [({"httpPort": 0}, {"http_port": None}), ({"port": 8000}, {"http_port": None}), ({}, {"http": False})],
)
async def test_where_there_is_none(tmp_path: Path, service: dict[str, int], changes: dict[str, Any]) -> None:
    async with runtime(tmp_path, service, **changes) as running:
        assert running.http_address("chat") == ""
        assert running.front_address("chat")


async def test_one_port_is_not_for_two_deployments(tmp_path: Path) -> None:
    both = [deployment(replicas=0), deployment(replicas=0) | {"metadata": {"name": "other"}}]
    with pytest.raises(OperatorError, match=r"http-port: cannot be shared by 2 .*service\.httpPort"):
        async with LocalRuntime(both, tmp_path, options(tmp_path, http_port=8123)):
            pytest.fail("they share it")
