"""What starts a reassessment: a person, a changed spec, an alarm, enough requests, enough time.

Called by `reassess`. It must not weigh the evidence, only say that it is time to.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from helios_contract.serves import REFERENCE

from helios_operator.api.annotations import Request, newest_request
from helios_operator.api.event_reasons import EventReason
from helios_operator.api.reasons import Reason
from helios_operator.api.timestamps import NEVER
from helios_operator.api.types import ReassessmentStatus
from helios_operator.decide.facts import tally
from helios_operator.decide.facts.tally import Heard
from helios_operator.decide.weigh import select
from helios_operator.decide.weigh.case import Case


class Cause(StrEnum):
    """Of status.reassessment.trigger, the most urgent first."""

    MANUAL = "Manual"
    SPEC = "Spec"
    CANDIDATES = "Candidates"
    ALARM = "Alarm"
    REQUESTS = "Requests"
    INTERVAL = "Interval"


ALARMS = {
    "Audit": EventReason.AUDIT_ALARM,
    "Confidence": EventReason.CONFIDENCE_ALARM,
    "Breach": EventReason.BREACH_ALARM,
    tally.TASKS: EventReason.TASK_ALARM,
}


_URGENT = (Cause.MANUAL, Cause.SPEC, Cause.CANDIDATES)
"""They call while another one is under way."""


@dataclass(frozen=True)
class Call:
    """`alarm`: the reason of its event, when one is the cause."""

    cause: Cause
    message: str
    alarm: EventReason | None = None


def opened(case: Case) -> tuple[ReassessmentStatus, Call | None]:
    """The memory with the reassessment that is due now, and the call if it was not under way before. A person
    and the spec also call while another one, or a change, is under way: theirs would be forgotten otherwise.
    Whoever edits the spec has seen what failed: the back-off ends, and is doubled if it fails again.
    """
    memory = case.memory
    call = due(case)
    if call is None or (memory.trigger and call.cause not in _URGENT):
        return memory, None
    is_edited = case.snapshot.deployment.status.observed_generation != case.snapshot.deployment.generation
    started = replace(
        tally.opened(memory, case.fleet),
        backoff_until=None if is_edited else memory.backoff_until,
        trigger=call.cause.value,
        triggered_at=case.now,
        prompts="",
    )
    return started, call


def is_unanswered(request: Request, memory: ReassessmentStatus) -> bool:
    """Whether a person asked after the newest reassessment was called for."""
    return request.asked > (memory.triggered_at or NEVER)


def due(case: Case) -> Call | None:
    memory, deployment, rules = case.memory, case.snapshot.deployment, case.spec.reassessment
    request = newest_request(deployment.annotations)
    if request and is_unanswered(request, memory):
        return Call(Cause.MANUAL, _wish(request))
    if deployment.status.observed_generation != deployment.generation:
        if memory.trigger != Cause.SPEC:
            return Call(Cause.SPEC, f"generation {deployment.generation} of the spec")
        return None
    if case.fleet.in_flight:
        return None
    if case.must_leave:
        if memory.trigger not in (Cause.SPEC, Cause.CANDIDATES):
            return Call(Cause.CANDIDATES, case.must_leave)
        return None
    if heard := next((heard for heard in pending_alarms(case) if _is_news(heard, case)), None):
        alarm = heard.alarm
        message = f"{alarm.kind} alarm ({alarm.direction}) at request {alarm.at_request}"
        return Call(Cause.ALARM, message, ALARMS[alarm.kind])
    if rules.suspend:
        return None
    if (served := tally.fresh(memory, case.fleet)) >= rules.every_requests:
        return Call(Cause.REQUESTS, f"{served} requests since the last reassessment")
    if memory.next_time and case.now >= memory.next_time:
        return Call(Cause.INTERVAL, "the interval has passed")
    return None


def is_edited(case: Case) -> bool:
    """The spec changed, and no reassessment has ended since."""
    deployment = case.snapshot.deployment
    triggers = (case.memory.trigger, deployment.status.reassessment.trigger)
    return deployment.status.observed_generation != deployment.generation or Cause.SPEC in triggers


def why_to_leave(case: Case) -> Reason:
    """What took away what serves: the spec, or what became of the candidates while it stood. The successor
    that was chosen for an edit is on its way when its reassessment has ended."""
    if case.memory.trigger == Cause.CANDIDATES:
        return Reason.CANDIDATES_CHANGED
    decided = case.memory.trigger is None and case.memory.reason == Reason.SPEC_CHANGED
    return Reason.SPEC_CHANGED if decided or is_edited(case) else Reason.CANDIDATES_CHANGED


def pending_alarms(case: Case) -> list[Heard]:
    """Heard since the last reassessment ended, newest first."""
    return tally.pending(case.memory, case.fleet, tally.LISTENED[case.spec.reassessment.trigger])


def fallen_tasks(case: Case) -> bool:
    """Whether what serves does not pass what it did, by an alarm that nobody weighed."""
    heard = any(each.alarm.kind == tally.TASKS for each in pending_alarms(case))
    return heard and case.memory.trigger == Cause.ALARM


def _is_news(heard: Heard, case: Case) -> bool:
    """A shift that lasts is called again and again. One that was weighed already, and changed nothing, is
    left to the next regular reassessment, unless what serves has become infeasible meanwhile."""
    alarm, since = heard.alarm, case.memory.last_time or NEVER
    is_repeated = any(
        (other.alarm.kind, other.alarm.direction) == (alarm.kind, alarm.direction)
        for other in tally.heard(case.memory, case.fleet, frozenset({alarm.kind}))
        if other.telemetry is heard.telemetry and other.at <= since
    )
    return not is_repeated or _has_become_infeasible(heard, case)


def _has_become_infeasible(heard: Heard, case: Case) -> bool:
    """By the audits alone, as far as they tell: how another precision compares the profile knows."""
    if case.contender is None or not heard.audits:
        return False
    live = case.live(heard.audits, case.contender)
    if case.precision == REFERENCE:
        live = replace(live, profiles=None)
    current = case.current_on(live)
    target = select.minimum_quality(case.spec.slo, case.policy)
    return bool(current and current.quality and target is not None and current.quality.mean < target)


def request_by_hand(case: Case) -> Request | None:
    """The request that the reassessment under way answers."""
    return newest_request(case.snapshot.deployment.annotations)


def _wish(request: Request) -> str:
    return f"requested by hand: switch to {request.switch_to}" if request.switch_to else "requested by hand"
