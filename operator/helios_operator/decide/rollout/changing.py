"""Changing what serves: told to the running pods, by new ones, or after the old; and taking back what was
refused.

Called by `rollout`. It must not choose, and it changes one thing at a time.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from helios_contract.limits import Limits

from helios_operator.api.reasons import Reason
from helios_operator.api.types import Served, Strategy
from helios_operator.decide.facts.fleet import (
    has_crashed,
    next_number,
    trouble,
)
from helios_operator.decide.plan import (
    Verdict,
    WriteLimits,
)
from helios_operator.decide.rollout import record
from helios_operator.decide.rollout.limits import limits_for
from helios_operator.decide.rollout.step import Carried, Step, shape
from helios_operator.decide.snapshot import Revision
from helios_operator.decide.weigh import hysteresis, remedies
from helios_operator.decide.weigh.reassess import Change
from helios_operator.decide.weigh.strategy import Way


def change(step: Step, routed: Revision, wanted: Change) -> Carried:
    snapshot, contenders = step.case.snapshot, step.case.bench.contenders
    limits = limits_for(wanted.option, contenders, snapshot, wanted.evidence, step.generation)
    what = remedies.named(wanted.kind, wanted.option, wanted.option.precision)
    said = f"{what}: {wanted.verdict.message}; {wanted.path.verdict.message}"
    why = replace(wanted.verdict, message=_with_lost_room(said, limits, step))
    match wanted.path.way:
        case Way.SURGE:
            return step.create(limits, Way.SURGE, why)
        case Way.RECREATE:
            target = record.coming(limits, next_number(snapshot), step.case)
            return step.drain_for(routed, target, why)
        case _:
            return step.tell(routed, limits, wanted.path.way or Way.LIMITS, why)


def _with_lost_room(said: str, limits: Limits, step: Step) -> str:
    lost = record.lost_room(step.status.active, record.coming(limits, 0, step.case))
    return f"{said}; {lost}" if lost else said


def is_to_be_recreated(step: Step, routed: Revision) -> bool:
    target = step.status.target
    wanted = target is not None and target.revision != routed.number
    return wanted and step.case.spec.rollout.strategy is Strategy.RECREATE


def recreate(step: Step, routed: Revision) -> Carried:
    """Decided already, and not seen to be done."""
    why = Verdict(True, Reason.OUTAGE_BY_RECREATE, "the old pods stop first")
    return step.still(why, step.drain(routed, why), target=step.status.target)


def has_settled(step: Step, routed: Revision) -> bool:
    """Every pod that answers runs the document; while a change of it is on its way, at least one does
    answer."""
    if step.fleet.behind:
        return False
    target = step.status.target
    is_told = target is not None and target.revision == routed.number
    return not is_told or routed.replicas == 0 or bool(step.fleet.telemetry)


def await_limits(step: Step, routed: Revision) -> Carried:
    rollout = step.status.rollout
    is_known = rollout and rollout.phase == "RollingOut" and rollout.revision == routed.number
    started = (rollout.start_time if rollout and is_known else None) or step.case.now
    deadline = timedelta(seconds=step.case.spec.rollout.progress_deadline_seconds)
    if has_crashed(routed, started, step.case.policy) or step.case.now >= started + deadline:
        words = trouble(routed) or f"the pods did not apply the limits within {deadline.seconds} s"
        return take_back(step, routed, Verdict(False, Reason.ROLLED_BACK, words))
    why = Verdict(True, Reason.LIMITS_CHANGING, f"revision {routed.number} is told: {shape(routed.limits)}")
    return step.still(why, target=step.status.target or _noticed(step, routed))


def take_back(step: Step, routed: Revision, why: Verdict) -> Carried:
    """The old limits again, under a new generation; nothing was taken away meanwhile."""
    old = _before(step, routed)
    if old is None or (_is_same(old, routed.limits) and not hysteresis.backed_off(step.case).ok):
        return step.still(replace(why, reason=Reason.ROLLED_BACK), target=step.status.target)
    undone = replace(old, generation=step.generation)
    progress = Verdict(False, Reason.ROLLED_BACK, why.message)
    failed = record.entry(step.case, step.coming(routed), "Failed")
    failed = replace(failed, reason=why.reason, message=why.message)
    was_decided = step.status.target is not None
    return replace(
        step.still(progress, WriteLimits(revision=routed.number, limits=undone, why=why), target=None),
        memory=step.after_failure(why),
        history=record.appended(step.status.history, failed) if was_decided else step.status.history,
        rollout=step.ended(routed.number, "RolledBack", why),
    )


def _before(step: Step, routed: Revision) -> Limits | None:
    """What the pods still run; without an answer from them, what the status says they ran."""
    serving, active = step.fleet.serving, step.status.active
    if serving and serving.generation < routed.limits.generation:
        return serving
    contender = next((c for c in step.case.bench.contenders if active and c.name == active.candidate), None)
    if active is None or contender is None or contender.resolved is None:
        return None
    option = replace(
        step.case.bench.option(contender, active.layer_budget, active.precision, None),
        max_batch_size=active.max_batch_size,
    )
    return limits_for(option, step.case.bench.contenders, step.case.snapshot, step.case.profiles, 0)


def _noticed(step: Step, routed: Revision) -> Served | None:
    """A change that was begun by a pass whose status was lost; new settings alone are none."""
    active, coming = step.status.active, record.served(routed, step.case)
    return None if active and record.same_service(active, coming) else coming


def _is_same(some: Limits, other: Limits) -> bool:
    """Taking back was refused too: it is tried again, but not at every look."""
    some, other = (
        replace(limits, generation=0, audit=replace(limits.audit, quality=None)) for limits in (some, other)
    )
    return some == other
