"""The HTTP door for applications: routes, streams, a page, and the farewell.

Opened by `rpc.server` beside the gRPC one. It translates; what becomes of a request stands in `conversation`.
A pod that drains goes on answering with 503 and `Connection: close` until the end, so that no request that
is on its way is lost: HTTP/1.1 has no other farewell.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from helios_server.engine.request import FailedEvent, FinishedEvent, GenerationRequest, TokensEvent
from helios_server.engine.serving import Model
from helios_server.rpc import conversation, tls
from helios_server.rpc.admission import require_caller
from helios_server.rpc.bodies import MOST_BYTES, Place
from helios_server.rpc.callers import CallerTokens
from helios_server.rpc.conversation import Prompt
from helios_server.rpc.http import HttpServer
from helios_server.rpc.openai import answers, body, page
from helios_server.rpc.openai.answers import Answer, ChatAnswer, TextAnswer
from helios_server.rpc.openai.errors import NAMES, STREAM, encoded, in_openais_words, refused
from helios_server.rpc.openai.requests import Asked, ChatRequest, TextRequest
from helios_server.rpc.pod import Pod
from helios_server.rpc.stream import Stream
from helios_server.rpc.tls import Certificates
from helios_server.rpc.traced import accept_trace
from helios_server.telemetry.tracing import CHAT, TEXT

_IDLE_SECONDS = 75.0
"""A connection without a request."""
_PATIENCE_SECONDS = 5.0
"""For the clients of idle connections to be told that they end."""
_JSON = "application/json"
_STREAM_HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-cache",
    "X-Accel-Buffering": "no",  # a proxy in between hands out each event as it comes
}


class OpenAiDoor:
    """`open`, then `gone` to wait for clients that are told, then `close`. callers: None lets everybody in;
    certificates: None speaks in clear text."""

    def __init__(
        self, pod: Pod, callers: CallerTokens | None = None, certificates: Certificates | None = None
    ) -> None:
        self._pod = pod
        self._tls = certificates.context(tls.HTTP) if certificates else None
        self._created = int(time.time())
        guards = [require_caller(callers, pod.metrics, page.PATHS)] if callers else []
        traced = [accept_trace(pod.tracing)] if pod.tracing else []
        self._http = HttpServer(
            {},
            in_openais_words,
            *guards,
            *traced,
            refuse=refused,
            idle_seconds=_IDLE_SECONDS,
            most_bytes=MOST_BYTES,
        )
        self._http.application.add_routes(
            [
                *page.routes(),
                web.get("/v1/models", self._models),
                web.get("/v1/models/{model:.+}", self._model),
                web.post("/v1/completions", self._complete),
                web.post("/v1/chat/completions", self._chat),
            ]
        )
        self._http.application.on_response_prepare.append(self._say_farewell)

    async def open(self, host: str, port: int) -> int:
        """Returns the port bound. OSError when it cannot be."""
        return await self._http.listen(host, port, self._tls)

    async def gone(self) -> None:
        """Returns when no connection stands, or has been used for a while: the client of one that is in use
        meets the farewell."""
        waited = 0.0
        while self._http.connections and waited < _PATIENCE_SECONDS:
            await asyncio.sleep(0.05)
            waited += 0.05

    async def close(self) -> None:
        await self._http.close()

    async def _say_farewell(self, _: web.Request, response: web.StreamResponse) -> None:
        if self._pod.health.draining:
            response.headers["Connection"] = "close"
            response.force_close()

    # -- routes

    async def _models(self, _: web.Request) -> web.Response:
        return _json({"object": "list", "data": [self._described()]})

    async def _model(self, http: web.Request) -> web.Response:
        conversation.check_model(self._pod, http.match_info["model"])
        return _json(self._described())

    def _described(self) -> Mapping[str, Any]:
        return answers.model(self._pod.model_name, self._pod.loaded_engine().info(), self._created)

    async def _chat(self, http: web.Request) -> web.StreamResponse:
        return await self._answer(http, ChatRequest, ChatAnswer, "chatcmpl")

    async def _complete(self, http: web.Request) -> web.StreamResponse:
        return await self._answer(http, TextRequest, TextAnswer, "cmpl")

    # -- one request

    async def _answer(
        self,
        http: web.Request,
        kind: type[ChatRequest | TextRequest],
        answer_kind: type[Answer],
        prefix: str,
    ) -> web.StreamResponse:
        with conversation.counted(self._pod):
            engine = self._pod.serving_engine()
            model = engine.serving.model
            async with self._pod.bodies.place(body.most_bytes(http)) as place:
                asked, prompt = await self._asked(http, place, kind, model)
                request_id = f"{prefix}-{uuid.uuid4().hex}"
                generation = GenerationRequest(
                    request_id=conversation.owned(request_id),
                    prompt_ids=prompt.ids,
                    tokenizer_digest=prompt.tokenizer_digest,
                    sampling=asked.sampling,
                    depth=asked.depth,
                    cache_salt=conversation.salted(asked.cache_salt),
                )
                answer = answer_kind(
                    request_id,
                    self._pod.model_name,
                    engine.info,
                    model.tokenizer,
                    asked.sampling.logprobs,
                )
                operation = CHAT if kind is ChatRequest else TEXT
                async with conversation.answered(self._pod, engine, generation, prompt, operation) as events:
                    if asked.stream:
                        return await _streamed(http, events, answer, asked.include_usage)
                    return await _whole(events, answer)

    async def _asked(
        self, http: web.Request, place: Place, kind: type[ChatRequest | TextRequest], model: Model
    ) -> tuple[Asked, Prompt]:
        """What of a body is kept while it is answered."""
        given, size = await body.read(http, place)
        http[NAMES] = kind.names(given)
        request = await conversation.reading(size, lambda: kind(given))
        conversation.check_model(self._pod, request.asked.model)
        return request.asked, await request.prompt(model)


async def _whole(events: Stream, answer: Answer) -> web.Response:
    tokens: list[TokensEvent] = []
    async for event in events:
        match event:
            case TokensEvent():
                tokens.append(event)
            case FinishedEvent():
                return _json(answer.whole(event, tokens), {"X-Request-Id": answer.request_id})
            case FailedEvent():
                raise event.error
    raise RuntimeError("a request's events ended without a last one")


async def _streamed(
    http: web.Request, events: Stream, answer: Answer, include_usage: bool
) -> web.StreamResponse:
    response = web.StreamResponse(headers=_STREAM_HEADERS | {"X-Request-Id": answer.request_id})
    await response.prepare(http)
    http[STREAM] = response
    if first := answer.first_chunk():
        await _write(response, first, include_usage)
    async for event in events:
        match event:
            case TokensEvent():
                await _write(response, answer.chunk(event), include_usage)
            case FinishedEvent():
                await _write(response, answer.last_chunk(event), include_usage)
                if include_usage:
                    await _write(response, answer.usage_chunk(event), include_usage)
            case FailedEvent():
                raise event.error
    await response.write(b"data: [DONE]\n\n")
    await response.write_eof()
    return response


async def _write(response: web.StreamResponse, chunk: dict[str, Any], include_usage: bool) -> None:
    """Where the usage comes at the end, every chunk before has a null in its place."""
    content = {"usage": None} | chunk if include_usage else chunk
    await response.write(b"data: " + encoded(content) + b"\n\n")


def _json(content: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> web.Response:
    return web.Response(body=encoded(content), content_type=_JSON, headers=headers)
