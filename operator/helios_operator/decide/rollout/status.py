"""The status: conditions, candidates, replicas, phase; and the events of what became different.

Called last by `decide`, from what the concerns answered. A condition's time changes only with its status. It
must not decide, and it says nothing that no concern said.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from helios_contract.serves import REFERENCE

from helios_operator.api.conditions import ConditionType
from helios_operator.api.event_reasons import EventReason
from helios_operator.api.reasons import Reason
from helios_operator.api.types import CandidateStatus, Condition, Decision, DeploymentStatus
from helios_operator.api.words import Where
from helios_operator.decide.facts.candidates import Contender, identity
from helios_operator.decide.facts.evidence import ProfileEvidence
from helios_operator.decide.facts.fleet import trouble
from helios_operator.decide.facts.precisions import suffix
from helios_operator.decide.facts.quality import whole
from helios_operator.decide.measure.profiling import Measuring
from helios_operator.decide.plan import Event, Verdict
from helios_operator.decide.rollout import record
from helios_operator.decide.rollout.step import Carried
from helios_operator.decide.weigh import live, remedies, triggers
from helios_operator.decide.weigh.case import Case
from helios_operator.decide.weigh.options import Option
from helios_operator.decide.weigh.reassess import Outcome

UNDER_WAY = (
    Reason.ROLLOUT_STARTED,
    Reason.LIMITS_CHANGING,
    Reason.ANALYSING,
    Reason.WAITING_FOR_DRAIN,
    Reason.WAITING_FOR_ACCELERATOR,
    Reason.OUTAGE_BY_RECREATE,
)
"""Reasons under which Progressing is True."""
PROGRESS_WORDS = frozenset(reason for reason in Reason if Where.PROGRESSING in reason.where)
TOLD = (ConditionType.AVAILABLE, ConditionType.PROFILED, ConditionType.SLO_MET)
"""Conditions whose transitions are events; the actions tell of the others."""


@dataclass(frozen=True)
class Report:
    """Everything that the concerns answered in this pass."""

    case: Case
    measuring: Measuring
    outcome: Outcome
    carried: Carried


def compose(report: Report) -> DeploymentStatus:
    case, carried = report.case, report.carried
    deployment, fleet = case.snapshot.deployment, case.fleet
    newest = fleet.pending or fleet.routed
    conditions = tuple(_conditions(report))
    return replace(
        deployment.status,
        observed_generation=deployment.generation,
        phase=_phase(report, {c.type: c for c in conditions}),
        conditions=conditions,
        replicas=sum(len(revision.pods) for revision in case.snapshot.revisions),
        ready_replicas=len(fleet.ready_pods),
        updated_replicas=sum(pod.ready for pod in newest.pods) if newest else 0,
        active=carried.active,
        target=carried.target,
        candidates=tuple(_candidates(report)),
        jobs=report.measuring.jobs,
        reassessment=carried.memory,
        rollout=carried.rollout,
        history=carried.history,
    )


def events(report: Report, new: DeploymentStatus) -> Iterator[Event]:
    """Transitions that no action tells of."""
    old = report.case.snapshot.deployment.status
    if call := report.outcome.call:
        if call.alarm:
            yield Event("Normal", call.alarm, call.message)
        yield Event("Normal", EventReason.REASSESSMENT_STARTED, call.message)
    before, after = old.reassessment, new.reassessment
    committed = report.outcome.change is not None
    is_new = (before.decision, before.reason) != (after.decision, after.reason)
    if after.decision and not committed and (is_new or _ends_by_hand(report)):
        kind = "Warning" if after.decision in (Decision.BLOCKED, Decision.INCONCLUSIVE) else "Normal"
        asked = "the request by hand ended with " if _ends_by_hand(report) else ""
        yield Event(kind, after.reason, f"{asked}{after.decision}: {after.message}")
    if len(new.history) and new.history[-1:] != old.history[-1:] and new.history[-1].result == "Promoted":
        done = new.history[-1]
        yield Event(
            "Normal",
            EventReason.ROLLOUT_COMPLETED,
            remedies.named(
                done.kind,
                f"{done.to.candidate} at {done.to.layer_budget} layers{suffix(done.to.precision)}",
                done.to.precision,
            ),
        )
    if lost := record.lost_room(old.active, new.active):
        yield Event("Warning", EventReason.LARGEST_REQUEST_FELL, lost)
    known = {c.type: c for c in old.conditions}
    for condition in new.conditions:
        was = known.get(condition.type)
        if condition.type in TOLD and was and _is_news(was, condition):
            kind = "Warning" if condition.status == "False" else "Normal"
            yield Event(kind, condition.reason, f"{condition.type}={condition.status}: {condition.message}")


def _is_news(before: Condition, now: Condition) -> bool:
    """Another status; or a person is asked for prompts, who has heard of measuring alone."""
    waits = Reason.WAITING_FOR_PROMPTS
    return before.status != now.status or now.reason == waits != before.reason


def _ends_by_hand(report: Report) -> bool:
    """What a person asked for has its answer, though it be that of the last time."""
    call, before = report.outcome.call, report.case.snapshot.deployment.status.reassessment
    cause = call.cause if call else before.trigger
    return cause == triggers.Cause.MANUAL and report.outcome.memory.trigger is None


# -- conditions ----------------------------------------------------------------------------------------------


def _conditions(report: Report) -> Iterator[Condition]:
    available, progressing = _available(report), _progressing(report)
    profiled, slo = report.measuring.progress, live.slo_met(report.case)
    ready = _ready(report, available, progressing, slo)
    yield _condition(report, ConditionType.AVAILABLE, "True" if available.ok else "False", available)
    yield _condition(
        report, ConditionType.PROGRESSING, "True" if progressing.reason in UNDER_WAY else "False", progressing
    )
    yield _condition(report, ConditionType.PROFILED, "True" if profiled.ok else "False", profiled)
    yield _condition(report, ConditionType.SLO_MET, _unless_unknown(slo), slo)
    yield _condition(report, ConditionType.READY, "True" if ready.ok else "False", ready)


def _condition(report: Report, kind: ConditionType, status: str, verdict: Verdict) -> Condition:
    deployment = report.case.snapshot.deployment
    before = next((c for c in deployment.status.conditions if c.type == kind), None)
    since = before.last_transition_time if before and before.status == status else report.case.now
    return Condition(kind.value, status, str(verdict.reason), verdict.message, since, deployment.generation)


def _unless_unknown(slo: Verdict) -> str:
    if slo.reason in (Reason.INSUFFICIENT_DATA, Reason.NO_TARGET):
        return "Unknown"
    return "True" if slo.ok else "False"


def _available(report: Report) -> Verdict:
    case, fleet = report.case, report.case.fleet
    if fleet.routed and fleet.ready_pods:
        count = f"{len(fleet.ready_pods)}/{fleet.routed.replicas} pods serve {fleet.routed.limits.candidate}"
        return Verdict(True, Reason.MINIMUM_REPLICAS_SERVING, count)
    if case.spec.replicas == 0:
        return Verdict(False, Reason.SCALED_TO_ZERO, "spec.replicas is 0")
    if case.snapshot.deployment.status.active is None and not fleet.retired:
        words = trouble(fleet.pending) if fleet.pending else report.carried.progress.message
        return Verdict(False, Reason.STARTING, words or "the first pod is starting")
    words = trouble(fleet.routed) if fleet.routed else report.carried.progress.message
    return Verdict(False, Reason.NO_REPLICA_SERVING, words or "no pod is ready")


def _progressing(report: Report) -> Verdict:
    """In the condition's own words; what else was said stands in the message, or in Ready."""
    progress = report.carried.progress
    if progress.reason in (Reason.REFERENCE_CANDIDATE, EventReason.TRAFFIC_MOVED):
        return replace(progress, reason=Reason.ROLLOUT_STARTED)
    return progress if progress.reason in PROGRESS_WORDS else replace(progress, reason=Reason.NO_ROLLOUT)


