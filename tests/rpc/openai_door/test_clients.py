"""Clients that people have, unchanged: OpenAI's SDK by its own types and exceptions, and curl.

With the real model in `make test-long`, else with the tiny one: what they ask and read is the same.
"""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import openai
import pytest
from openai.types import Completion, Model
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from pydantic import BaseModel, ValidationError

from tests.rpc.openai_door.clients import BODIES, CHAT, SAY, TEXT, events, post, send, url
from tests.rpc.openai_door.real import real_pod
from tests.rpc.pods import PROMPT, Served, eventually, serving
from tests.sizes import LONG

GREEDY: dict[str, Any] = {"model": "chat", "temperature": 0, "max_tokens": 6}
ENDLESS: dict[str, Any] = GREEDY | {"max_tokens": 3000, "extra_body": {"ignore_eos": True}}
KINDS = ("sync", "async") if LONG else ("sync",)
"""`test_sdk` speaks without threads, to the tiny model."""


pytestmark = pytest.mark.long


def door(tiny: Path, **limits: Any) -> AbstractAsyncContextManager[Served]:
    return real_pod(**limits) if LONG else serving(tiny, **limits)


@pytest.fixture
async def served(tiny: Path) -> AsyncIterator[Served]:
    async with door(tiny) as pod:
        yield pod


async def sdk_says(kind: str, pod: Served | str, call: str, client: Any = None, **asked: Any) -> Any:
    """What a call of OpenAI's SDK returns: `chat.completions.create` for example; of a stream, its chunks."""
    at = pod if isinstance(pod, str) else f"{url(pod)}/v1"
    made = {"base_url": at, "api_key": "none", "max_retries": 0} | (client or {})

    def method(of: Any) -> Any:
        for name in call.split("."):
            of = getattr(of, name)
        return of

    if kind == "async":
        async with openai.AsyncOpenAI(**made) as speaking:
            answer = await method(speaking)(**asked)
            return [chunk async for chunk in answer] if asked.get("stream") else answer

    def in_a_thread() -> Any:
        with openai.OpenAI(**made) as speaking:
            answer = method(speaking)(**asked)
            return list(answer) if asked.get("stream") else answer

    return await asyncio.to_thread(in_a_thread)


# -- OpenAI's SDK


def _required(kind: type[BaseModel], body: Any) -> None:
    """It reads the body, and would not without any of the fields that it requires."""
    kind.model_validate(body)
    for name, field in kind.model_fields.items():
        if field.is_required():
            with pytest.raises(ValidationError):
                kind.model_validate({key: value for key, value in body.items() if key != name})


async def test_every_field_that_the_sdk_requires_is_there(served: Served) -> None:
    """By itself it reads what lacks some, and fails where they are used."""
    chat = (await post(served, CHAT, logprobs=True)).body
    text = (await post(served, TEXT, logprobs=0)).body
    _required(ChatCompletion, chat)
    _required(Completion, text)
    usage: Any = {"stream_options": {"include_usage": True}}
    *chunks, end = await events(served, CHAT, **usage)
    assert end == "[DONE]"
    for chunk in chunks:
        _required(ChatCompletionChunk, chunk)
    for chunk in (await events(served, TEXT, **usage))[:-1]:
        assert chunk.keys() >= text.keys() - {"helios"}
        assert all(choice.keys() == text["choices"][0].keys() for choice in chunk["choices"])
    [model] = (await send(served, "GET", "/v1/models")).body["data"]
    _required(Model, model)
    optional = {
        "chat": chat.keys() & {"usage", "system_fingerprint", "helios"},
        "text": text.keys() & {"usage", "system_fingerprint", "helios"},
    }
    assert {len(each) for each in optional.values()} == {3}
    assert chat["choices"][0]["logprobs"]["content"]


@pytest.mark.parametrize("kind", KINDS)
async def test_the_sdk_reads_wholes_and_streams(served: Served, kind: str) -> None:
    whole = await sdk_says(kind, served, "chat.completions.create", messages=SAY, **GREEDY)
    text = whole.choices[0].message.content
    usage: Any = {"include_usage": True}
    *chunks, last = await sdk_says(
        kind, served, "chat.completions.create", messages=SAY, stream=True, stream_options=usage, **GREEDY
    )
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == text
    assert last.usage == whole.usage
    assert chunks[-1].choices[0].finish_reason == whole.choices[0].finish_reason == "length"
    answer = await sdk_says(kind, served, "completions.create", prompt=PROMPT, **GREEDY)
    pieces = await sdk_says(kind, served, "completions.create", prompt=PROMPT, stream=True, **GREEDY)
    assert "".join(piece.choices[0].text for piece in pieces) == answer.choices[0].text
    listed = await sdk_says(kind, served, "models.list")
    assert [model.id for model in listed.data] == ["chat"]


