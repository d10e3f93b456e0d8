"""Pods that the cluster's controllers could not make, in the server's words: a Deployment says so in a
condition, a Job in an Event.

Called by `operator` in every pass, after `observe`. It tells of them as of what was refused to the operator
itself; it starts and deletes nothing.
"""

from __future__ import annotations

import logging
import time
from datetime import UTC, datetime, timedelta

from helios_operator.api.conditions import ConditionType
from helios_operator.api.reasons import Reason
from helios_operator.api.timestamps import parse_time
from helios_operator.api.types import Deployment
from helios_operator.cluster.client import Client
from helios_operator.cluster.kinds import EVENT, JOB, POD, REVISION, Kind, Object
from helios_operator.cluster.mirror import Mirror
from helios_operator.cluster.ownership import is_own
from helios_operator.cluster.refusals import Refusal, Refusals
from helios_operator.errors import ClusterError

_PATIENCE = timedelta(seconds=3)
"""For the first pod of a Job: until then nobody asks for its events."""
_HEARD_SECONDS = 10.0
_log = logging.getLogger(__name__)


class Shortfalls:
    def __init__(self, client: Client, mirror: Mirror, refusals: Refusals) -> None:
        self._client = client
        self._mirror = mirror
        self._refusals = refusals
        self._heard: dict[str, tuple[float, str]] = {}
        """By the uid of a Job without pods: when its events were read, and what they said last."""

    async def note(self, hd: Deployment) -> None:
        for obj in self._own(hd, REVISION):
            if words := _replica_failure(obj):
                await self._note(hd, obj, words, ConditionType.AVAILABLE)
        for job in self._own(hd, JOB):
            if self._lacks_pods(job) and (words := await self._last_words(job)):
                await self._note(hd, job, words, ConditionType.PROFILED)

    def drop_stale(self) -> None:
        """Of Jobs that are gone; called at every resync."""
        there = {job["metadata"]["uid"] for job in self._mirror.all(JOB)}
        self._heard = {uid: heard for uid, heard in self._heard.items() if uid in there}

    async def _note(self, hd: Deployment, obj: Object, words: str, concerns: ConditionType) -> None:
        name = f"{obj['kind']} {obj['metadata']['name']}"
        refusal = Refusal(Reason.PODS_REFUSED, f"{name} gets no pods: {words}", concerns)
        await self._refusals.note(hd, f"pods of {name}", refusal)

    def _own(self, hd: Deployment, kind: Kind) -> list[Object]:
        return [obj for obj in self._mirror.of(kind, (hd.namespace, hd.name)) if is_own(hd, obj)]

    def _lacks_pods(self, job: Object) -> bool:
        """It should have one by now."""
        if (job.get("status") or {}).get("conditions") or job["metadata"].get("deletionTimestamp"):
            return False
        age = datetime.now(UTC) - parse_time(job["metadata"]["creationTimestamp"])
        uid = job["metadata"]["uid"]
        pods = self._mirror.all(POD, job["metadata"]["namespace"])
        return age > _PATIENCE and not any(_is_of(pod, uid) for pod in pods)

    async def _last_words(self, job: Object) -> str:
        """ "" where it has none, or they may not be read."""
        uid, now = job["metadata"]["uid"], time.monotonic()
        at, words = self._heard.get(uid, (float("-inf"), ""))
        if now < at + _HEARD_SECONDS:
            return words
        try:
            said = await self._client.list(
                EVENT, job["metadata"]["namespace"], fields=f"involvedObject.uid={uid}"
            )
        except ClusterError as error:
            _log.warning("events of Job %s are not known: %s", job["metadata"]["name"], error)
            said = []
        failures = [event for event in said if event.get("reason") == "FailedCreate"]
        newest = max(failures, key=lambda event: str(event.get("lastTimestamp") or ""), default={})
        self._heard[uid] = (now, str(newest.get("message", "")))
        return self._heard[uid][1]


def _replica_failure(revision: Object) -> str:
    conditions = (revision.get("status") or {}).get("conditions") or ()
    failed = (c for c in conditions if c.get("type") == "ReplicaFailure" and c.get("status") == "True")
    return next((str(c.get("message") or c.get("reason") or "") for c in failed), "")


def _is_of(pod: Object, uid: str) -> bool:
    return any(reference.get("uid") == uid for reference in pod["metadata"].get("ownerReferences") or ())
