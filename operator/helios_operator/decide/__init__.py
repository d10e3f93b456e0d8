"""The decisions: what is seen goes in as a Snapshot, what is to be done comes out as a Plan.

Pure: no I/O, no clock (`now` is an argument), no memory but the status; every constant is the policy's.
Called by the runtimes, `local` and `cluster`, which observe before and apply after. It must not import kopf,
kubernetes, torch or grpc.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta

from helios_contract.serves import REFERENCE

from helios_operator.api.reasons import Reason
from helios_operator.decide.facts import candidates, tally, window
from helios_operator.decide.facts.candidates import Contender
from helios_operator.decide.facts.fleet import Fleet
from helios_operator.decide.facts.task_passes import TaskEvidence
from helios_operator.decide.measure import catalogue, profiling
from helios_operator.decide.plan import Plan
from helios_operator.decide.policy import DEFAULT, Policy
from helios_operator.decide.rollout import analysing, dispatch, status
from helios_operator.decide.snapshot import JobSpec, Snapshot
from helios_operator.decide.weigh import live, reassess, shortlist
from helios_operator.decide.weigh.case import Case
from helios_operator.decide.weigh.options import Bench, Option
from helios_operator.decide.weigh.scene import Scene, served_contender

__all__ = ["Policy", "decide", "missing", "weigh"]


def decide(snapshot: Snapshot, now: datetime, policy: Policy = DEFAULT) -> Plan:
    """One pass: who competes, what must be measured, is what serves still right, and what is the next thing
    to do."""
    fleet = Fleet.of(snapshot)
    bench = _bench(snapshot, fleet, now, policy)
    measuring = profiling.measure(snapshot, bench, fleet, now)
    scene = Scene(snapshot, bench, fleet, now, measuring.done, measuring.looked, measuring.timed)
    remembered = snapshot.deployment.status.reassessment
    case = Case(scene, tally.noted(remembered, snapshot, fleet, now))
    outcome = reassess.reassess(case)
    case = case.remembering(outcome.memory)
    carried = dispatch.next_step(case, outcome)
    report = status.Report(case, measuring, outcome, carried)
    new = status.compose(report)
    return Plan(
        actions=(*measuring.actions, *carried.actions),
        status=new,
        models=tuple(catalogue.learned(snapshot, bench.contenders, now)),
        events=tuple(status.events(report, new)),
        requeue_after_seconds=_requeue(report),
        quality=live.seen_quality(case),
    )


def weigh(
    snapshot: Snapshot, now: datetime, policy: Policy = DEFAULT
) -> tuple[tuple[Contender, ...], tuple[Option, ...]]:
    """Who competes or was turned away, and every option judged on the profiles, best first: for `helios
    plan`."""
    fleet = Fleet.of(snapshot)
    bench = _bench(snapshot, fleet, now, policy)
    scene = Scene(snapshot, bench, fleet, now, measuring_done=True)
    return bench.contenders, scene.allowed_on(scene.profiles)


def missing(snapshot: Snapshot, now: datetime, policy: Policy = DEFAULT) -> tuple[JobSpec, ...]:
    """The measurements that a choice waits for, the most urgent first: for `helios plan`."""
    fleet = Fleet.of(snapshot)
    return tuple(profiling.Table(snapshot, _bench(snapshot, fleet, now, policy), fleet, now).wanted())


def _bench(snapshot: Snapshot, fleet: Fleet, now: datetime, policy: Policy) -> Bench:
    """The contenders, shortlisted, and what serving tells of this machine."""
    known = candidates.gather(snapshot, policy)
    serving = served_contender(fleet.serving, known) if fleet.serving else None
    held = fleet.serving.precision if fleet.serving else REFERENCE
    bench = Bench.of(snapshot, known, fleet.telemetry, serving, policy, held)
    listed = shortlist.shortlist(bench, serving.key if serving else None)
    return replace(bench, contenders=listed, tasks=TaskEvidence.of(snapshot, listed, fleet, now, policy))


def _requeue(report: status.Report) -> float | None:
    """Seconds until the next moment at which something is due by the clock alone."""
    case, memory, rules = report.case, report.carried.memory, report.case.spec.rollout
    pending, active = case.fleet.pending, report.carried.active
    moments = [
        memory.backoff_until,
        memory.cooldown_until,
        memory.next_time,
        report.measuring.again_at,
        analysing.next_look(case),
        _window_opens(case),
        pending.created + timedelta(seconds=rules.progress_deadline_seconds) if pending else None,
        active.since + timedelta(seconds=rules.scale_down_delay_seconds)
        if active and active.since and case.fleet.retired
        else None,
    ]
    due = [(moment - case.now).total_seconds() for moment in moments if moment and moment > case.now]
    return min(due, default=None)


def _window_opens(case: Case) -> datetime | None:
    """While a change waits for it."""
    maintenance = case.spec.reassessment.maintenance_window
    if maintenance is None or case.memory.reason != Reason.OUTSIDE_WINDOW:
        return None
    with suppress(ValueError):
        return window.next_start(maintenance, case.now)
    return None
