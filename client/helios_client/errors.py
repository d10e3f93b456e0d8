"""What goes wrong with a call, as exceptions that say what to do.

Raised by both clients; `of` makes one of what gRPC raises.

    HeliosError
    ├── InvalidArgument     a field of the request; it names which
    ├── NotFound            the model that was asked for
    ├── Unauthenticated     no token, or one that nobody has
    ├── ResourceExhausted   a full queue (`retry_after`), an answer that is not read, a message too large
    ├── Unavailable         nobody there, or every pod drains or loads; retried already
    ├── DeadlineExceeded    the timeout was the caller's
    ├── Cancelled           so was the end
    └── Internal            the server's fault; whatever has no other name
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import grpc

from helios_client import status_details

_SAID = re.compile(r"(\S+): (.+); (.+)", re.DOTALL)
"""Of the server: field, problem, fix. What gRPC itself says has words before its first colon."""
_NOBODY = "check that a deployment serves there, and that both sides speak TLS or neither does"
_OWN_WORDS = {
    "DEADLINE_EXCEEDED": ("timeout", "the answer did not end in time", "give more, or ask for fewer tokens"),
    "CANCELLED": ("call", "was cancelled", "ask again"),
}


class HeliosError(Exception):
    """field: what is at fault. problem: what is wrong with it. fix: what to do. code: the gRPC status; of
    what was not even sent, INVALID_ARGUMENT.

    metadata: what the server says of itself and of the tokens before (`helios-*` of the trailing metadata).
    """

    def __init__(
        self,
        field: str,
        problem: str,
        fix: str,
        code: str = "INVALID_ARGUMENT",
        metadata: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        super().__init__(f"{field}: {problem}; {fix}")
        self.field = field
        self.problem = problem
        self.fix = fix
        self.code = code
        self.metadata = metadata


class InvalidArgument(HeliosError):
    """The request asks for what no request may ask, or cannot be sent; nothing was done."""


class NotFound(HeliosError):
    """Another model is served here."""


class Unauthenticated(HeliosError):
    """The caller's token is missing, or nobody's."""


class ResourceExhausted(HeliosError):
    """No room. The client has waited already, as long as its `patience` lasts."""

    retry_after: float | None = None
    """Seconds after which a place in the queue is likely to be free; None where waiting does not help."""


class Unavailable(HeliosError):
    """Nobody answers, or whoever does takes no more requests, after all retries; or a stream broke off."""


class DeadlineExceeded(HeliosError):
    """`timeout` has passed. The server has freed the request's row."""


class Cancelled(HeliosError):
    """The call was cancelled, by another thread or by the server's end."""


class Internal(HeliosError):
    """The server failed with this request, or says something that this client does not know."""


_KINDS: dict[str, type[HeliosError]] = {
    "INVALID_ARGUMENT": InvalidArgument,
    "NOT_FOUND": NotFound,
    "UNAUTHENTICATED": Unauthenticated,
    "PERMISSION_DENIED": Unauthenticated,
    "RESOURCE_EXHAUSTED": ResourceExhausted,
    "UNAVAILABLE": Unavailable,
    "DEADLINE_EXCEEDED": DeadlineExceeded,
    "CANCELLED": Cancelled,
}


def cancelled() -> HeliosError:
    """Of a stream that is read when it has been closed."""
    return Cancelled(*_OWN_WORDS["CANCELLED"], code="CANCELLED")


def of(error: Any, address: str) -> HeliosError:
    """error: what gRPC raised, a `grpc.RpcError` that has ended."""
    code, words = error.code().name, error.details() or ""
    trailing = {key: value for key, value in error.trailing_metadata() or ()}
    metadata = {key: value for key, value in trailing.items() if key.startswith("helios-")}
    kind = _KINDS.get(code, Internal)
    field, problem, fix = _words(code, words, address)
    retry_after = status_details.retry_after(trailing.get(status_details.KEY, b""))
    if retry_after is not None:
        fix = f"{fix}, in {retry_after:.3g} seconds"
    made = kind(field, problem, fix, code, metadata)
    if isinstance(made, ResourceExhausted):
        made.retry_after = retry_after
    return made


def _words(code: str, words: str, address: str) -> tuple[str, str, str]:
    """Field, problem and fix: the server's, or ours for what gRPC says by itself."""
    if said := _SAID.fullmatch(words):
        return said[1], said[2], said[3]
    if code in _OWN_WORDS:
        return _OWN_WORDS[code]
    if code == grpc.StatusCode.UNAVAILABLE.name:
        return address, f"does not answer ({words})", _NOBODY
    if code == grpc.StatusCode.RESOURCE_EXHAUSTED.name:
        return "message", words, "send less, or ask for less"
    problem, _, fix = words.partition("; ")
    return "call", f"{code} {problem}".strip(), fix or "see the server's log"
