"""Carries choices out, from the revisions that are seen: start, route, tell, drain, delete; and takes back
what failed.

Called by `decide` after `reassess`. Level-based: each pass looks at what is there and does the next thing
that is missing, so that a crash between two passes loses nothing. It must not choose what to serve, and it
never takes away what serves before its successor does (unless the strategy is Recreate).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from helios_operator.api.conditions import Reason
from helios_operator.api.types import (
    DeploymentStatus,
    HistoryEntry,
    ReassessmentStatus,
    RolloutStatus,
    Served,
    Strategy,
)
from helios_operator.decide import hysteresis, record, reference, remedies
from helios_operator.decide.case import Case, served_contender
from helios_operator.decide.fleet import (
    Fleet,
    all_ready,
    has_crashed,
    is_empty,
    next_generation,
    next_number,
    trouble,
)
from helios_operator.decide.gathering import profiles_of
from helios_operator.decide.limits import limits_for, resynchronised
from helios_operator.decide.options import Option
from helios_operator.decide.plan import (
    Action,
    CreateRevision,
    DeleteRevision,
    DrainRevision,
    Route,
    ScaleRevision,
    Verdict,
    WriteLimits,
)
from helios_operator.decide.reassess import Change, Outcome
from helios_operator.decide.snapshot import Revision, ServingLimits
from helios_operator.decide.strategy import Way, second_pod_fits
from helios_operator.decide.triggers import Cause


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


def carry_out(case: Case, outcome: Outcome) -> Carried:
    """The first of these that holds is what this pass does."""
    step, fleet = Step(case, outcome), case.fleet
    if fleet.pending is not None:
        return step.await_successor(fleet.pending)
    if fleet.routed is None:
        return step.retire() if fleet.retired else step.start()
    if fleet.refusal is not None:
        return step.take_back(
            fleet.routed, Verdict(False, Reason.LIMITS_REFUSED, f"the pod refused: {fleet.refusal}")
        )
    if not step.has_settled(fleet.routed):
        return step.await_limits(fleet.routed)
    if step.has_arrived(fleet.routed):
        return step.complete(fleet.routed)
    if fleet.retired:
        return step.retire()
    if step.is_to_be_recreated(fleet.routed):
        return step.recreate(fleet.routed)
    if outcome.change is not None:
        return step.change(fleet.routed, outcome.change)
    return step.keep_in_step(fleet.routed)


@dataclass(frozen=True)
class Step:
    """The case, what `reassess` made of it, and everything that a pass may do about it."""

    case: Case
    outcome: Outcome

    # -- starting --------------------------------------------------------------------------------------------

    def start(self) -> Carried:
        """Nothing is there. After a Recreate the target follows; else the reference starts."""
        option = self._target_option() or reference.choose(self.case, self.status.history)
        held = hysteresis.backed_off(self.case)
        if isinstance(option, Verdict):
            return self._still(option, target=self.status.target)
        if not held.ok:
            return self._still(held, target=self.status.target)
        what = f"{option.contender.name} at {option.layer_budget} layers"
        if self.status.target:
            why = Verdict(True, Reason.ROLLOUT_STARTED, f"the old pods are gone: {what} starts")
        else:
            why = Verdict(
                True, Reason.REFERENCE_CANDIDATE, f"nothing serves yet: the reference, {what}, starts"
            )
        limits = limits_for(
            option, self.case.bench.contenders, self.case.snapshot, profiles_of(self.case), self._generation
        )
        return self._create(limits, Way.RECREATE if self.status.target else Way.SURGE, why)

    def await_successor(self, pending: Revision) -> Carried:
        """It starts, beside what serves or alone; when every pod is ready, traffic moves."""
        if self.case.spec.rollout.paused and self.fleet.routed:
            return self._still(
                Verdict(True, Reason.PAUSED, "rollout.paused is true"), target=self._coming(pending)
            )
        if all_ready(pending):
            ready = f"{pending.replicas} of {pending.replicas} pods of revision {pending.number} are ready"
            why = Verdict(True, Reason.TRAFFIC_MOVED, ready)
            return self._still(why, Route(revision=pending.number, why=why), target=self._coming(pending))
        if (why_not := self._will_not_serve(pending)) is not None:
            return self._give_up(pending, why_not)
        words = trouble(pending)
        message = f"revision {pending.number} starts {pending.limits.candidate}" + (
            f": {words}" if words else ""
        )
        progress = Verdict(True, Reason.ROLLOUT_STARTED, message)
        return self._still(progress, *self._scaled(pending), target=self._coming(pending))

    def _will_not_serve(self, pending: Revision) -> Verdict | None:
        contender = served_contender(pending.limits, self.case.bench.contenders)
        if contender is None or not contender.competes:
            return Verdict(
                False, Reason.SPEC_CHANGED, f"{pending.limits.candidate} is not a candidate any more"
            )
        words = trouble(pending) or "it is not ready"
        if has_crashed(pending):
            return Verdict(False, Reason.PROGRESS_DEADLINE_EXCEEDED, f"its pods end again and again: {words}")
        deadline = self.case.spec.rollout.progress_deadline_seconds
        if self.case.now >= pending.created + timedelta(seconds=deadline):
            return Verdict(False, Reason.PROGRESS_DEADLINE_EXCEEDED, f"not ready after {deadline} s: {words}")
        return None

    def _give_up(self, pending: Revision, why: Verdict) -> Carried:
        """It serves nothing, so it may go. At the first start only when there is something else to try."""
        failed = record.entry(self.case, self.memory, self._coming(pending), "Failed")
        failed = replace(failed, reason=why.reason, message=why.message)
        unwanted = why.reason == Reason.SPEC_CHANGED
        if self.fleet.routed is None and not unwanted and not self._has_alternative(pending, failed):
            return self._still(why, target=self._coming(pending))
        memory = replace(self.memory, trigger=Cause.SPEC.value) if unwanted else self._after_failure(why)
        return replace(
            self._still(why, DeleteRevision(number=pending.number, why=why), target=None),
            memory=memory,
            history=self.status.history if unwanted else record.appended(self.status.history, failed),
            rollout=self._ended(pending.number, "Failed", why),
        )

    def _has_alternative(self, pending: Revision, failed: HistoryEntry) -> bool:
        """Something else to start, or the certainty that nothing fits: then nothing is left half-started."""
        option = reference.choose(self.case, (*self.status.history, failed))
        tried = (pending.limits.candidate, pending.limits.layer_budget)
        return isinstance(option, Verdict) or (option.contender.name, option.layer_budget) != tried

    # -- changing --------------------------------------------------------------------------------------------

    def change(self, routed: Revision, change: Change) -> Carried:
        snapshot, contenders = self.case.snapshot, self.case.bench.contenders
        limits = limits_for(change.option, contenders, snapshot, change.evidence, self._generation)
        why = replace(
            change.verdict,
            message=f"{change.kind} to {change.option}: {change.verdict.message}; "
            f"{change.path.verdict.message}",
        )
        match change.path.way:
            case Way.SURGE:
                return self._create(limits, Way.SURGE, why)
            case Way.RECREATE:
                target = record.coming(limits, next_number(snapshot), self.case)
                return self._drain_for(routed, target, why)
            case _:
                return self._tell(routed, limits, change.path.way or Way.LIMITS, why)

    def is_to_be_recreated(self, routed: Revision) -> bool:
        target = self.status.target
        wanted = target is not None and target.revision != routed.number
        return wanted and self.case.spec.rollout.strategy is Strategy.RECREATE

    def recreate(self, routed: Revision) -> Carried:
        """Decided already, and not seen to be done."""
        why = Verdict(True, Reason.OUTAGE_BY_RECREATE, "the old pods stop first")
        return self._still(why, self._drain(routed, why), target=self.status.target)

    def has_settled(self, routed: Revision) -> bool:
        """Every pod that answers runs the document; while a change of it is on its way, at least one does
        answer."""
        if self.fleet.behind:
            return False
        target = self.status.target
        is_told = target is not None and target.revision == routed.number
        return not is_told or routed.replicas == 0 or bool(self.fleet.telemetry)

    def await_limits(self, routed: Revision) -> Carried:
        rollout = self.status.rollout
        started = rollout.start_time if rollout and rollout.start_time else self.case.now
        deadline = timedelta(seconds=self.case.spec.rollout.progress_deadline_seconds)
        if has_crashed(routed, since=started) or self.case.now >= started + deadline:
            words = trouble(routed) or f"the pods did not take the limits within {deadline.seconds} s"
            return self.take_back(routed, Verdict(False, Reason.ROLLED_BACK, words))
        why = Verdict(
            True, Reason.LIMITS_CHANGING, f"revision {routed.number} is told: {_shape(routed.limits)}"
        )
        return self._still(why, target=self.status.target or self._noticed(routed))

    def take_back(self, routed: Revision, why: Verdict) -> Carried:
        """The old limits again, under a new generation; nothing was taken away meanwhile."""
        old = self._before(routed)
        if old is None or (_is_same(old, routed.limits) and not hysteresis.backed_off(self.case).ok):
            return self._still(replace(why, reason=Reason.ROLLED_BACK), target=self.status.target)
        undone = replace(old, generation=self._generation)
        progress = Verdict(False, Reason.ROLLED_BACK, why.message)
        failed = record.entry(self.case, self.memory, self._coming(routed), "Failed")
        failed = replace(failed, reason=why.reason, message=why.message)
        was_decided = self.status.target is not None
        return replace(
            self._still(progress, WriteLimits(revision=routed.number, limits=undone, why=why), target=None),
            memory=self._after_failure(why),
            history=record.appended(self.status.history, failed) if was_decided else self.status.history,
            rollout=self._ended(routed.number, "RolledBack", why),
        )

    def _before(self, routed: Revision) -> ServingLimits | None:
        """What the pods still run; without an answer from them, what the status says they ran."""
        serving, active = self.fleet.serving, self.status.active
        if serving and serving.generation < routed.limits.generation:
            return serving
        contender = next(
            (c for c in self.case.bench.contenders if active and c.name == active.candidate), None
        )
        if active is None or contender is None or contender.resolved is None:
            return None
        option = replace(
            self.case.bench.option(contender, active.layer_budget, None), max_batch_size=active.max_batch_size
        )
        return limits_for(option, self.case.bench.contenders, self.case.snapshot, profiles_of(self.case), 0)

    # -- ending ----------------------------------------------------------------------------------------------

    def has_arrived(self, routed: Revision) -> bool:
        """The status says something else than what is served."""
        is_up = routed.replicas == 0 or bool(self.fleet.telemetry)
        active = self.status.active
        changed = active is None or not record.same_service(active, record.served(routed, self.case))
        is_told = self.status.target is not None and self.status.target.revision == routed.number
        return is_up and (changed or is_told)

    def complete(self, routed: Revision) -> Carried:
        now, before = record.served(routed, self.case), self.status.active
        message = f"{_shape(routed.limits)} serve as revision {routed.number}"
        progress = Verdict(
            True, Reason.WAITING_FOR_DRAIN if self.fleet.retired else Reason.NO_ROLLOUT, message
        )
        phase = "Draining" if self.fleet.retired else "Completed"
        began = self.status.rollout.message if self.status.rollout else message
        ended = self._ended(routed.number, phase, Verdict(True, Reason.ROLLOUT_COMPLETED, began))
        carried = replace(self._still(progress, target=None), active=now, rollout=ended)
        if not self._was_decided(before, now):
            return replace(carried, memory=replace(self.memory, requests=self.fleet.requests))
        promoted = record.entry(self.case, self.memory, now, "Promoted")
        return replace(
            carried,
            history=record.appended(self.status.history, promoted),
            memory=hysteresis.after_change(self.memory, self.case, now, self.status.history),
        )

    def _was_decided(self, before: Served | None, now: Served) -> bool:
        """A change of what callers get; not the first start, nor new settings or pods of the same service."""
        if self.memory.last_time is None or self.memory.decision not in remedies.CHANGES:
            return False
        return before is None or (before.candidate, before.layer_budget) != (now.candidate, now.layer_budget)

    def retire(self) -> Carried:
        """Old revisions end their streams by themselves, then go."""
        actions = tuple(action for revision in self.fleet.retired if (action := self._retirement(revision)))
        streams = sum(p.telemetry.running for r in self.fleet.retired for p in r.pods if p.telemetry)
        numbers = ", ".join(str(revision.number) for revision in self.fleet.retired)
        why = Verdict(True, Reason.WAITING_FOR_DRAIN, f"revision {numbers} ends {streams} streams")
        return self._still(why, *actions, target=self.status.target if self.fleet.routed is None else None)

    def _retirement(self, revision: Revision) -> Action | None:
        if revision.draining:
            if not is_empty(revision):
                return None
            return DeleteRevision(
                number=revision.number,
                why=Verdict(True, Reason.REVISION_DELETED, "its last stream has ended"),
            )
        since = self.status.active.since if self.status.active else None
        delay = timedelta(seconds=self.case.spec.rollout.scale_down_delay_seconds)
        if since and self.case.now < since + delay:
            return None
        return self._drain(revision, Verdict(True, Reason.WAITING_FOR_DRAIN, "its successor serves"))

    # -- staying ---------------------------------------------------------------------------------------------

    def keep_in_step(self, routed: Revision) -> Carried:
        """The same service under the spec's settings of today: pods' number, template, limits."""
        done = self._still(self._quiet(), target=None, rollout=self._completed(routed))
        if self.case.spec.rollout.paused:
            return done
        if scaled := tuple(self._scaled(routed)):
            return replace(done, actions=scaled)
        if not routed.template_current:
            return self._renew_pods(routed)
        limits = self._resynchronised(routed)
        if limits is None or not hysteresis.backed_off(self.case).ok:
            return done
        why = Verdict(True, Reason.SPEC_CHANGED, f"same service, new settings: {_shape(limits)}")
        return replace(done, actions=(WriteLimits(revision=routed.number, limits=limits, why=why),))

    def _resynchronised(self, routed: Revision) -> ServingLimits | None:
        current = self.case.current(None)
        if current is None:
            return None
        if current.contender.timing is None:
            current = replace(current, max_batch_size=routed.limits.max_batch_size)
        elif current.max_batch_size == 0:
            return None
        wanted = limits_for(current, self.case.bench.contenders, self.case.snapshot, None, self._generation)
        return resynchronised(routed.limits, wanted)

    def _renew_pods(self, routed: Revision) -> Carried:
        """The user asked for other pods: the same service in a new revision, beside the old one."""
        why = Verdict(True, Reason.SPEC_CHANGED, "the pod template changed: the same service in new pods")
        limits = replace(routed.limits, generation=self._generation)
        if self.case.spec.rollout.strategy is Strategy.RECREATE:
            return self._drain_for(
                routed, record.coming(limits, next_number(self.case.snapshot), self.case), why
            )
        fits = second_pod_fits(self.case.snapshot)
        return self._create(limits, Way.SURGE, why) if fits.ok else self._still(fits, target=None)

    def _quiet(self) -> Verdict:
        if self.outcome.waiting:
            return self.outcome.waiting
        if self.case.spec.rollout.paused:
            return Verdict(True, Reason.PAUSED, "rollout.paused is true")
        last = self.status.rollout
        if last and last.phase in ("Failed", "RolledBack"):
            return Verdict(False, Reason.ROLLED_BACK, last.message)
        return Verdict(True, Reason.NO_ROLLOUT, "what serves is what was chosen")

    # -- parts -----------------------------------------------------------------------------------------------

    @property
    def fleet(self) -> Fleet:
        return self.case.fleet

    @property
    def status(self) -> DeploymentStatus:
        return self.case.snapshot.deployment.status

    @property
    def memory(self) -> ReassessmentStatus:
        return self.outcome.memory

    @property
    def _generation(self) -> int:
        return next_generation(self.case.snapshot)

    def _still(
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

    def _create(self, limits: ServingLimits, way: Way, why: Verdict) -> Carried:
        announced = self.status.target if self.fleet.routed is None else None
        number = announced.revision if announced else next_number(self.case.snapshot)
        action = CreateRevision(number=number, limits=limits, replicas=self.case.spec.replicas, why=why)
        target = record.coming(limits, number, self.case)
        progress = replace(why, reason=Reason.ROLLOUT_STARTED) if self.fleet.routed else why
        return self._still(progress, action, target=target, rollout=self._begun(number, way, why))

    def _tell(self, routed: Revision, limits: ServingLimits, way: Way, why: Verdict) -> Carried:
        target = record.coming(limits, routed.number, self.case)
        action = WriteLimits(revision=routed.number, limits=limits, why=why)
        progress = replace(why, reason=Reason.LIMITS_CHANGING)
        return self._still(progress, action, target=target, rollout=self._begun(routed.number, way, why))

    def _drain_for(self, routed: Revision, target: Served, why: Verdict) -> Carried:
        rollout = self._begun(target.revision, Way.RECREATE, why)
        progress = replace(why, reason=Reason.OUTAGE_BY_RECREATE)
        return self._still(progress, self._drain(routed, why), target=target, rollout=rollout)

    def _drain(self, revision: Revision, why: Verdict) -> Action:
        timeout = self.case.spec.rollout.drain.timeout_seconds
        return DrainRevision(number=revision.number, timeout_seconds=timeout, why=why)

    def _scaled(self, revision: Revision) -> Iterator[Action]:
        replicas = self.case.spec.replicas
        if revision.replicas != replicas:
            message = f"{revision.replicas} to {replicas} pods"
            yield ScaleRevision(
                number=revision.number, replicas=replicas, why=Verdict(True, Reason.REPLICAS_CHANGED, message)
            )

    def _coming(self, revision: Revision) -> Served:
        """The target as it was announced, else as the revision's document says."""
        target = self.status.target
        return target if target and target.revision == revision.number else record.served(revision, self.case)

    def _noticed(self, routed: Revision) -> Served | None:
        """A change that was begun by a pass whose status was lost; new settings alone are none."""
        active, coming = self.status.active, record.served(routed, self.case)
        return None if active and record.same_service(active, coming) else coming

    def _target_option(self) -> Option | None:
        target = self.status.target
        contender = next(
            (c for c in self.case.bench.contenders if target and c.name == target.candidate), None
        )
        if target is None or contender is None or not contender.measurable:
            return None
        option = self.case.bench.option(contender, target.layer_budget, None)
        return replace(option, max_batch_size=target.max_batch_size)

    def _after_failure(self, why: Verdict) -> ReassessmentStatus:
        return hysteresis.after_failure(self.memory, self.case, why)

    def _begun(self, number: int, way: Way, why: Verdict) -> RolloutStatus:
        return RolloutStatus(number, "RollingOut", way.value, why.message, self.case.now)

    def _ended(self, number: int, phase: str, why: Verdict) -> RolloutStatus:
        before = self.status.rollout
        end: datetime | None = None if phase == "Draining" else self.case.now
        strategy, start = (before.strategy, before.start_time) if before else ("", None)
        return RolloutStatus(number, phase, strategy, why.message, start, end)

    def _completed(self, routed: Revision) -> RolloutStatus | None:
        before = self.status.rollout
        if before is None or before.phase not in ("Draining", "RollingOut"):
            return before
        return replace(before, revision=routed.number, phase="Completed", end_time=self.case.now)


def _is_same(some: ServingLimits, other: ServingLimits) -> bool:
    """Taking back was refused too: it is tried again, but not at every look."""
    return replace(some, generation=0, quality_baseline=None) == replace(
        other, generation=0, quality_baseline=None
    )


def _shape(limits: ServingLimits) -> str:
    rows = f"{limits.max_batch_size} rows" if limits.max_batch_size else "as many rows as fit"
    return f"{limits.candidate} at {limits.layer_budget} layers with {rows}"
