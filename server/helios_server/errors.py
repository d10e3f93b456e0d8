"""The root of every error that the server raises on purpose.

Each error names the field (or file) at fault, what is wrong with it and what to do about it, so that a user who sees
only the message can act. Raised everywhere; caught by the doors (`rpc/`, the command), which show it without a trace.
"""

from __future__ import annotations

from typing import ClassVar


class HeliosError(Exception):
    """Something the user can put right.

    field: the option, object field or file at fault. problem: what is wrong. fix: what to do. code: the gRPC status.
    """

    code: ClassVar[str] = "FAILED_PRECONDITION"

    def __init__(self, field: str, problem: str, fix: str) -> None:
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
