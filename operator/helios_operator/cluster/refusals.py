"""What the API server, or whoever guards it, would not take of a HeliosDeployment's objects: kept in its own
words for the condition, and tried again with patience.

Used by `surroundings` and `apply` around every write that others do not depend on, and by `shortfalls`; told
by `status`. What is remembered here spares calls: a new operator finds out again.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from helios_operator.api.conditions import ConditionType
from helios_operator.api.problems import Invalid
from helios_operator.api.reasons import Reason
from helios_operator.api.types import Deployment
from helios_operator.cluster.events import WARNING, Events
from helios_operator.decide.plan import Action
from helios_operator.errors import ClusterError, NameTakenError, UnsupportedError

_PATIENCE_SECONDS = (1.0, 2.0, 5.0, 10.0, 30.0)
_ELSEWHERE = (0, 401, 404, 409, 429, 503, 504)
"""Statuses that say nothing of the object: unreachable, unknown, gone, changed meanwhile, overloaded."""
_UNPROCESSABLE = (400, 422)
"""Of a manifest that is wrong, unless a webhook answers so: the user's template made it so."""
_WEBHOOK = "admission webhook"


@dataclass(frozen=True)
class Refusal:
    """`concerns`: the condition that waits for it, beside Ready."""

    reason: Reason
    message: str
    concerns: ConditionType | None = None


@dataclass
class Known:
    """`until`: when it is tried again, on the monotonic clock; sooner where the spec is another."""

    refusal: Refusal
    generation: int
    tries: int
    until: float


class Refusals:
    def __init__(self, said: Events) -> None:
        self._events = said
        self._known: dict[str, dict[str, Known]] = {}
        self._met: dict[str, dict[str, Refusal]] = {}
        self._before: dict[str, dict[str, Refusal]] = {}
        """Those of the last pass."""

    def begin(self, hd: Deployment) -> None:
        """A pass: what it does not meet again is over."""
        met = self._before[hd.uid] = self._met.get(hd.uid, {})
        self._known[hd.uid] = {what: k for what, k in self._known.get(hd.uid, {}).items() if what in met}
        self._met[hd.uid] = {}

    async def attempt(
        self,
        hd: Deployment,
        what: str,
        write: Callable[[], Awaitable[Any]],
        concerns: ConditionType | None = None,
    ) -> bool:
        """False: it was refused, now or so shortly ago that it was not tried. What is nobody's refusal is
        raised."""
        known = self._known.get(hd.uid, {}).get(what)
        if known and known.generation == hd.generation and time.monotonic() < known.until:
            self._met.setdefault(hd.uid, {})[what] = known.refusal
            return False
        try:
            await write()
        except (ClusterError, Invalid, UnsupportedError) as error:
            refusal = _refusal(error, concerns)
            if refusal is None:
                raise
            self._keep(hd, what, refusal, known.tries + 1 if known else 1)
            await self.note(hd, what, refusal)
            return False
        self._known.get(hd.uid, {}).pop(what, None)
        return True

    async def note(self, hd: Deployment, what: str, refusal: Refusal) -> None:
        """One that was met by somebody else: a controller of the cluster. An event when it is new."""
        self._met.setdefault(hd.uid, {})[what] = refusal
        if self._before.get(hd.uid, {}).get(what) != refusal:
            await self._events.say(hd, WARNING, refusal.reason, refusal.message)

    def of(self, hd: Deployment) -> tuple[Refusal, ...]:
        """Of this pass so far, in the order in which they were met."""
        return tuple(self._met.get(hd.uid, {}).values())

    def any(self, hd: Deployment, *actions: type[Action]) -> bool:
        """Was one of these refused in this pass?"""
        names = [action.__name__ for action in actions]
        return any(what.split()[0] in names for what in self._met.get(hd.uid, {}))

    def forget(self, uid: str) -> None:
        self._known.pop(uid, None)
        self._met.pop(uid, None)
        self._before.pop(uid, None)

    def _keep(self, hd: Deployment, what: str, refusal: Refusal, tries: int) -> None:
        pause = _PATIENCE_SECONDS[min(tries, len(_PATIENCE_SECONDS)) - 1]
        known = Known(refusal, hd.generation, tries, time.monotonic() + pause)
        self._known.setdefault(hd.uid, {})[what] = known


def _refusal(error: Exception, concerns: ConditionType | None) -> Refusal | None:
    """None: it says nothing of this object."""
    if isinstance(error, NameTakenError):
        return Refusal(Reason.NAME_TAKEN, str(error), concerns)
    if isinstance(error, Invalid):
        return Refusal(Reason.INVALID_SPEC, "; ".join(map(str, error.problems)), concerns)
    if not isinstance(error, ClusterError):
        return Refusal(Reason.INVALID_SPEC, str(error), concerns)
    if error.status in _ELSEWHERE:
        return None
    wrong = error.status in _UNPROCESSABLE and _WEBHOOK not in error.problem
    return Refusal(Reason.INVALID_SPEC if wrong else Reason.WRITE_REFUSED, error.problem, concerns)
