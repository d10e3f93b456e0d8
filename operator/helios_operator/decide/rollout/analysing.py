"""Watching a change before it is kept: looks at what its pods tell, and the way back when too many are bad.

Called by `rollout`, where the spec asks for it. What served before is kept beside it meanwhile, where it was
another revision. A change is judged by the SLO alone, and only when what it replaced met it.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from helios_contract.limits import Limits

from helios_operator.api.conditions import ConditionType
from helios_operator.api.reasons import Reason
from helios_operator.api.types import Analysis, HistoryEntry, RolloutStatus
from helios_operator.decide.facts.fleet import ANALYSING, all_ready
from helios_operator.decide.plan import Route, Verdict, WriteLimits
from helios_operator.decide.rollout import record
from helios_operator.decide.rollout.limits import limits_for
from helios_operator.decide.rollout.step import Carried, Step
from helios_operator.decide.snapshot import Revision
from helios_operator.decide.weigh import live
from helios_operator.decide.weigh.case import Case
from helios_operator.decide.weigh.strategy import reaches
from helios_operator.decide.weigh.triggers import Cause


def is_wanted(step: Step) -> bool:
    """What missed its SLO before is not to be had back."""
    conditions = step.status.conditions
    missed = any(c.type == ConditionType.SLO_MET and c.status == "False" for c in conditions)
    return step.case.spec.rollout.analysis is not None and not missed


def is_under_way(step: Step, revision: Revision) -> bool:
    rollout = step.status.rollout
    return bool(rollout and rollout.phase == ANALYSING and rollout.revision == revision.number)


def was_taken_back(step: Step, revision: Revision) -> bool:
    """Traffic has left it, though it can serve."""
    rollout = step.status.rollout
    left = rollout is not None and rollout.phase in (ANALYSING, "RolledBack")
    return bool(rollout and left and rollout.revision == revision.number)


def next_look(case: Case) -> datetime | None:
    """None when no analysis is under way."""
    status, analysis = case.snapshot.deployment.status, case.spec.rollout.analysis
    rollout, active = status.rollout, status.active
    if analysis is None or rollout is None or rollout.phase != ANALYSING or active is None:
        return None
    return (active.since or case.now) + analysis.interval * (rollout.looks + 1)


def look(step: Step, routed: Revision) -> Carried:
    """At most one a pass. A change of the spec, or a wish, ends the analysis: what comes next is weighed."""
    rollout, analysis, due = step.status.rollout, step.case.spec.rollout.analysis, next_look(step.case)
    if rollout is None or analysis is None or due is None:
        return _keep(step, routed, rollout, "the spec has no analysis any more")
    if _is_overtaken(step):
        return _keep(step, routed, rollout, "a newer request or spec replaces it")
    if step.case.now < due:
        return _go_on(step, routed, analysis, rollout)
    problem = _problem(step)
    seen = replace(rollout, looks=rollout.looks + 1, bad_looks=rollout.bad_looks + bool(problem))
    said = f"{seen.bad_looks} of {seen.looks} checks failed"
    if seen.bad_looks > analysis.failure_limit:
        why = Verdict(False, Reason.ROLLED_BACK, f"{said}: {problem}")
        back = _take_back(step, routed, seen, why) if analysis.auto_rollback else None
        return back or _keep(step, routed, seen, f"{why.message}; there is no rollback to what served before")
    if seen.looks >= analysis.count:
        requests = step.fleet.requests_since_change
        return _keep(step, routed, seen, f"{said}, {requests} requests since the change")
    return _go_on(step, routed, analysis, seen)


def _is_overtaken(step: Step) -> bool:
    """By what was asked for since it serves; the call that led to it may still be open."""
    deployment, memory, active = step.case.snapshot.deployment, step.memory, step.status.active
    since = active.since if active else None
    asked = memory.triggered_at if memory.trigger == Cause.MANUAL else None
    is_wished = asked is not None and since is not None and asked > since
    return is_wished or step.status.observed_generation != deployment.generation


def _problem(step: Step) -> str:
    """What is bad now; "" when nothing is, or nobody can tell."""
    if not step.fleet.ready_pods:
        return "no pod is ready"
    seen = live.slo_met(step.case)
    return seen.message if seen.reason in live.MISSED else ""


def _go_on(step: Step, routed: Revision, analysis: Analysis, seen: RolloutStatus) -> Carried:
    allowed = f"{seen.bad_looks} bad ({analysis.failure_limit} allowed)"
    text = f"revision {routed.number} is watched: {seen.looks} of {analysis.count} looks, {allowed}"
    why = Verdict(True, Reason.ANALYSING, text)
    return step.still(why, *step.scaled(routed), target=None, rollout=seen)


def _keep(step: Step, routed: Revision, seen: RolloutStatus | None, message: str) -> Carried:
    why = Verdict(True, Reason.NO_ROLLOUT, f"revision {routed.number} is kept: {message}")
    return step.still(why, target=None, rollout=_ended(step, seen, "Completed", why))


def _ended(step: Step, seen: RolloutStatus | None, phase: str, why: Verdict) -> RolloutStatus | None:
    return replace(seen, phase=phase, message=why.message, end_time=step.case.now) if seen else None


# -- the way back --------------------------------------------------------------------------------------------


def _take_back(step: Step, routed: Revision, seen: RolloutStatus, why: Verdict) -> Carried | None:
    """Traffic goes back to the old pods; where there are none, the running ones are told the old limits."""
    if old := _old_revision(step):
        carried = step.still(why, Route(revision=old.number, why=why), target=None)
        carried = replace(carried, active=record.served(old, step.case))
    elif limits := _old_limits(step, routed):
        carried = step.still(why, WriteLimits(revision=routed.number, limits=limits, why=why), target=None)
    else:
        return None
    return replace(
        carried,
        memory=step.after_failure(why),
        history=_amended(step.status.history, why),
        rollout=_ended(step, seen, "RolledBack", why),
    )


def _old_revision(step: Step) -> Revision | None:
    serving = [revision for revision in step.fleet.retired if not revision.draining and all_ready(revision)]
    return max(serving, key=lambda revision: revision.number, default=None)


def _old_limits(step: Step, routed: Revision) -> Limits | None:
    case, history = step.case, step.status.history
    before = history[-1].from_ if history and history[-1].result == "Promoted" else None
    contender = next((c for c in case.bench.contenders if before and c.name == before.candidate), None)
    if before is None or contender is None or contender.measurable is None:
        return None
    option = replace(
        case.bench.option(contender, before.layer_budget, before.precision, None),
        max_batch_size=before.max_batch_size,
    )
    if not reaches(routed, option):
        return None
    return limits_for(option, case.bench.contenders, case.snapshot, case.profiles, step.generation)


def _amended(history: tuple[HistoryEntry, ...], why: Verdict) -> tuple[HistoryEntry, ...]:
    """The entry of the change that was taken back says so."""
    if not history or history[-1].result != "Promoted":
        return history
    return (*history[:-1], replace(history[-1], result="RolledBack", message=why.message))
