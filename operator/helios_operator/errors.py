"""What the operator raises on purpose, apart from an object that breaks a rule (`api.validation.Invalid`).

Raised by `local/` and `control/`; shown by the command as one line. The shape is the server's: a field (or
file, or option), what is wrong with it, and what to do.
"""

from __future__ import annotations


class OperatorError(Exception):
    """Something the user can put right. Its text is "field: problem; fix"."""

    def __init__(self, field: str, problem: str, fix: str) -> None:
        super().__init__(f"{field}: {problem}; {fix}")
        self.field = field
        self.problem = problem
        self.fix = fix


class StateError(OperatorError):
    """The state folder cannot be read, written or trusted."""


class StateLockedError(OperatorError):
    """Another `helios up` holds the state folder."""


class AddressInUseError(OperatorError):
    """The front address cannot be bound."""


class ObjectNotFoundError(OperatorError):
    """No object of that kind and name."""


class NotRunningError(OperatorError):
    """The verb needs a running `helios up`, and there is none."""


class ControlError(OperatorError):
    """A pod did not do what its Control port was asked. `refused`: it answered, and changed nothing."""

    def __init__(self, field: str, problem: str, fix: str, *, refused: bool = False) -> None:
        super().__init__(field, problem, fix)
        self.refused = refused


class ResultError(OperatorError):
    """A profiling Job's result document is missing or not of the known shape."""


class UnsupportedError(OperatorError):
    """The object asks for what this version cannot do; doing without it in silence would be worse."""


class KubeconfigError(OperatorError):
    """There is no kubeconfig, or it names no cluster that can be spoken to."""


class ClusterError(OperatorError):
    """The API server refused or did not answer. `status`: HTTP's code, 0 without an answer; `reason`: the
    server's word, as in AlreadyExists."""

    def __init__(self, field: str, problem: str, status: int, reason: str) -> None:
        super().__init__(field, problem, "it is tried again")
        self.status = status
        self.reason = reason


class NameTakenError(ClusterError):
    """A name that HELIOS derives is another's object: it is left alone."""

    def __init__(self, field: str, problem: str, fix: str) -> None:
        super().__init__(field, problem, 409, "NameTaken")
        self.args = (f"{field}: {problem}; {fix}",)
        self.fix = fix


class NotFoundError(ClusterError):
    """There is no such object (any more)."""


class ConflictError(ClusterError):
    """Someone changed the object meanwhile, or created it first (reason AlreadyExists)."""


def problem_of(error: Exception) -> str:
    """In a line: what was raised on purpose has its own words, a fault of ours is named as what it is."""
    return str(error) if isinstance(error, OperatorError) else f"{type(error).__name__}: {error}"