def _ready(report: Report, available: Verdict, progressing: Verdict, slo: Verdict) -> Verdict:
    memory, progress = report.carried.memory, report.carried.progress
    if progress.reason == Reason.INVALID_SPEC:
        return progress
    if not available.ok:
        if progress.reason in (Reason.NOT_ENOUGH_MEMORY, Reason.NO_FEASIBLE_CANDIDATE):
            return Verdict(False, Reason.NO_FEASIBLE_CANDIDATE, progress.message)
        return available
    if memory.reason in (Reason.NO_FEASIBLE_CANDIDATE, Reason.NO_FEASIBLE_OPTION):
        return Verdict(False, Reason.NO_FEASIBLE_CANDIDATE, memory.message)
    if leave := report.case.must_leave:
        why = triggers.why_to_leave(report.case)
        return Verdict(False, why, f"{leave}; it serves until its successor does")
    if _is_unprompted(report):
        return Verdict(False, Reason.NO_PROMPTS, report.measuring.progress.message)
    if memory.last_time is None:
        return Verdict(False, Reason.NOT_PROFILED, report.measuring.progress.message)
    if progressing.reason == Reason.PROGRESS_DEADLINE_EXCEEDED:
        return progressing
    if slo.reason in live.MISSED and not slo.ok:
        return slo
    return Verdict(True, Reason.SERVING, available.message)


