"""The types of a gRPC call, for whoever serves or intercepts one; grpc's own leave them open.

Used by the services and the interceptors of `rpc`. It must know of no service.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import grpc

Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]
Behaviour: TypeAlias = Callable[[Any, Context], Awaitable[Any]]
"""A method of a service: it returns its answer, or writes answers to the context."""
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
"""A behaviour and how its messages are read and written."""
Continuation: TypeAlias = "Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]]"
"""What an interceptor asks for the handler of a call; None: no service has such a method."""


def kind(handler: Handler) -> str:
    """Which sides of it stream, in grpc's words: unary_stream, for example."""
    return f"{_word(handler.request_streaming)}_{_word(handler.response_streaming)}"


def _word(streaming: bool) -> str:
    return "stream" if streaming else "unary"
