"""An HTTP server: /healthz and /readyz for probes, /metrics for Prometheus, one answer a connection; or what
a door adds to it.

Started by `rpc.server`; what a path answers comes from outside, so that it holds no truth of its own. Doors
add their routes to `application` before it listens.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.typedefs import Middleware
from helios_proto import addresses

from helios_server.rpc.http_connection import HttpConnection, Refuse, answering
from helios_server.rpc.listening import listen

logger = logging.getLogger(__name__)

_IDLE_SECONDS = 10.0
_MOST_BYTES = 1 << 20
_LAST_ANSWER_SECONDS = 1.0
"""For an answer that is under way at the end."""
PLAIN = "text/plain; charset=utf-8"


@dataclass(frozen=True)
class Answer:
    status: HTTPStatus
    body: bytes
    content_type: str = PLAIN


Page = Callable[[], Awaitable[Answer]]


def in_plain_words(status: HTTPStatus, why: str) -> web.Response:
    return _response(Answer(status, f"{why}\n".encode("utf-8", "backslashreplace")))


class HttpServer:
    """Answers `pages`, a page by its path, to GET and HEAD.

    middlewares: of a door that answers for itself; refuse: how it answers what no route or middleware sees;
    idle_seconds: for a connection that sends no request; most_bytes: of a request's body. A request whose
    client goes away is cancelled.
    """

    def __init__(
        self,
        pages: Mapping[str, Page],
        *middlewares: Middleware,
        refuse: Refuse = in_plain_words,
        idle_seconds: float = _IDLE_SECONDS,
        most_bytes: int = _MOST_BYTES,
    ) -> None:
        self._refuse = refuse
        self._idle_seconds = idle_seconds
        self.application = web.Application(
            middlewares=[_in_our_words, *middlewares], client_max_size=most_bytes
        )
        self.application.add_routes([web.get(path, _handler(page)) for path, page in pages.items()])
        self._runner: web.AppRunner | None = None
        self._listeners: list[asyncio.Server] = []

    async def listen(self, host: str, port: int, tls: ssl.SSLContext | None = None) -> int:
        """Returns the port bound. OSError when it cannot be. tls: None for clear text."""
        sockets = listen(host, port)
        self._runner = web.AppRunner(
            self.application, shutdown_timeout=_LAST_ANSWER_SECONDS, handler_cancellation=True
        )
        await self._runner.setup()
        loop, server = asyncio.get_running_loop(), self._runner.server
        assert server is not None
        server.request_handler = answering(server.request_handler, self._refuse)

        def connection() -> HttpConnection:
            options = {"loop": loop, "logger": logger, "keepalive_timeout": self._idle_seconds}
            return HttpConnection(self._refuse, server, access_log=None, **options)

        for each in sockets:
            listener = await loop.create_server(connection, sock=each, ssl=tls, backlog=addresses.BACKLOG)
            self._listeners.append(listener)
        return addresses.port_of(sockets)

    @property
    def connections(self) -> int:
        """Those that stand."""
        return len(self._runner.server.connections) if self._runner and self._runner.server else 0

    async def close(self) -> None:
        """Takes no more connections; an answer under way goes out."""
        for listener in self._listeners:
            listener.close()
        if self._runner:
            await self._runner.cleanup()


def _may_be_said(record: logging.LogRecord) -> bool:
    """aiohttp quotes what it cannot read, secrets included; its sender has been told."""
    unreadable = (HttpProcessingError, web.RequestPayloadError)
    return not (record.exc_info and isinstance(record.exc_info[1], unreadable))


logger.addFilter(_may_be_said)


def _handler(page: Page) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def handle(_: web.Request) -> web.Response:
        return _response(await page())

    return handle


@web.middleware
async def _in_our_words(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """What is not served is said with what is."""
    try:
        return await handler(request)
    except web.HTTPMethodNotAllowed as error:
        methods = sorted(error.allowed_methods)
        response = _response(
            Answer(HTTPStatus.METHOD_NOT_ALLOWED, f"only {' and '.join(methods)}\n".encode())
        )
        response.headers["Allow"] = ", ".join(methods)
        return response
    except web.HTTPNotFound:
        resources = request.app.router.resources()
        known = ", ".join(sorted(resource.canonical for resource in resources))
        return _response(Answer(HTTPStatus.NOT_FOUND, f"no such page; there are {known}\n".encode()))


def _response(answer: Answer) -> web.Response:
    headers = {"Content-Type": answer.content_type}
    response = web.Response(status=answer.status, body=answer.body, headers=headers)
    response.force_close()
    return response
