"""What is there: the revisions by their role, and what the pods of the serving one really run.

Built once per pass from the snapshot; read by `reassess`, `rollout` and `status`. It names, it must not
decide.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import takewhile

from helios_contract.limits import Limits
from helios_contract.telemetry import AuditRow, Telemetry

from helios_operator.api.types import Served
from helios_operator.decide.policy import DEFAULT, Policy
from helios_operator.decide.snapshot import Pod, PodPhase, Revision, Snapshot

ANALYSING = "Analysing"
"""Phase of a rollout: what serves is watched before it is kept."""


@dataclass(frozen=True)
class Fleet:
    """`routed`: new connections go there. `pending`: its successor, not routed yet. `retired`: every other
    revision, which ends its streams."""

    routed: Revision | None
    pending: Revision | None
    retired: tuple[Revision, ...]
    target: Served | None
    """Of the status: a change that was begun and not yet seen to end."""
    analysing: bool = False
    """A change is being watched before it is kept."""
    kept: frozenset[int] = frozenset()
    """Numbers of old revisions that stay to be looked at; they are retired until their last pod is gone."""

    @classmethod
    def of(cls, snapshot: Snapshot) -> Fleet:
        revisions = sorted(snapshot.revisions, key=lambda revision: revision.number)
        routed = next((r for r in reversed(revisions) if r.routed and not r.draining), None)
        newer = [
            r
            for r in revisions
            if not r.draining and not r.routed and (routed is None or r.number > routed.number)
        ]
        pending = newer[-1] if newer else None
        old = [r for r in revisions if r is not routed and r is not pending]
        limit = snapshot.deployment.spec.rollout.revision_history_limit
        kept = frozenset(sorted((r.number for r in old if r.draining), reverse=True)[:limit])
        retired = tuple(r for r in old if r.pods or r.number not in kept)
        status = snapshot.deployment.status
        analysing = status.rollout is not None and status.rollout.phase == ANALYSING
        return cls(routed, pending, retired, status.target, analysing, kept)

    @property
    def telemetry(self) -> tuple[Telemetry, ...]:
        """Of the pods that serve and were reached."""
        return tuple(pod.telemetry for pod in self.ready_pods if pod.telemetry)

    @property
    def ready_pods(self) -> tuple[Pod, ...]:
        return tuple(pod for pod in self.routed.pods if pod.ready) if self.routed else ()

    @property
    def unreached(self) -> tuple[Pod, ...]:
        """In service, and what they did is not known in this pass."""
        return tuple(pod for pod in self.ready_pods if pod.telemetry is None)

    @property
    def serving(self) -> Limits | None:
        """What the pods run: older than the document while a change of limits is on its way."""
        if self.routed is None:
            return None
        running = [telemetry.limits for telemetry in self.telemetry]
        return min(running, key=lambda limits: limits.generation, default=self.routed.limits)

    @property
    def behind(self) -> bool:
        """Some pod does not run its document yet."""
        return self.routed is not None and any(
            telemetry.limits.generation < self.routed.limits.generation for telemetry in self.telemetry
        )

    @property
    def ahead(self) -> bool:
        """Some pod runs limits that are newer than its document, which was put back to an older one."""
        return self.routed is not None and any(
            telemetry.limits.generation > self.routed.limits.generation for telemetry in self.telemetry
        )

    @property
    def refusal(self) -> str | None:
        """What a pod said when it refused the document; None when none did."""
        for telemetry in self.telemetry:
            refused, has = telemetry.refused, telemetry.limits.generation
            if self.routed and refused and refused.generation >= self.routed.limits.generation > has:
                return refused.message or "the pod gave no reason"
        return None

    @property
    def in_flight(self) -> bool:
        """A change is on its way: a successor starts, limits are not everywhere yet, or an old revision still
        ends or is kept in case."""
        return bool(self.pending or self.retired or self.behind or self.target or self.analysing)

    @property
    def requests_since_change(self) -> int:
        return sum(telemetry.requests_since_change for telemetry in self.telemetry)

    @property
    def idle(self) -> bool:
        return not any(telemetry.running or telemetry.waiting for telemetry in self.telemetry)

    def audits_since_change(self) -> tuple[AuditRow, ...]:
        """Of all pods, since the last change of limits or the newest alarm, whichever is later: what came
        before was other traffic."""
        return tuple(row for telemetry in self.telemetry for row in _audits_since_change(telemetry))


def _audits_since_change(telemetry: Telemetry) -> Iterator[AuditRow]:
    since = telemetry.requests_finished - telemetry.requests_since_change
    for kind in sorted({alarm.kind for alarm in telemetry.alarms}):
        since = max(since, _last_shift(telemetry, kind) - 1)
    return (row for row in telemetry.audits if row.request > since)


def _last_shift(telemetry: Telemetry, kind: str) -> int:
    """The change point of the last shift that this kind of alarm told of. One that lasts is called again and
    again, in the same direction: the first call has its beginning."""
    alarms = [alarm for alarm in telemetry.alarms if alarm.kind == kind]
    same = list(takewhile(lambda alarm: alarm.direction == alarms[-1].direction, reversed(alarms)))
    return same[-1].since_request


def all_ready(revision: Revision) -> bool:
    """Every pod asked for is ready."""
    return sum(pod.ready for pod in revision.pods) >= revision.replicas


def is_empty(revision: Revision) -> bool:
    """Nothing runs there: every pod is gone, failed, or says that it has no stream left."""
    return all(
        pod.phase is PodPhase.FAILED
        or (
            pod.telemetry is not None
            and pod.telemetry.draining
            and not pod.telemetry.running
            and not pod.telemetry.waiting
        )
        for pod in revision.pods
    )


def has_crashed(revision: Revision, since: datetime | None = None, policy: Policy = DEFAULT) -> bool:
    """Some pod ends again and again, and did so after `since`."""
    return any(
        not pod.ready and pod.restarts >= policy.crashes and (since is None or pod.started > since)
        for pod in revision.pods
    )


def trouble(revision: Revision) -> str:
    """In the words of the first pod that is not ready."""
    for pod in sorted(revision.pods, key=lambda pod: pod.name):
        if not pod.ready and pod.message:
            return pod.message
    return ""


def next_generation(snapshot: Snapshot) -> int:
    """Above every document, and above all that pods know of: the API may have been put back in time."""
    written = (revision.limits.generation for revision in snapshot.revisions)
    pods = (pod for revision in snapshot.revisions for pod in revision.pods)
    known = (pod.telemetry.known_generation for pod in pods if pod.telemetry)
    return max((*written, *known), default=0) + 1


def next_number(snapshot: Snapshot) -> int:
    """Above every revision that is or was: numbers are not used twice."""
    status = snapshot.deployment.status
    served = [
        status.active,
        status.target,
        *(entry.to for entry in status.history),
        *(e.from_ for e in status.history),
    ]
    seen = [revision.number for revision in snapshot.revisions]
    return (
        max([*seen, *(s.revision for s in served if s), status.rollout.revision if status.rollout else 0, 0])
        + 1
    )
