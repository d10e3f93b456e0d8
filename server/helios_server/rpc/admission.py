"""Lets in whoever has a caller's token, before any work: an interceptor for gRPC, a middleware for HTTP.

Installed by `rpc.server` and by the HTTP door where callers are asked for tokens (`callers.py`). Health is
open to probes, and so are the files of the page, which hold nothing. It must not read a message or a body.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection

import grpc
from aiohttp import web
from aiohttp.typedefs import Middleware

from helios_server.rpc.auth import authorization, refusal
from helios_server.rpc.callers import ASK_AGAIN, CALLER, CallerTokens
from helios_server.rpc.calls import Continuation, Handler
from helios_server.rpc.errors import Unauthenticated
from helios_server.telemetry.metrics import Metrics

_OPEN = "/grpc.health.v1.Health/"


class RequireCaller(grpc.aio.ServerInterceptor):
    """UNAUTHENTICATED for whoever has no token that is known."""

    def __init__(self, callers: CallerTokens, metrics: Metrics) -> None:
        self._callers = callers
        self._metrics = metrics

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Handler | None:
        handler = await continuation(handler_call_details)
        if handler is None or handler_call_details.method.startswith(_OPEN):
            return handler
        offered = authorization(handler_call_details)
        try:
            CALLER.set(self._callers.authenticate(offered))
        except Unauthenticated as error:
            self._metrics.rejected(error.code)
            return refusal(handler, error)
        ASK_AGAIN.set(lambda: self._callers.authenticate(offered))
        return handler


def require_caller(callers: CallerTokens, metrics: Metrics, free: Collection[str]) -> Middleware:
    """Raises Unauthenticated for every path but the free ones."""

    @web.middleware
    async def admit(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        if request.path in free:
            return await handler(request)
        try:
            CALLER.set(callers.authenticate(request.headers.get("Authorization", "")))
        except Unauthenticated as error:
            metrics.rejected(error.code)
            raise
        return await handler(request)

    return admit
