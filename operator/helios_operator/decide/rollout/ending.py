"""The end of a change: what arrived is written down, what served before ends its streams and goes.

Called by `rollout`. It must not end what serves.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from helios_operator.api.event_reasons import EventReason
from helios_operator.api.reasons import Reason
from helios_operator.api.types import Served
from helios_operator.decide.facts import tally
from helios_operator.decide.facts.fleet import (
    ANALYSING,
    is_empty,
)
from helios_operator.decide.plan import (
    Action,
    DeleteRevision,
    Verdict,
)
from helios_operator.decide.rollout import analysing, record
from helios_operator.decide.rollout.step import Carried, Step, shape
from helios_operator.decide.snapshot import Revision
from helios_operator.decide.weigh import hysteresis, remedies


def has_arrived(step: Step, routed: Revision) -> bool:
    """The status says something else than what is served."""
    is_up = routed.replicas == 0 or bool(step.fleet.telemetry)
    active = step.status.active
    changed = active is None or not record.same_service(active, record.served(routed, step.case))
    is_told = step.status.target is not None and step.status.target.revision == routed.number
    return is_up and (changed or is_told)


def complete(step: Step, routed: Revision) -> Carried:
    now, before = record.served(routed, step.case), step.status.active
    message = f"{shape(routed.limits)} serve as revision {routed.number}"
    progress = Verdict(True, Reason.WAITING_FOR_DRAIN if step.fleet.retired else Reason.NO_ROLLOUT, message)
    phase = "Draining" if step.fleet.retired else "Completed"
    began = step.status.rollout.message if step.status.rollout else message
    ended = step.ended(routed.number, phase, Verdict(True, EventReason.ROLLOUT_COMPLETED, began))
    carried = replace(step.still(progress, target=None), active=now, rollout=ended)
    if step.status.rollout and step.status.rollout.phase == "RolledBack":
        carried = replace(carried, rollout=step.status.rollout)
    if not _was_decided(step, before, now):
        return replace(carried, memory=tally.counted(step.memory, step.fleet))
    promoted = record.entry(step.case, now, "Promoted")
    if analysing.is_wanted(step):
        watched = Verdict(True, Reason.ANALYSING, f"{message}, watched before it is kept")
        watching = replace(ended, phase=ANALYSING, end_time=None, looks=0, bad_looks=0)
        carried = replace(carried, progress=watched, rollout=watching)
    return replace(
        carried,
        history=record.appended(step.status.history, promoted),
        memory=hysteresis.after_change(step.case, now, step.status.history),
    )


def _was_decided(step: Step, before: Served | None, now: Served) -> bool:
    """A change of what callers get; not the first start, nor new settings or pods of the same service."""
    if step.memory.last_time is None or step.memory.decision not in remedies.CHANGES:
        return False
    return before is None or not before.answers_as(now)


def take_out(step: Step, revision: Revision) -> Carried:
    """Of the traffic, back to what served before."""
    why = Verdict(True, Reason.WAITING_FOR_DRAIN, f"revision {revision.number} was undone")
    return step.still(why, step.drain(revision, why), target=None)


def retire(step: Step) -> Carried:
    """Old revisions end their streams by themselves, then go."""
    actions = tuple(action for revision in step.fleet.retired if (action := _retirement(step, revision)))
    streams = sum(p.telemetry.running for r in step.fleet.retired for p in r.pods if p.telemetry)
    numbers = ", ".join(str(revision.number) for revision in step.fleet.retired)
    why = Verdict(True, Reason.WAITING_FOR_DRAIN, f"revision {numbers} ends {streams} streams")
    return step.still(why, *actions, target=step.status.target if step.fleet.routed is None else None)


def _retirement(step: Step, revision: Revision) -> Action | None:
    if revision.draining:
        if not is_empty(revision):
            return None
        if revision.number in step.fleet.kept:
            return None
        return DeleteRevision(
            number=revision.number,
            why=Verdict(True, EventReason.REVISION_DELETED, "its last stream has ended"),
        )
    since = step.status.active.since if step.status.active else None
    delay = timedelta(seconds=step.case.spec.rollout.scale_down_delay_seconds)
    if since and step.case.now < since + delay:
        return None
    return step.drain(revision, Verdict(True, Reason.WAITING_FOR_DRAIN, "its successor serves"))
