"""One HTTP connection: aiohttp's own, but that what it turns away by itself has its door's words.

Made by `http` for each connection. No route and no middleware sees what cannot be read as a request, a body
that breaks off, an expectation that nobody meets. It must not know what is served.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong
from aiohttp.web_protocol import _ErrInfo

Handle = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
Refuse = Callable[[HTTPStatus, str], web.Response]
"""An answer of this status that says why."""

LINGER_SECONDS = 2.0
"""For a client to read the answer to what it still sends: a connection that is closed at once is reset."""
_WHY_CHARACTERS = 200
_OURS = "the server failed; its log has the trace"


class HttpConnection(web.RequestHandler):
    """server: whose handler answers requests; options: as aiohttp's."""

    __slots__ = ("_refuse", "_unreadable")

    def __init__(self, refuse: Refuse, server: web.Server, **options: Any) -> None:
        super().__init__(server, **options)
        self._refuse = refuse
        self._unreadable = False

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        broken = self._messages[-1][0] if self._messages else None
        if isinstance(broken, _ErrInfo):
            self._end_bodies(web.RequestPayloadError(_why(broken.exc, broken.message)))

    def _end_bodies(self, error: Exception) -> None:
        """What follows is no HTTP: whoever reads a body would wait for the rest of it."""
        bodies = [payload for _, payload in self._messages]
        if self._current_request:
            bodies.append(self._current_request.content)
        for body in bodies:
            if not body.is_eof():
                body.set_exception(error)
                self._take_no_more()

    def _take_no_more(self) -> None:
        """The answer under way is the last one; what comes meanwhile is dropped."""
        self._unreadable = True
        self.close()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        super().handle_error(request, status, exc, message)  # the log; it raises where an answer has begun
        response = self._refuse(HTTPStatus(status), _OURS if status >= 500 else _why(exc, message))
        response.force_close()
        self._take_no_more()
        return response

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        finished = await super().finish_response(request, resp, start_time)
        if self._unreadable and self.transport and self.transport.can_write_eof():
            self.transport.write_eof()
            await asyncio.sleep(LINGER_SECONDS)  # cancelled when the client has gone
        return finished


def answering(handle: Handle, refuse: Refuse) -> Handle:
    """`handle`, and an answer to what is refused before it comes to a middleware."""

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        try:
            return await handle(request)
        except web.HTTPException as error:
            return refuse(HTTPStatus(error.status), error.text or error.reason)

    return answer


def _why(error: BaseException | None, message: str | None) -> str:
    """In a line: what is behind an empty one quotes the client at length."""
    if isinstance(error, LineTooLong):
        return f"the request line, or a header, has more than {error.args[1]} bytes"
    said = message or (error.message if isinstance(error, HttpProcessingError) else "")
    return " ".join(said.partition("\n\n")[0].split()).rstrip(":.")[:_WHY_CHARACTERS] or "Bad Request"
