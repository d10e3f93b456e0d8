"""Objects read one by one: what cannot be read is left out and named, and ends nobody's pass.

Used by every runtime's `observe` for the objects that many deployments share: rows, the catalogue, Jobs. An
object is read again when it has changed, not in every pass.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Container, Hashable, Iterable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from helios_operator.api import parse
from helios_operator.api.conditions import ConditionType
from helios_operator.api.models import Model
from helios_operator.api.rows import Row
from helios_operator.api.types import Deployment, DeploymentStatus
from helios_operator.decide.plan import Plan
from helios_operator.decide.snapshot import Snapshot
from helios_operator.errors import StateError

T = TypeVar("T")
Json = dict[str, Any]
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Unread:
    """`kind` and `name`, as one looks them up; `problem`: path and value, and what was expected."""

    kind: str
    name: str
    problem: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name}: {self.problem}"


@dataclass(frozen=True)
class Source:
    """An object that may be read. `version`: another one when it has changed."""

    kind: str
    name: str
    key: Hashable
    version: str | int
    get: Callable[[], Json]


@dataclass(frozen=True)
class Sight:
    """What a pass sees, and what it could not read."""

    snapshot: Snapshot
    unread: tuple[Unread, ...] = ()


class Reader:
    """Keeps what it read of an object while its version stays."""

    def __init__(self) -> None:
        self._known: dict[Hashable, tuple[str | int, Any]] = {}

    def rows(self, sources: Iterable[Source]) -> tuple[list[Row], list[Unread]]:
        return _sorted([self.read(source, parse.profile_row) for source in sources])

    def models(self, sources: Iterable[Source]) -> tuple[list[Model], list[Unread]]:
        """One of which only the status cannot be read is a candidate all the same; its status is left as it
        is, for whoever understands it."""
        models: list[Model] = []
        unread: list[Unread] = []
        for source in sources:
            found = self.read(source, parse.model)
            if isinstance(found, Unread):
                unread.append(found)
                bare = replace(source, key=(source.key, "spec"))
                found = self.read(bare, lambda obj: parse.model({**obj, "status": {}}))
            if isinstance(found, Model):
                models.append(found)
        return models, unread

    def read(self, source: Source, read: Callable[[Json], T]) -> T | Unread:
        """`read` gives what it is of an object, or raises whatever is wrong with it."""
        known = self._known.get(source.key)
        if known is None or known[0] != source.version:
            known = self._known[source.key] = (source.version, _read(source, read))
        return known[1]  # type: ignore[no-any-return]

    def keep_only(self, keys: Container[Hashable]) -> None:
        """Forgets the objects that are gone."""
        self._known = {key: value for key, value in self._known.items() if _object(key) in keys}


def not_served(hd: Deployment, models: Iterable[Model], unread: Iterable[Unread]) -> None:
    """StateError when an entry of the catalogue is left out that serves: without it, what serves would seem
    to be no candidate any more."""
    known = {model.name for model in models}
    served = {served.candidate for served in (hd.status.active, hd.status.target) if served}
    for lost in unread:
        if hd.spec.candidate_selector and lost.name in served - known:
            fix = "it serves now: correct it; until then nothing is decided"
            raise StateError(f"{lost.kind} {lost.name}", lost.problem, fix)


def named(plan: Plan, sight: Sight) -> Plan:
    """The plan, which says in the Profiled condition what was left out, and writes no status over one that
    could not be read."""
    if not sight.unread:
        return plan
    lost = {unread.name for unread in sight.unread}
    models = tuple(model for model in plan.models if model.name not in lost)
    return replace(plan, models=models, status=_named(plan.status, sight.unread))


def _named(status: DeploymentStatus, unread: tuple[Unread, ...]) -> DeploymentStatus:
    said = "left out: " + ", ".join(map(str, unread))
    conditions = tuple(
        replace(c, message=f"{c.message}; {said}") if c.type == ConditionType.PROFILED else c
        for c in status.conditions
    )
    return replace(status, conditions=conditions)


def _sorted(found: list[T | Unread]) -> tuple[list[T], list[Unread]]:
    read = [each for each in found if not isinstance(each, Unread)]
    return read, [each for each in found if isinstance(each, Unread)]


def _read(source: Source, read: Callable[[Json], T]) -> T | Unread:
    try:
        return read(source.get())
    except Exception as error:  # whatever another release, or a hand, put there
        unread = Unread(source.kind, source.name, str(error))
        _log.warning("left out: %s", unread)
        return unread


def _object(key: Hashable) -> Hashable:
    """Of a part of it, such as a model's spec."""
    return key[0] if isinstance(key, tuple) and key[-1:] == ("spec",) else key
