"""What starts a reassessment: a person, a changed spec, an alarm, enough requests, enough time.

Called by `reassess`. It must not weigh the evidence, only say that it is time to.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum

from helios_contract.telemetry import Alarm

from helios_operator.api.annotations import Request, newest_request
from helios_operator.api.conditions import Reason
from helios_operator.api.types import ReassessmentStatus, Trigger
from helios_operator.decide.facts.evidence import LiveEvidence
from helios_operator.decide.weigh import select
from helios_operator.decide.weigh.case import Case

KINDS = {
    Trigger.AUDIT: frozenset({"Audit", "Confidence"}),
    Trigger.CONFIDENCE: frozenset({"Breach"}),
}
"""Alarms that each policy listens to; Breach is the paper's counter."""
NEVER = datetime.fromtimestamp(0, UTC)


class Cause(StrEnum):
    """Of status.reassessment.trigger, the most urgent first."""

    MANUAL = "Manual"
    SPEC = "Spec"
    ALARM = "Alarm"
    REQUESTS = "Requests"
    INTERVAL = "Interval"


REASONS = {"Audit": Reason.AUDIT_ALARM, "Confidence": Reason.CONFIDENCE_ALARM, "Breach": Reason.BREACH_ALARM}


@dataclass(frozen=True)
class Call:
    cause: Cause
    reason: Reason
    message: str


def opened(case: Case) -> tuple[ReassessmentStatus, Call | None]:
    """The memory with the reassessment that is due now, and the call if it was not under way before. A person
    and the spec also call while another one, or a change, is under way: theirs would be forgotten otherwise.
    Whoever edits the spec has seen what failed: the back-off ends, and is doubled if it fails again.
    """
    memory = case.memory
    call = due(case)
    if call is None or (memory.trigger and call.cause not in (Cause.MANUAL, Cause.SPEC)):
        return memory, None
    is_edited = case.snapshot.deployment.status.observed_generation != case.snapshot.deployment.generation
    started = replace(
        memory,
        backoff_until=None if is_edited else memory.backoff_until,
        shifted_at=case.now if call.cause is Cause.ALARM else memory.shifted_at,
        trigger=call.cause.value,
        triggered_at=case.now,
        triggered_at_request=case.fleet.requests,
        prompts="",
    )
    return started, call


def due(case: Case) -> Call | None:
    memory, deployment, rules = case.memory, case.snapshot.deployment, case.spec.reassessment
    request = newest_request(deployment.annotations)
    if request and request.asked > (memory.triggered_at or NEVER):
        return Call(Cause.MANUAL, Reason.BY_HAND, _wish(request))
    if deployment.status.observed_generation != deployment.generation or case.must_leave(case.current(None)):
        if memory.trigger != Cause.SPEC:
            return Call(Cause.SPEC, Reason.SPEC_CHANGED, f"generation {deployment.generation} of the spec")
        return None
    if case.fleet.in_flight:
        return None
    if alarm := next((alarm for alarm in pending_alarms(case) if _is_news(alarm, case)), None):
        message = f"{alarm.kind} alarm ({alarm.direction}) at request {alarm.at_request}"
        return Call(Cause.ALARM, REASONS[alarm.kind], message)
    if rules.suspend:
        return None
    if (served := fresh_requests(case)) >= rules.every_requests:
        return Call(Cause.REQUESTS, Reason.REQUESTS_REACHED, f"{served} requests since the last reassessment")
    if memory.next_time and case.now >= memory.next_time:
        return Call(Cause.INTERVAL, Reason.INTERVAL_REACHED, "the interval has passed")
    return None


def pending_alarms(case: Case) -> list[Alarm]:
    """Raised since the last reassessment ended, newest first."""
    since = case.memory.last_time or NEVER
    alarms = [
        alarm for alarm in case.fleet.alarms(KINDS[case.spec.reassessment.trigger]) if alarm.time > since
    ]
    return sorted(alarms, key=lambda alarm: (alarm.time, alarm.since_request), reverse=True)


def _is_news(alarm: Alarm, case: Case) -> bool:
    """A shift that lasts is called again and again. One that was weighed already, and changed nothing, is
    left to the next regular reassessment, unless what serves has become infeasible meanwhile."""
    since = case.memory.last_time or NEVER
    known = (alarm.kind, alarm.direction)
    is_repeated = any(
        (other.kind, other.direction) == known and other.time <= since
        for telemetry in case.fleet.telemetry
        if alarm in telemetry.alarms
        for other in telemetry.alarms
    )
    return not is_repeated or _has_become_infeasible(alarm, case)


def _has_become_infeasible(alarm: Alarm, case: Case) -> bool:
    audits = case.fleet.audits_since(alarm)
    if case.contender is None or not audits:
        return False
    current = case.current(LiveEvidence(audits, case.contender, None))
    target = select.minimum_quality(case.spec.slo)
    return bool(current and current.quality and target is not None and current.quality.mean < target)


def fresh_requests(case: Case) -> int:
    """Finished since the last reassessment ended. Pods that restarted count from zero."""
    total = case.fleet.requests
    return total - case.memory.requests if total >= case.memory.requests else total


def request_by_hand(case: Case) -> Request | None:
    """The request that the reassessment under way answers."""
    return newest_request(case.snapshot.deployment.annotations)


def _wish(request: Request) -> str:
    return f"asked by hand: switch to {request.switch_to}" if request.switch_to else "asked by hand"
