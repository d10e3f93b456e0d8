"""Where a call belongs in a trace: an interceptor for gRPC, a middleware for HTTP.

Installed by `rpc.server` and by the HTTP door where spans are asked for (`telemetry.tracing`), and nowhere
else. It must not read a message or a body, nor refuse a call.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import grpc
from aiohttp import web
from aiohttp.typedefs import Middleware

from helios_server.rpc.calls import Continuation, Handler
from helios_server.telemetry.tracing import Tracing


class AcceptTrace(grpc.aio.ServerInterceptor):
    """Hears `traceparent` and its kin in a call's metadata."""

    def __init__(self, tracing: Tracing) -> None:
        self._tracing = tracing

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Handler | None:
        metadata = handler_call_details.invocation_metadata or ()
        self._tracing.accept({name: value for name, value in metadata if isinstance(value, str)})
        return await continuation(handler_call_details)


def accept_trace(tracing: Tracing) -> Middleware:
    """The same of a request's headers."""

    @web.middleware
    async def accept(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        tracing.accept({name.lower(): value for name, value in request.headers.items()})
        return await handler(request)

    return accept
