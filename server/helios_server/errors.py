"""The root of every error that the server raises on purpose.

Each error names the field (or file) at fault, what is wrong with it and what to do about it, so that a
user who sees only the message can act. Raised everywhere; caught by the doors (`rpc/`, the command),
which show it without a trace.
"""

from __future__ import annotations

from typing import ClassVar


class HeliosError(Exception):
    """Something the user can put right, in one line.

    field: the option, object field or file at fault. problem: what is wrong. fix: what to do. code: the
    gRPC status.
    """

    code: ClassVar[str] = "FAILED_PRECONDITION"

    def __init__(self, field: str, problem: str, fix: str) -> None:
        field, problem, fix = (" ".join(part.splitlines()) for part in (field, problem, fix))
        super().__init__(f"{field}: {problem}; {fix}")
        self.field = field
        self.problem = problem
        self.fix = fix


class UnsupportedModelError(HeliosError):
    """The checkpoint's architecture, or one of its options, is not one that the decoder block covers."""


class CheckpointError(HeliosError):
    """A checkpoint directory is missing, incomplete or damaged."""


class ModelNotFoundError(HeliosError):
    """A model's URI cannot be resolved to a directory on this machine."""


class BundleError(HeliosError):
    """An exit-head bundle is missing, damaged or belongs to another backbone."""


class DataError(HeliosError):
    """Text for training or measuring cannot be fetched or read."""


class InvalidRequest(HeliosError):
    """A request asks for what no request may ask: a value out of range, a prompt that fits nowhere."""

    code = "INVALID_ARGUMENT"


class NotFound(HeliosError):
    """The model or the request that was named is not here."""

    code = "NOT_FOUND"


class QueueFull(HeliosError):
    """As many requests wait as the limits allow. retry_seconds: when a place is likely to be free."""

    code = "RESOURCE_EXHAUSTED"

    def __init__(self, field: str, problem: str, fix: str, retry_seconds: float) -> None:
        super().__init__(field, problem, fix)
        self.retry_seconds = retry_seconds


class SlowReader(HeliosError):
    """A client does not read what it asked for; its request has ended."""

    code = "RESOURCE_EXHAUSTED"


class Draining(HeliosError):
    """The server accepts no more requests; another one will."""

    code = "UNAVAILABLE"


class RequestFailed(HeliosError):
    """One request met an error that is not its caller's. It ends; all others go on."""

    code = "INTERNAL"

    @classmethod
    def of(cls, error: BaseException) -> RequestFailed:
        """The same error if it is one already; any other becomes its cause."""
        if isinstance(error, cls):
            return error
        failed = cls("request", f"{type(error).__name__}: {error}", "Report this, with the server's log")
        failed.__cause__ = error
        return failed


class EngineFailed(HeliosError):
    """The engine met an error that is nobody's input and stopped."""

    code = "INTERNAL"

    @classmethod
    def of(cls, error: BaseException) -> EngineFailed:
        """In the words of what it met."""
        return cls("engine", f"{type(error).__name__}: {error}", "Restart the server; report this")


class LimitsRefused(HeliosError):
    """A change of limits cannot be made; nothing was changed."""

    code = "FAILED_PRECONDITION"


class StaleGeneration(HeliosError):
    """A change of limits was decided on limits that no longer hold."""

    code = "ABORTED"


class OutOfMemoryBudget(HeliosError):
    """The memory given does not hold what is asked. The problem names the bytes needed and the limit."""

    code = "RESOURCE_EXHAUSTED"
