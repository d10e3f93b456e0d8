"""Errors in OpenAI's shape: what an exception becomes for a client of the HTTP door.

Installed by `door` on every route. A HeliosError becomes its own status with its own words, the field under
the name that the client knows it by; whatever else goes wrong is our fault, with the trace in the log.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any

from aiohttp import web

from helios_server.errors import HeliosError, InvalidRequest, NotFound, QueueFull
from helios_server.rpc.errors import Unauthenticated, retry_seconds

logger = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

STREAM: web.RequestKey[web.StreamResponse] = web.RequestKey("stream", web.StreamResponse)
"""The answer that has begun to go out: what fails then is said in it."""
NAMES: web.RequestKey[dict[str, str]] = web.RequestKey("names", dict)
"""What the engine calls a field, to what this client called it."""
_STATUS = {
    "INVALID_ARGUMENT": HTTPStatus.BAD_REQUEST,
    "UNAUTHENTICATED": HTTPStatus.UNAUTHORIZED,
    "PERMISSION_DENIED": HTTPStatus.FORBIDDEN,
    "NOT_FOUND": HTTPStatus.NOT_FOUND,
    "ABORTED": HTTPStatus.CONFLICT,
    "FAILED_PRECONDITION": HTTPStatus.CONFLICT,
    "RESOURCE_EXHAUSTED": HTTPStatus.TOO_MANY_REQUESTS,
    "DEADLINE_EXCEEDED": HTTPStatus.REQUEST_TIMEOUT,
    "UNIMPLEMENTED": HTTPStatus.NOT_IMPLEMENTED,
    "UNAVAILABLE": HTTPStatus.SERVICE_UNAVAILABLE,
}
_KINDS = {
    HTTPStatus.UNAUTHORIZED: "authentication_error",
    HTTPStatus.FORBIDDEN: "permission_error",
    HTTPStatus.TOO_MANY_REQUESTS: "rate_limit_error",
}
_LAST_EVENT_SECONDS = 5.0
_NOT_OURS = (asyncio.CancelledError, KeyboardInterrupt, SystemExit, GeneratorExit)


class Unreadable(InvalidRequest):
    """The body is not what it should be."""

    def __init__(self, status: HTTPStatus, problem: str, fix: str) -> None:
        super().__init__("body", problem, fix)
        self.status = status


def encoded(content: Any) -> bytes:
    """JSON. Half of a surrogate pair, in what a client is told of its own words, stays an escape."""
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "backslashreplace")


def refused(status: HTTPStatus, why: str) -> web.Response:
    """An answer to what comes to no route: it may be no request at all."""
    if status >= 500:
        return _response(status, _FAILED, {})
    message = f"request: {why}; Send what HTTP/1.1 allows"
    return _response(status, _body(status, message, None, status.name.lower()), {})


def told(error: HeliosError, names: dict[str, str]) -> tuple[HTTPStatus, dict[str, Any]]:
    """Status and body."""
    status = getattr(error, "status", _STATUS.get(error.code, HTTPStatus.INTERNAL_SERVER_ERROR))
    field = names.get(error.field, error.field.removeprefix("sampling_params."))
    message = f"{field}: {error.problem}; {error.fix}"
    return status, _body(status, message, field if status < 500 else None, _code(error))


def _code(error: HeliosError) -> str | None:
    if isinstance(error, NotFound) and error.field == "model":
        return "model_not_found"
    if isinstance(error, QueueFull):
        return "queue_full"
    if isinstance(error, Unauthenticated):
        return "invalid_api_key"
    return error.code.lower()


def _body(status: HTTPStatus, message: str, param: str | None, code: str | None) -> dict[str, Any]:
    kind = _KINDS.get(status, "invalid_request_error" if status < 500 else "server_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


_FAILED = _body(
    HTTPStatus.INTERNAL_SERVER_ERROR, "the server failed; its log has the trace", None, "internal"
)


@web.middleware
async def in_openais_words(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except HeliosError as error:
        status, body = told(error, request.get(NAMES, {}))
        return await _say(request, status, body, _hint(error))
    except web.HTTPException as error:
        return await _of_http(request, error)
    except ConnectionResetError:
        return request.get(STREAM) or web.Response()  # the client is gone: nobody is there to be told
    except _NOT_OURS:
        raise
    except BaseException:  # a panic of the tokenizers library is no Exception
        logger.exception("a request failed")
        return await _say(request, HTTPStatus.INTERNAL_SERVER_ERROR, _FAILED, {})


async def _of_http(request: web.Request, error: web.HTTPException) -> web.StreamResponse:
    """What aiohttp says no to: a path, a method, a body that is too large."""
    status, headers, fix = HTTPStatus(error.status), {}, ""
    if isinstance(error, web.HTTPMethodNotAllowed):
        headers = {"Allow": ", ".join(sorted(error.allowed_methods))}
        fix = f"; use {headers['Allow']}"
    elif isinstance(error, web.HTTPNotFound):
        known = sorted({resource.canonical for resource in request.app.router.resources()})
        fix = f"; there are {', '.join(known)}"
    elif isinstance(error, web.HTTPRequestEntityTooLarge):
        fix = f"; send at most {request.client_max_size} bytes"
    message = f"{request.method} {request.path}: {status.phrase}{fix}"
    return await _say(request, status, _body(status, message, None, status.name.lower()), headers)


def _hint(error: HeliosError) -> dict[str, str]:
    """When to come back, or with what."""
    if isinstance(error, Unauthenticated):
        return {"WWW-Authenticate": 'Bearer realm="helios"'}
    seconds = retry_seconds(error)
    return {} if seconds is None else {"Retry-After": str(math.ceil(seconds))}


def _response(status: HTTPStatus, body: dict[str, Any], headers: dict[str, str]) -> web.Response:
    return web.Response(status=status, body=encoded(body), content_type="application/json", headers=headers)


async def _say(
    request: web.Request, status: HTTPStatus, body: dict[str, Any], headers: dict[str, str]
) -> web.StreamResponse:
    stream: web.StreamResponse | None = request.get(STREAM)
    if stream is None:
        return _response(status, body, headers)
    try:
        async with asyncio.timeout(_LAST_EVENT_SECONDS):
            await stream.write(b"data: " + encoded(body) + b"\n\n")
            await stream.write_eof()
    except TimeoutError:  # who does not read is not waited for
        if request.transport:
            request.transport.abort()
    return stream