def _is_unprompted(report: Report) -> bool:
    """Nobody knows how good anything is, and nothing will tell."""
    return report.measuring.progress.reason == Reason.NO_PROMPTS and report.case.profiles is None


def _phase(report: Report, conditions: dict[str, Condition]) -> str:
    """For people only."""
    if conditions[ConditionType.READY].reason == Reason.INVALID_SPEC:
        return "Invalid"
    if conditions[ConditionType.AVAILABLE].status != "True":
        return "ScaledToZero" if report.case.spec.replicas == 0 else "Starting"
    if conditions[ConditionType.PROGRESSING].status == "True":
        return "Changing"
    is_over = report.measuring.done and _is_unprompted(report)
    if report.carried.memory.last_time is None and not is_over:
        return "Profiling"
    return "Serving" if conditions[ConditionType.READY].status == "True" else "Degraded"


# -- candidates ----------------------------------------------------------------------------------------------


def _candidates(report: Report) -> Iterator[CandidateStatus]:
    """In the spec's order, or the catalogue's names': people look them up there."""
    case = report.case
    options = case.scene.judged_on_profiles
    names = [candidate.name for candidate in case.spec.candidates]
    order = {name: place for place, name in enumerate(names)}
    for contender in sorted(case.bench.contenders, key=lambda c: (order.get(c.name, 0), c.name)):
        yield _candidate(contender, [o for o in options if o.contender.key == contender.key], report)


def _candidate(contender: Contender, options: list[Option], report: Report) -> CandidateStatus:
    found = CandidateStatus(
        name=contender.name,
        state=_state(contender, options, report),
        feasible=any(option.verdict.ok for option in options),
        resolved=contender.resolved,
        timing=contender.timing.name if contender.timing else None,
        identity=identity(contender.candidate) if contender.resolved or _is_unresolved(contender) else "",
    )
    if contender.turned_away:
        return replace(found, message=contender.turned_away.message)
    if not options:
        return found
    best = options[0]
    profiles = report.case.profiles
    row = contender.quality_on(profiles.prompts_digest, best.precision) if profiles else None
    return replace(
        found,
        timing=best.timing.name if best.timing else found.timing,
        profiles=tuple(dict.fromkeys(_others(contender, best, profiles))),
        weight_dtype=None if best.precision == REFERENCE else best.precision.weight_dtype,
        kv_cache_dtype=None if best.precision == REFERENCE else best.precision.kv_cache_dtype,
        quality=row.name if row else None,
        layer_budget=best.layer_budget,
        max_batch_size=best.max_batch_size or None,
        tokens_per_second=round(best.performance.expected.tokens_per_second) if best.performance else None,
        quality_percent=whole(best.quality.mean) if best.quality else None,
        message="" if best.verdict.ok else best.verdict.message,
    )


def _others(contender: Contender, best: Option, profiles: ProfileEvidence | None) -> Iterator[str]:
    """Rows that the best option is compared by."""
    for precision in (p for p in (REFERENCE, *contender.precisions) if p != best.precision):
        timing = contender.timing_at(precision)
        row = contender.quality_on(profiles.prompts_digest, precision) if profiles else None
        yield from (found.name for found in (timing, row) if found)


def _state(contender: Contender, options: list[Option], report: Report) -> str:
    if contender.turned_away:
        return "Failed" if _is_unresolved(contender) else "Rejected"
    if contender.resolved is None:
        return "Pending"
    if any(option.verdict.ok for option in options):
        return "Profiled"
    failed = contender.timing_failed if contender.timing is None else None
    if failed or (
        contender.qualities and contender.qualities[0].phase == "Failed" and not _measured(contender)
    ):
        return "Failed"
    verdicts = {option.verdict.reason for option in options}
    if {Reason.NOT_PROFILED, Reason.TASKS_NOT_MEASURED} & verdicts:
        return "Profiling"
    return "NoPrompts" if Reason.NO_PROMPTS in verdicts else "Infeasible"


def _measured(contender: Contender) -> bool:
    return any(row.exits for row in contender.qualities)


def _is_unresolved(contender: Contender) -> bool:
    return contender.turned_away is not None and contender.turned_away.reason == Reason.UNRESOLVED
