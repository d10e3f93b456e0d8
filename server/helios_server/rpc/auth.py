"""The Control port's bearer token, from a file that may be replaced while the pod runs.

Installed by `rpc.server` on the Control port. Health checks need no token: probes have none. What bearers
have in common, the doors for applications use too (`admission.py`).
"""

from __future__ import annotations

import contextlib
import hmac
from pathlib import Path
from typing import Any

import grpc

from helios_server.errors import InvalidRequest
from helios_server.rpc.calls import Context, Continuation, Handler
from helios_server.rpc.errors import PermissionDenied, Unauthenticated, refuse

_PROTECTED = "/helios.v1.Control/"


class Token:
    """The token in a file. InvalidRequest when there is none at the start."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known = b""
        try:
            self._known = self._read()
        except OSError as error:
            problem = f"{path} cannot be read ({error.strerror})"
            raise InvalidRequest("control-token-file", problem, "Give a file that holds the token") from None
        if not self._known:
            raise InvalidRequest("control-token-file", f"{path} is empty", "Write the token into it")

    def matches(self, offered: str) -> bool:
        """Compared in constant time with what the file holds now; a file that vanished leaves the last
        token."""
        with contextlib.suppress(OSError):
            self._known = self._read() or self._known
        return hmac.compare_digest(self._known, offered.encode())

    def _read(self) -> bytes:
        return self._path.read_bytes().strip()


class RequireToken(grpc.aio.ServerInterceptor):
    """Refuses Control calls without the token: UNAUTHENTICATED without one, PERMISSION_DENIED with
    another."""

    def __init__(self, token: Token) -> None:
        self._token = token

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Handler | None:
        handler = await continuation(handler_call_details)
        if handler is None or not handler_call_details.method.startswith(_PROTECTED):
            return handler
        offered = bearer(authorization(handler_call_details))
        if not offered:
            fix = "Send it as 'authorization: Bearer TOKEN'"
            return refusal(handler, Unauthenticated("authorization", "no bearer token", fix))
        if not self._token.matches(offered):
            fix = "Use the token of this pod's Secret"
            return refusal(handler, PermissionDenied("authorization", "not this pod's token", fix))
        return handler


def authorization(call: grpc.HandlerCallDetails) -> str:
    """The metadata of that name; "" without."""
    return str(dict(call.invocation_metadata or ()).get("authorization", ""))


def bearer(authorization: str) -> str:
    """The token in a header's value; "" when it holds none."""
    scheme, _, offered = authorization.partition(" ")
    return offered.strip() if scheme.lower() == "bearer" else ""


def refusal(handler: Handler, error: Unauthenticated | PermissionDenied) -> Handler:
    """In place of a handler whose answer is of the same kind. Its request streams, so that gRPC reads no
    message of it."""

    async def call(messages: Any, context: Context) -> None:
        await refuse(context, error)

    return (
        grpc.stream_stream_rpc_method_handler(call)
        if handler.response_streaming
        else grpc.stream_unary_rpc_method_handler(call)
    )
