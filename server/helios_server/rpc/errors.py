"""Errors as gRPC statuses: the one place where an exception becomes what a client sees.

Installed by `rpc.server` on both ports. A HeliosError becomes its own code with its own words; what is to be
tried again carries RetryInfo; anything else is our fault: INTERNAL, with the trace in the log. It must not
hide a cancellation.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, cast

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from helios_server.errors import HeliosError, InvalidRequest, QueueFull
from helios_server.rpc.calls import Behaviour, Context, Continuation, Handler, kind

logger = logging.getLogger(__name__)

_NOT_OURS = (grpc.aio.AbortError, asyncio.CancelledError, KeyboardInterrupt, SystemExit, GeneratorExit)
_DETAILS_KEY = "grpc-status-details-bin"
_RETRY_SECONDS = 1.0
"""Another pod answers at once; one that loads is asked again and again."""
_FIELD_BYTES, _PROBLEM_BYTES, _FIX_BYTES = 200, 800, 1500
"""Of an error on the wire. It may quote what was sent, gRPC allows 8 KiB of metadata in all, and whoever gets
more loses the status."""
_NOT_SERVED_BY_US = "/grpc."
"""Health and the like end their calls themselves."""


class NotReady(HeliosError):
    """The model is still loading."""

    code = "UNAVAILABLE"


class Unauthenticated(HeliosError):
    """The call carries no token, or nobody's."""

    code = "UNAUTHENTICATED"


class PermissionDenied(HeliosError):
    """The call carries another token."""

    code = "PERMISSION_DENIED"


class Late(HeliosError):
    """A message did not arrive in time."""

    code = "DEADLINE_EXCEEDED"


class AnswerErrors(grpc.aio.ServerInterceptor):
    """Wraps every method but gRPC's own, whichever side streams. Methods are coroutines that return, or write
    to the context; not generators."""

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Handler | None:
        handler = await continuation(handler_call_details)
        if handler is None or handler_call_details.method.startswith(_NOT_SERVED_BY_US):
            return handler
        which = kind(handler)
        guarded = _guarded(cast(Behaviour, getattr(handler, which)))  # grpc types them as those of threads
        make: Callable[..., Handler] = getattr(grpc, f"{which}_rpc_method_handler")
        return make(guarded, _readable(handler.request_deserializer), handler.response_serializer)


def _readable(read: Callable[[bytes], Any] | None) -> Callable[[bytes], Any] | None:
    """What cannot be read becomes the error to be raised: gRPC's own answer would be UNKNOWN, with a trace in
    the log for each."""
    if read is None:
        return None

    def tried(content: bytes) -> Any:
        try:
            return read(content)
        except DecodeError:
            problem = f"{len(content)} bytes are no message of this method"
            return InvalidRequest("message", problem, "Send one that its .proto describes")

    return tried


def _guarded(behaviour: Behaviour) -> Behaviour:
    """Of a method that takes a message, or an iterator of messages."""

    async def call(request: Any, context: Context) -> Any:
        try:
            if isinstance(request, InvalidRequest):
                raise request
            return await behaviour(request, context)
        except HeliosError as error:
            await refuse(context, error)
        except _NOT_OURS:
            raise
        except BaseException:  # a panic of the tokenizers library is no Exception
            logger.exception("a call failed")
            await context.abort(grpc.StatusCode.INTERNAL, "the server failed; its log has the trace")

    return call


async def refuse(context: Context, error: HeliosError) -> None:
    """Ends the call with the error's status; trailing metadata that was set stays."""
    trailing = tuple(context.trailing_metadata() or ())
    details = rich_status(error)
    if details is not None:
        trailing = (*trailing, (_DETAILS_KEY, details.SerializeToString()))
    try:
        await context.abort(grpc.StatusCode[error.code], in_short(error), trailing)
    except grpc.aio.InternalError:  # the client is gone: nobody is there to be told
        raise asyncio.CancelledError from None


def retry_seconds(error: HeliosError) -> float | None:
    """When to come back; None where that would not help."""
    if isinstance(error, QueueFull):
        return error.retry_seconds
    return _RETRY_SECONDS if error.code == "UNAVAILABLE" else None


def in_short(error: HeliosError) -> str:
    """Its words, but for what would make them too long for metadata."""
    field, problem = _begin(error.field, _FIELD_BYTES), _begin(error.problem, _PROBLEM_BYTES)
    return f"{field}: {problem}; {_begin(error.fix, _FIX_BYTES)}"


def _begin(text: str, most: int) -> str:
    """As much of it as takes `most` bytes where metadata is percent-encoded."""
    taken = 0
    for index, character in enumerate(text):
        plain = " " <= character <= "~" and character != "%"
        taken += 1 if plain else 3 * len(character.encode("utf-8", "surrogatepass"))
        if taken > most:
            return f"{text[:index]}..."
    return text


def rich_status(error: HeliosError) -> status_pb2.Status | None:
    """The google.rpc.Status of an error that says when to come back; None for any other."""
    seconds = retry_seconds(error)
    if seconds is None:
        return None
    delay = duration_pb2.Duration()
    delay.FromMilliseconds(round(seconds * 1000))
    detail = any_pb2.Any()
    detail.Pack(error_details_pb2.RetryInfo(retry_delay=delay))
    code = grpc.StatusCode[error.code].value[0]
    return status_pb2.Status(code=code, message=in_short(error), details=[detail])
