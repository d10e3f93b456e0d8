"""How the server says no: the Status document that stands in for an answer."""

from __future__ import annotations

from helios_operator.cluster.kinds import Kind, Object


class Refusal(Exception):
    """`code`: HTTP's; `reason`: the server's word; `message`: what a person reads."""

    def __init__(self, code: int, reason: str, message: str, retry_after: int = 0) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.retry_after = retry_after

    def document(self) -> Object:
        return {
            "kind": "Status",
            "apiVersion": "v1",
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "code": self.code,
        }


class NotFoundRefusal(Refusal):
    """There is no such object."""


def resource(kind: Kind) -> str:
    """As messages name it: `jobs.batch`."""
    return f"{kind.plural}.{kind.group}" if kind.group else kind.plural


def not_found(kind: Kind, name: str) -> Refusal:
    return NotFoundRefusal(404, "NotFound", f'{resource(kind)} "{name}" not found')


def already_exists(kind: Kind, name: str) -> Refusal:
    return Refusal(409, "AlreadyExists", f'{resource(kind)} "{name}" already exists')


def conflict(kind: Kind, name: str, why: str) -> Refusal:
    return Refusal(409, "Conflict", f'Operation cannot be fulfilled on {resource(kind)} "{name}": {why}')


def modified(kind: Kind, name: str) -> Refusal:
    why = "the object has been modified; please apply your changes to the latest version and try again"
    return conflict(kind, name, why)


def forbidden(kind: Kind, name: str, why: str) -> Refusal:
    return Refusal(403, "Forbidden", f'{resource(kind)} "{name}" is forbidden: {why}')


def invalid(kind: Kind, name: str, why: str) -> Refusal:
    return Refusal(422, "Invalid", f'{kind.name} "{name}" is invalid: {why}')
