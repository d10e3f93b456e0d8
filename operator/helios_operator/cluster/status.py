"""The status of a HeliosDeployment: written when it says something else, and not for every new figure.

Called by `apply` at the end of a pass, and by `passing` for an object about which nothing can be decided. It
composes nothing but what only the cluster knows: an address, and what was refused.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from helios_operator.api import serialize
from helios_operator.api.conditions import ConditionType
from helios_operator.api.event_reasons import EventReason
from helios_operator.api.reasons import Reason
from helios_operator.api.types import Condition, Deployment, DeploymentStatus
from helios_operator.cluster.events import WARNING, Events
from helios_operator.cluster.kinds import DEPLOYMENT, Object, version_of
from helios_operator.cluster.mirror import Mirror
from helios_operator.cluster.refusals import Refusal
from helios_operator.cluster.statuses import Statuses
from helios_operator.render import labels
from helios_operator.render.service import endpoint

_COSMETIC_SECONDS = 15.0
"""How long new figures in messages wait; a new fact is written at once."""
_COSMETIC = ("message", "tokensPerSecond", "qualityPercent")


class StatusWriter:
    def __init__(self, statuses: Statuses, mirror: Mirror, said: Events) -> None:
        self._statuses = statuses
        self._mirror = mirror
        self._events = said
        self._told: dict[str, tuple[str, ...]] = {}
        self._written: dict[str, float] = {}

    async def write(self, hd: Deployment, status: DeploymentStatus) -> bool:
        """False when there was nothing (yet) to write, or the server had nothing to change."""
        return await self.write_document(hd, serialize.status(status))

    async def write_document(self, hd: Deployment, document: Object) -> bool:
        """The same of a status that only some other release understands."""
        obj = self._mirror.get(DEPLOYMENT, hd.namespace, hd.name)
        if obj is None or not self._is_due(hd.uid, self._statuses.standing(obj), document):
            return False
        answer = await self._statuses.apply(DEPLOYMENT, hd.namespace, hd.name, document)
        self._mirror.put(DEPLOYMENT, answer)
        self._written[hd.uid] = time.monotonic()
        await self._tell_of_lost(hd)
        return version_of(answer) != version_of(obj)

    def forget(self, uid: str) -> None:
        self._written.pop(uid, None)
        self._told.pop(uid, None)
        self._statuses.forget(uid)

    async def _tell_of_lost(self, hd: Deployment) -> None:
        """Once."""
        lost = self._statuses.lost(DEPLOYMENT)
        if lost and self._told.get(hd.uid) != lost:
            self._told[hd.uid] = lost
            problem = f"the server does not keep {', '.join(lost)}; apply the CRDs of this release"
            await self._events.say(hd, WARNING, EventReason.CRDS_OUTDATED, problem)

    def _is_due(self, uid: str, before: Object, after: Object) -> bool:
        if before == after:
            return False
        waited = time.monotonic() - self._written.get(uid, float("-inf"))
        return waited >= _COSMETIC_SECONDS or _gist(before) != _gist(after)


def placed(hd: Deployment, status: DeploymentStatus) -> DeploymentStatus:
    """With what only a cluster knows: the address, and the selector that autoscalers count by."""
    selector = ",".join(f"{key}={value}" for key, value in labels.serving(hd.name).items())
    return replace(status, endpoint=endpoint(hd), selector=selector)


def unchanged(hd: Deployment, status: DeploymentStatus) -> DeploymentStatus:
    """With what is remembered of changes as it was before this pass."""
    before = hd.status
    return replace(
        status,
        active=before.active,
        target=before.target,
        reassessment=before.reassessment,
        rollout=before.rollout,
        history=before.history,
    )


def refused(
    hd: Deployment, status: DeploymentStatus, refusals: Sequence[Refusal], now: datetime
) -> DeploymentStatus:
    """With what the server would not take: it is not Ready, and what waits for it says so in those words."""
    if not refusals:
        return status
    reason = next((r.reason for r in refusals if r.reason is Reason.INVALID_SPEC), refusals[0].reason)
    conditions = [_waiting(condition, refusals) for condition in status.conditions]
    conditions = [c for c in conditions if c.type != ConditionType.READY]
    conditions.append(_unready(hd, reason, _words(refusals), now))
    phase = "Invalid" if reason is Reason.INVALID_SPEC else _degraded(status.phase)
    return replace(status, conditions=tuple(conditions), phase=phase)


def _unready(hd: Deployment, reason: Reason, message: str, now: datetime) -> Condition:
    """Since when, as the object says: its time changes with its status only."""
    old = next((c for c in hd.status.conditions if c.type == ConditionType.READY), None)
    since = old.last_transition_time if old and old.status == "False" else now
    return Condition(ConditionType.READY.value, "False", reason.value, message, since, hd.generation)


def _waiting(condition: Condition, refusals: Sequence[Refusal]) -> Condition:
    """A condition that a refusal keeps from being met has its words first. What is to serve waits for what
    is measured, too."""
    waits = [condition.type]
    if condition.type == ConditionType.AVAILABLE:
        waits.append(ConditionType.PROFILED)
    mine = [refusal for refusal in refusals if refusal.concerns in waits]
    if not mine or condition.status == "True":
        return condition
    return replace(condition, message=f"{_words(mine)} ({condition.message})")


def _words(refusals: Sequence[Refusal]) -> str:
    return "; ".join(dict.fromkeys(refusal.message for refusal in refusals))


def _degraded(phase: str) -> str:
    return "Degraded" if phase == "Serving" else phase


def _gist(value: Any) -> Any:
    """Without what changes with every request."""
    if isinstance(value, dict):
        return {key: _gist(item) for key, item in value.items() if key not in _COSMETIC}
    return [_gist(item) for item in value] if isinstance(value, list) else value
