"""What every step of a rollout has at hand: the case, the status as it goes on, and the few things that can
be done.

Used by `starting`, `changing`, `ending` and `staying`. It must not decide which step is taken: `rollout`
does.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime

from helios_contract.limits import Limits

from helios_operator.api.reasons import Reason
from helios_operator.api.types import (
    DeploymentStatus,
    HistoryEntry,
    ReassessmentStatus,
    RolloutStatus,
    Served,
)
from helios_operator.decide.facts.fleet import (
    Fleet,
    next_generation,
    next_number,
)
from helios_operator.decide.facts.precisions import suffix
from helios_operator.decide.plan import (
    Action,
    CreateRevision,
    DrainRevision,
    ScaleRevision,
    Verdict,
    WriteLimits,
)
from helios_operator.decide.rollout import record
from helios_operator.decide.snapshot import Revision
from helios_operator.decide.weigh import hysteresis
from helios_operator.decide.weigh.case import Case
from helios_operator.decide.weigh.strategy import Way


@dataclass(frozen=True)
class Carried:
    """What is done in this pass, and the part of the status that follows from it. `progress`: the Progressing
    condition's reason and message; ok says that nothing is wrong."""

    actions: tuple[Action, ...]
    active: Served | None
    target: Served | None
    rollout: RolloutStatus | None
    memory: ReassessmentStatus
    history: tuple[HistoryEntry, ...]
    progress: Verdict


@dataclass(frozen=True)
class Step:
    """The case, with the memory that `reassess` made of it. `waiting`: a change that is wanted and cannot be
    made."""

    case: Case
    waiting: Verdict | None = None

    @property
    def fleet(self) -> Fleet:
        return self.case.fleet

    @property
    def status(self) -> DeploymentStatus:
        return self.case.snapshot.deployment.status

    @property
    def memory(self) -> ReassessmentStatus:
        return self.case.memory

    @property
    def generation(self) -> int:
        return next_generation(self.case.snapshot)

    @property
    def paused_by(self) -> str:
        """What holds every change; "" where nothing does."""
        return self.case.snapshot.deployment.paused_by

    def still(
        self, progress: Verdict, *actions: Action, target: Served | None, rollout: RolloutStatus | None = None
    ) -> Carried:
        """These actions, and a status that goes on as it was."""
        routed = self.fleet.routed
        return Carried(
            actions=actions,
            active=record.renewed(self.status.active, routed, self.case) if routed else None,
            target=target,
            rollout=rollout or self.status.rollout,
            memory=self.memory,
            history=self.status.history,
            progress=progress,
        )

    def create(self, limits: Limits, way: Way, why: Verdict) -> Carried:
        announced = self.status.target if self.fleet.routed is None else None
        number = announced.revision if announced else next_number(self.case.snapshot)
        action = CreateRevision(number=number, limits=limits, replicas=self.case.spec.replicas, why=why)
        target = record.coming(limits, number, self.case)
        progress = replace(why, reason=Reason.ROLLOUT_STARTED) if self.fleet.routed else why
        return self.still(progress, action, target=target, rollout=self.begun(number, way, why))

    def tell(self, routed: Revision, limits: Limits, way: Way, why: Verdict) -> Carried:
        target = record.coming(limits, routed.number, self.case)
        action = WriteLimits(revision=routed.number, limits=limits, why=why)
        progress = replace(why, reason=Reason.LIMITS_CHANGING)
        return self.still(progress, action, target=target, rollout=self.begun(routed.number, way, why))

    def drain_for(self, routed: Revision, target: Served, why: Verdict) -> Carried:
        rollout = self.begun(target.revision, Way.RECREATE, why)
        progress = replace(why, reason=Reason.OUTAGE_BY_RECREATE)
        return self.still(progress, self.drain(routed, why), target=target, rollout=rollout)

    def drain(self, revision: Revision, why: Verdict) -> Action:
        timeout = self.case.spec.rollout.drain.timeout_seconds
        return DrainRevision(number=revision.number, timeout_seconds=timeout, why=why)

    def scaled(self, revision: Revision) -> Iterator[Action]:
        replicas = self.case.spec.replicas
        if revision.replicas != replicas:
            message = f"{revision.replicas} to {replicas} pods"
            yield ScaleRevision(
                number=revision.number, replicas=replicas, why=Verdict(True, Reason.REPLICAS_CHANGED, message)
            )

    def coming(self, revision: Revision) -> Served:
        """The target as it was announced, else as the revision's document says."""
        target = self.status.target
        return target if target and target.revision == revision.number else record.served(revision, self.case)

    def after_failure(self, why: Verdict) -> ReassessmentStatus:
        return hysteresis.after_failure(self.case, why)

    def begun(self, number: int, way: Way, why: Verdict) -> RolloutStatus:
        return RolloutStatus(number, "RollingOut", way.value, why.message, self.case.now)

    def ended(self, number: int, phase: str, why: Verdict) -> RolloutStatus:
        before = self.status.rollout or RolloutStatus(number, phase)
        end: datetime | None = None if phase == "Draining" else self.case.now
        return replace(before, revision=number, phase=phase, message=why.message, end_time=end)


def shape(limits: Limits) -> str:
    rows = f"{limits.max_batch_size} rows" if limits.max_batch_size else "as many rows as fit"
    return f"{limits.candidate} at {limits.layer_budget} layers{suffix(limits.precision)} with {rows}"
