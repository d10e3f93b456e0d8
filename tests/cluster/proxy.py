"""A proxy before the API server that can be down, refuse, forget, fall silent, or end whoever wrote.

The operator under test speaks to it in clear text; it passes requests on with the operator's own token, so
that rights hold as without it. It notes which rights were used, and which were missing.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import yaml
from aiohttp import web

from tests.cluster.rights import Right, needed

_EXPIRED = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 410, "reason": "Expired"}
_TIMEOUT: dict[str, Any] = {"kind": "Status", "code": 504, "reason": "Timeout", "message": "it took too long"}
_WRITES = ("POST", "PATCH", "PUT", "DELETE")
_FORBIDDEN = 403
_GOING = b"because it is being terminated"
T = TypeVar("T")
_HOP = ("host", "content-length", "transfer-encoding", "connection", "content-encoding")


@dataclass
class Record:
    """Of the rights that calls needed: those that the server granted, and those that it did not."""

    used: set[Right] = field(default_factory=set)
    missing: set[Right] = field(default_factory=set)

    def save(self, path: Path) -> None:
        path.write_text(json.dumps({"used": sorted(self.used), "missing": sorted(self.missing)}))

    def add(self, path: Path) -> None:
        """What another process saved there."""
        saved = json.loads(path.read_text())
        self.used.update(Right(*right) for right in saved["used"])
        self.missing.update(Right(*right) for right in saved["missing"])


@dataclass(eq=False)
class Watch:
    """One that stands. `expired`: it is told that its version is too old; `silent`: it is told nothing."""

    expired: asyncio.Event = field(default_factory=asyncio.Event)
    silent: bool = False


class Proxy:
    """`after_write` is called with (method, path) when the server has carried a write out, before its answer
    is passed on; with `loses`, it is answered as if it had taken too long. `answer` may return a status and a
    document instead of asking the server. `writes`: what was carried out so far; `unanswered`: what the
    server itself took too long over, on a machine with much else to do, and may have carried out."""

    def __init__(self, kubeconfig: Path, record: Record) -> None:
        self._server, self._tls = _server(kubeconfig)
        self._record = record
        self.down = False
        self.writes: list[tuple[str, str]] = []
        self.unanswered: list[tuple[str, str]] = []
        self.after_write: Callable[[str, str], Any] = lambda method, path: None
        self.loses: Callable[[str, str], bool] = lambda method, path: False
        self.answer: Callable[[str, str], tuple[int, dict[str, Any]] | None] = lambda method, path: None
        self._runner: web.AppRunner | None = None
        self._session: aiohttp.ClientSession | None = None
        self._watches: set[Watch] = set()

    async def __aenter__(self) -> Proxy:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=self._tls, limit=0), read_bufsize=2**22
        )
        app = web.Application(client_max_size=2**24)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.expire_watches()
        if self._runner:
            await self._runner.cleanup()
        if self._session:
            await self._session.close()

    @property
    def address(self) -> str:
        assert self._runner is not None
        return f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    def expire_watches(self) -> None:
        """Every watch that stands is told that its version is too old (410)."""
        for watch in self._watches:
            watch.expired.set()

    def silence_watches(self) -> None:
        """Every watch that stands now stays open, and is never told anything again."""
        for watch in self._watches:
            watch.silent = True

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        path = request.path
        if self.down:
            if request.transport:
                request.transport.abort()
            raise web.HTTPServiceUnavailable
        if (instead := self.answer(request.method, path)) is not None:
            status, document = instead
            return web.json_response(document, status=status)
        headers = {k: v for k, v in request.headers.items() if k.lower() not in _HOP}
        assert self._session is not None
        async with self._session.request(
            request.method,
            f"{self._server}{request.path_qs}",
            headers=headers,
            data=await request.read() or None,
            timeout=aiohttp.ClientTimeout(total=None),
        ) as answer:
            is_watch = bool(request.query.get("watch"))
            rights = needed(request.method, path, watch=is_watch, status=answer.status)
            if is_watch:
                self._note(rights, answer.status)
                return await self._watch(request, answer)
            body = await answer.read()
            self._note(rights, answer.status, body)
            if request.method in _WRITES and answer.status < 300:
                self.writes.append((request.method, path))
                self.after_write(request.method, path)
                if self.loses(request.method, path):
                    return web.json_response(_TIMEOUT, status=_TIMEOUT["code"])
            if request.method in _WRITES and answer.status >= 500:
                self.unanswered.append((request.method, path))
            kept = {k: v for k, v in answer.headers.items() if k.lower() not in _HOP}
            return web.Response(status=answer.status, body=body, headers=kept)

    def _note(self, rights: set[Right], status: int, said: bytes = b"") -> None:
        """A namespace that is going takes nothing new, whoever asks."""
        is_refused = status == _FORBIDDEN and _GOING not in said
        (self._record.missing if is_refused else self._record.used).update(rights)

    async def _watch(self, request: web.Request, answer: aiohttp.ClientResponse) -> web.StreamResponse:
        stream = web.StreamResponse(status=answer.status, headers={"Content-Type": "application/json"})
        await stream.prepare(request)
        watch = Watch()
        self._watches.add(watch)
        try:
            with contextlib.suppress(ConnectionError, aiohttp.ClientError):
                await self._pump(stream, answer, watch)
        finally:
            self._watches.discard(watch)
        return stream

    async def _pump(self, stream: web.StreamResponse, answer: aiohttp.ClientResponse, watch: Watch) -> None:
        async with _ending(watch.expired.wait()) as end:
            while not self.down:
                async with _ending(answer.content.readline()) as line:
                    while not line.done() and not end.done() and not self.down:
                        await asyncio.wait({line, end}, return_when=asyncio.FIRST_COMPLETED, timeout=1.0)
                    if end.done():
                        await stream.write(json.dumps({"type": "ERROR", "object": _EXPIRED}).encode() + b"\n")
                        return
                    if not line.done() or not line.result():
                        return
                    if not watch.silent:
                        await stream.write(line.result())


@contextlib.asynccontextmanager
async def _ending(work: Coroutine[Any, Any, T]) -> AsyncIterator[asyncio.Task[T]]:
    """A task that does not outlive its block, however that is left."""
    task = asyncio.create_task(work)
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _server(kubeconfig: Path) -> tuple[str, ssl.SSLContext]:
    """Address and trust; the identity is the operator's own."""
    cluster = yaml.safe_load(kubeconfig.read_text())["clusters"][0]["cluster"]
    tls = ssl.create_default_context(cafile=cluster.get("certificate-authority"))
    if data := cluster.get("certificate-authority-data"):
        tls.load_verify_locations(cadata=base64.b64decode(data).decode())
    return str(cluster["server"]), tls
