"""Beginning to serve: the reference when nothing is there, a successor until it is ready or given up.

Called by `rollout`. It must not touch what serves.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from helios_operator.api.event_reasons import EventReason
from helios_operator.api.reasons import Reason
from helios_operator.api.types import HistoryEntry
from helios_operator.decide.facts.accelerators import Accelerators
from helios_operator.decide.facts.fleet import (
    all_ready,
    has_crashed,
    trouble,
)
from helios_operator.decide.facts.precisions import suffix
from helios_operator.decide.plan import (
    DeleteRevision,
    Route,
    Verdict,
)
from helios_operator.decide.rollout import record
from helios_operator.decide.rollout.limits import limits_for
from helios_operator.decide.rollout.step import Carried, Step
from helios_operator.decide.snapshot import Revision
from helios_operator.decide.weigh import hysteresis, reference, triggers
from helios_operator.decide.weigh.options import Option
from helios_operator.decide.weigh.scene import served_contender
from helios_operator.decide.weigh.strategy import Way
from helios_operator.decide.weigh.triggers import Cause

_UNWANTED: dict[str, Cause] = {
    Reason.SPEC_CHANGED: Cause.SPEC,
    Reason.CANDIDATES_CHANGED: Cause.CANDIDATES,
}
"""What makes a successor unwanted, and the reassessment that it calls for."""


def start(step: Step) -> Carried:
    """Nothing is there. After a Recreate the target follows; else the reference starts, once what needs the
    accelerators that it would take is measured."""
    option = _target_option(step) or reference.choose(step.case, step.status.history)
    if isinstance(option, Verdict):
        return step.still(option, target=step.status.target)
    what = f"{option.contender.name} at {option.layer_budget} layers{suffix(option.precision)}"
    if (held := _held(step, what)) is not None:
        return step.still(held, target=step.status.target)
    if step.status.target:
        why = Verdict(True, Reason.ROLLOUT_STARTED, f"the old pods are gone: {what} starts")
    else:
        why = Verdict(True, Reason.REFERENCE_CANDIDATE, f"nothing serves yet: the reference, {what}, starts")
    limits = limits_for(
        option, step.case.bench.contenders, step.case.snapshot, step.case.profiles, step.generation
    )
    return step.create(limits, Way.RECREATE if step.status.target else Way.SURGE, why)


def _held(step: Step, what: str) -> Verdict | None:
    backed_off = hysteresis.backed_off(step.case)
    if not backed_off.ok:
        return backed_off
    devices = Accelerators.of(step.case.snapshot, step.fleet)
    if devices.measures_first and not step.case.scene.timed and not step.status.target:
        message = f"the candidates are timed first, on the accelerator that {what} will serve on"
        return Verdict(False, Reason.STARTING, message)
    return None


def await_successor(step: Step, pending: Revision) -> Carried:
    """It starts, beside what serves or alone; when every pod is ready, traffic moves."""
    if step.paused_by and step.fleet.routed:
        return step.still(Verdict(True, Reason.PAUSED, step.paused_by), target=step.coming(pending))
    unwanted = _is_unwanted(step, pending)
    if all_ready(pending) and not (unwanted and step.fleet.routed):
        ready = f"{pending.replicas} of {pending.replicas} pods of revision {pending.number} are ready"
        why = Verdict(True, EventReason.TRAFFIC_MOVED, ready)
        return step.still(why, Route(revision=pending.number, why=why), target=step.coming(pending))
    if (why_not := unwanted or _will_not_serve(step, pending)) is not None:
        return _give_up(step, pending, why_not)
    words = trouble(pending)
    message = f"revision {pending.number} starts {pending.limits.candidate}" + (f": {words}" if words else "")
    progress = Verdict(True, Reason.ROLLOUT_STARTED, message)
    return step.still(progress, *step.scaled(pending), target=step.coming(pending))


def _is_unwanted(step: Step, pending: Revision) -> Verdict | None:
    """The spec, or what is known of its candidate, changed while it started."""
    case, limits = step.case, pending.limits
    reason = triggers.why_to_leave(case)
    contender = served_contender(limits, case.bench.contenders)
    if contender is None or not contender.competes:
        return Verdict(False, reason, f"{limits.candidate} is not a candidate any more")
    option = case.bench.option(contender, limits.layer_budget, limits.precision, None)
    if step.fleet.routed and option.service not in case.scene.allowed_services:
        return Verdict(False, reason, f"{option} is outside what the spec allows now")
    return None


def _will_not_serve(step: Step, pending: Revision) -> Verdict | None:
    words = trouble(pending) or "it is not ready"
    if has_crashed(pending, policy=step.case.policy):
        return Verdict(False, Reason.PROGRESS_DEADLINE_EXCEEDED, f"its pods end again and again: {words}")
    deadline = step.case.spec.rollout.progress_deadline_seconds
    if step.case.now >= pending.created + timedelta(seconds=deadline):
        return Verdict(False, Reason.PROGRESS_DEADLINE_EXCEEDED, f"not ready after {deadline} s: {words}")
    return None


def _give_up(step: Step, pending: Revision, why: Verdict) -> Carried:
    """It serves nothing, so it may go. At the first start only when there is something else to try."""
    failed = record.entry(step.case, step.coming(pending), "Failed")
    failed = replace(failed, reason=why.reason, message=why.message)
    unwanted = why.reason in _UNWANTED
    if step.fleet.routed is None and not unwanted and not _has_alternative(step, pending, failed):
        return step.still(why, target=step.coming(pending))
    cause = _UNWANTED.get(why.reason)
    memory = replace(step.memory, trigger=cause.value) if cause else step.after_failure(why)
    return replace(
        step.still(why, DeleteRevision(number=pending.number, why=why), target=None),
        memory=memory,
        history=step.status.history if unwanted else record.appended(step.status.history, failed),
        rollout=step.ended(pending.number, "Failed", why),
    )


def _has_alternative(step: Step, pending: Revision, failed: HistoryEntry) -> bool:
    """Something else to start, or the certainty that nothing fits: then nothing is left half-started."""
    option = reference.choose(step.case, (*step.status.history, failed))
    tried = (pending.limits.candidate, pending.limits.layer_budget, pending.limits.precision)
    return isinstance(option, Verdict) or reference.tried_as(option) != tried


def _target_option(step: Step) -> Option | None:
    target = step.status.target
    contender = next((c for c in step.case.bench.contenders if target and c.name == target.candidate), None)
    if target is None or contender is None or not contender.measurable:
        return None
    option = step.case.bench.option(contender, target.layer_budget, target.precision, None)
    return replace(option, max_batch_size=target.max_batch_size)