@pytest.mark.parametrize("kind", KINDS)
async def test_each_status_is_its_exception(served: Served, kind: str) -> None:
    create = "chat.completions.create"
    for error, param, code, changes in (
        (openai.BadRequestError, "top_p", "invalid_argument", {"top_p": 7}),
        (openai.BadRequestError, "tools", "invalid_argument", {"tools": [{"type": "function"}]}),
        (openai.BadRequestError, "messages", "invalid_argument", {"messages": []}),
        (openai.NotFoundError, "model", "model_not_found", {"model": "other"}),
    ):
        with pytest.raises(error) as raised:
            await sdk_says(kind, served, create, **GREEDY | {"messages": SAY} | changes)
        assert (raised.value.param, raised.value.code) == (param, code)
        assert raised.value.request_id is None
        assert "; " in raised.value.message
    with pytest.raises(openai.NotFoundError):
        await sdk_says(kind, served, "embeddings.create", model="chat", input="x")
    with pytest.raises(openai.APITimeoutError):
        await sdk_says(kind, served, create, client={"timeout": 0.2}, messages=SAY, **ENDLESS)
    with pytest.raises(openai.APIConnectionError):
        await sdk_says(kind, "http://127.0.0.1:1/v1", create, messages=SAY, **GREEDY)
    await eventually(lambda: _runs(served, 0))
    assert served.server is not None
    await served.server.begin_drain()
    with pytest.raises(openai.InternalServerError) as away:
        await sdk_says(kind, served, create, messages=SAY, **GREEDY)
    assert (away.value.status_code, away.value.response.headers["Retry-After"]) == (503, "1")


@pytest.mark.skipif(not LONG, reason="`make test-long` runs it: it waits for what Retry-After says")
@pytest.mark.parametrize("kind", KINDS)
async def test_a_full_queue_is_its_exception_or_is_waited_for(tiny: Path, kind: str) -> None:
    async with door(tiny, max_batch_size=1, max_queue_size=1) as pod:
        asked = {"call": "completions.create", "prompt": PROMPT, **ENDLESS}
        running = [asyncio.create_task(sdk_says("async", pod, **asked)) for _ in range(2)]
        await eventually(lambda: _runs(pod, 2))
        with pytest.raises(openai.RateLimitError) as raised:
            await sdk_says(kind, pod, "completions.create", prompt=PROMPT, **GREEDY)
        assert raised.value.code == "queue_full"
        waits = asyncio.create_task(
            sdk_says(kind, pod, "completions.create", {"max_retries": 9}, prompt=PROMPT, **GREEDY)
        )
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        assert (await waits).choices[0].text


async def _runs(pod: Served, requests: int) -> bool:
    load = await pod.load()
    return load.running + load.waiting == requests


# -- curl


@pytest.mark.skipif(
    shutil.which("curl") is None, reason="not run: curl is not installed, on Debian: apt-get install curl"
)
async def test_curl_reads_wholes_streams_and_errors(served: Served) -> None:
    body = BODIES[CHAT]
    head, whole = await curl(served, CHAT, body)
    assert head["status"] == "200"
    assert head["content-type"] == "application/json"
    answer = json.loads(whole)
    assert head["x-request-id"] == answer["id"]
    head, stream = await curl(served, CHAT, body | {"stream": True}, "--no-buffer")
    assert head["content-type"] == "text/event-stream; charset=utf-8"
    assert head["cache-control"] == "no-cache"
    *said, end, nothing = stream.split("\n\n")
    assert (end, nothing) == ("data: [DONE]", "")
    deltas = [json.loads(event.removeprefix("data: "))["choices"][0]["delta"] for event in said]
    text = "".join(delta.get("content") or "" for delta in deltas)
    assert text == answer["choices"][0]["message"]["content"]
    head, wrong = await curl(served, CHAT, body | {"top_p": 7})
    assert (head["status"], json.loads(wrong)["error"]["param"]) == ("400", "top_p")
    head, listed = await curl(served, "/v1/models")
    assert [model["id"] for model in json.loads(listed)["data"]] == ["chat"]


async def curl(pod: Served, path: str, body: Any = None, *options: str) -> tuple[dict[str, str], str]:
    """Headers, the status among them, and the body."""
    data = [] if body is None else ["-H", "Content-Type: application/json", "-d", json.dumps(body)]
    child = await asyncio.create_subprocess_exec(
        *("curl", "--silent", "--show-error", "--include", *options, url(pod) + path, *data),
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await child.communicate()
    assert child.returncode == 0
    head, _, content = out.decode().partition("\r\n\r\n")
    first, *lines = head.split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    return headers | {"status": first.split()[1]}, content
