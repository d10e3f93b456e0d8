"""The HTTP side: /healthz and /readyz for probes, /metrics for Prometheus. GET and HEAD only, one answer a
connection.

Started by `rpc.server`; what a path answers comes from outside, so that it holds no truth of its own.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus

logger = logging.getLogger(__name__)

_PATIENCE_SECONDS = 10.0
_LARGEST_HEAD_BYTES = 16 * 1024
PLAIN = "text/plain; charset=utf-8"


@dataclass(frozen=True)
class Answer:
    status: HTTPStatus
    body: bytes
    content_type: str = PLAIN


Page = Callable[[], Awaitable[Answer]]


class HttpServer:
    """Answers `pages`, a page by its path."""

    def __init__(self, pages: Mapping[str, Page]) -> None:
        self._pages = pages
        self._server: asyncio.Server | None = None

    async def listen(self, host: str, port: int) -> int:
        """Returns the port bound. OSError when it cannot be."""
        self._server = await asyncio.start_server(self._serve, host, port, limit=_LARGEST_HEAD_BYTES)
        return int(self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        if self._server:
            self._server.close()
            await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
                method, answer = await self._answer(head)
                writer.write(_encode(answer, with_body=method != "HEAD"))
                await writer.drain()
        except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            logger.debug("an HTTP client went away, or sent no request")
        finally:
            writer.close()

    async def _answer(self, head: bytes) -> tuple[str, Answer]:
        words = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/"):
            return "", Answer(HTTPStatus.BAD_REQUEST, b"not an HTTP request\n")
        method, path = words[0], words[1].partition("?")[0]
        page = self._pages.get(path)
        if page is None:
            known = ", ".join(sorted(self._pages))
            return method, Answer(HTTPStatus.NOT_FOUND, f"no such page; there are {known}\n".encode())
        if method not in ("GET", "HEAD"):
            return method, Answer(HTTPStatus.METHOD_NOT_ALLOWED, b"only GET and HEAD\n")
        return method, await page()


def _encode(answer: Answer, with_body: bool) -> bytes:
    head = (
        f"HTTP/1.1 {answer.status.value} {answer.status.phrase}\r\n"
        f"Content-Type: {answer.content_type}\r\n"
        f"Content-Length: {len(answer.body)}\r\n"
        "Connection: close\r\n\r\n"
    )
    return head.encode("latin-1") + (answer.body if with_body else b"")
