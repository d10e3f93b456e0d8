"""How the tests of the HTTP door speak to it: OpenAI's own SDK, plain JSON, and raw bytes."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any

import aiohttp
import openai

from tests.rpc.pods import Served

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
SAY = [{"role": "user", "content": "A prompt of the tests"}]
BODIES: dict[str, dict[str, Any]] = {
    CHAT: {"model": "chat", "messages": SAY, "max_tokens": 3, "temperature": 0},
    TEXT: {"model": "chat", "prompt": "A prompt of the tests", "max_tokens": 3, "temperature": 0},
}
"""The smallest request of each path; greedy."""


def url(pod: Served) -> str:
    return f"http://127.0.0.1:{pod.ports.http_port}"


def sdk(pod: Served, retries: int = 0) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{url(pod)}/v1", api_key="none", max_retries=retries)


@dataclass(frozen=True)
class Answered:
    status: int
    body: Any
    headers: Any

    @property
    def error(self) -> dict[str, Any]:
        """Of OpenAI's shape, and nothing but that."""
        assert set(self.body) == {"error"}
        assert set(self.body["error"]) == {"message", "type", "param", "code"}
        error: dict[str, Any] = self.body["error"]
        return error


async def post(pod: Served, path: str, **changes: Any) -> Answered:
    """The smallest request of the path, with changes."""
    content = json.dumps(BODIES[path] | changes).encode()
    return await send(pod, "POST", path, content, {"Content-Type": "application/json"})


async def send(
    pod: Served, method: str, path: str, content: bytes = b"", headers: dict[str, str] | None = None
) -> Answered:
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, url(pod) + path, data=content, headers=headers) as answer,
    ):
        return Answered(answer.status, await answer.json(), answer.headers)


async def events(pod: Served, path: str, **changes: Any) -> list[Any]:
    """The JSON of each server-sent event, and the last one's word."""
    content = BODIES[path] | {"stream": True} | changes
    async with aiohttp.ClientSession() as session, session.post(url(pod) + path, json=content) as answer:
        assert answer.headers["Content-Type"] == "text/event-stream; charset=utf-8"
        text = (await answer.read()).decode()
    *events, end = text.split("\n\n")
    assert end == ""
    assert all(event.startswith("data: ") for event in events)
    words = [event.removeprefix("data: ") for event in events]
    return [word if word == "[DONE]" else json.loads(word) for word in words]


async def raw(pod: Served, request: bytes) -> bytes:
    """All that comes back on a connection of its own."""
    reader, writer = await asyncio.open_connection("127.0.0.1", pod.ports.http_port)
    writer.write(request)
    async with asyncio.timeout(20):
        answer = await reader.read()
    writer.close()
    return answer
