"""What pods told, boot by boot: how much was served since it was last weighed, which alarms are news.

Counts and ordinals belong to one boot of one pod; sums over pods and times on a pod's clock do not compare.
So each boot is remembered on its own in status.reassessment.pods: where its count stood, and when (by the
operator's clock) each of its alarms was first heard. A pod that was not reached is unknown, and unknown is no
evidence: what it served meanwhile counts when it is seen again, unless something was concluded without it.

Called by `decide` first (`noted`), by `triggers` and `hysteresis` after it. It must not decide what is
enough.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from helios_contract.telemetry import Alarm, AuditRow, Telemetry

from helios_operator.api.timestamps import NEVER
from helios_operator.api.types import PodTally, ReassessmentStatus, Trigger
from helios_operator.decide.facts.fleet import Fleet
from helios_operator.decide.snapshot import Pod, Snapshot

TASKS = "Tasks"
"""An alarm that tells of what serves, whatever the traffic is."""
LISTENED = {
    Trigger.AUDIT: frozenset({"Audit", "Confidence", TASKS}),
    Trigger.CONFIDENCE: frozenset({"Breach", TASKS}),
}
"""Kinds of alarms by what listens to them; Breach is the paper's counter. Tasks only alarm where a probe is
asked for; all others tell of other traffic. A word that is newer tells nothing."""
_KINDS = frozenset().union(*LISTENED.values())
MOST_PODS = 4096
"""The CRD's maxItems. Pods beyond it are unknown."""


@dataclass(frozen=True)
class Heard:
    """An alarm, the pod that told it, and when a pass first saw it."""

    telemetry: Telemetry
    alarm: Alarm
    at: datetime

    @property
    def audits(self) -> tuple[AuditRow, ...]:
        """Of this pod, from the change point on."""
        return tuple(row for row in self.telemetry.audits if row.request >= self.alarm.since_request)

    @property
    def requests_ago(self) -> int:
        return self.telemetry.requests_finished - self.alarm.at_request


# -- each pass -----------------------------------------------------------------------------------------------


def noted(memory: ReassessmentStatus, snapshot: Snapshot, fleet: Fleet, now: datetime) -> ReassessmentStatus:
    """With the boots and alarms that this pass sees for the first time, without pods that are gone. A boot
    counts from where it stands when it is first seen, which is before anything is routed to it where that can
    be: what it served before was seen by nobody."""
    there = {pod.name for revision in snapshot.revisions for pod in revision.pods}
    pods = {pod.name: pod for pod in memory.pods if pod.name in there}
    coming = fleet.pending.pods if fleet.pending else ()
    for pod in (*fleet.ready_pods, *coming):
        if pod.ready and pod.telemetry:
            pods[pod.name] = _seen(pods.get(pod.name), pod.name, pod.telemetry, memory, now)
    shifts = LISTENED[snapshot.deployment.spec.reassessment.trigger] - {TASKS}
    is_shifted = any(
        at == now and told.split("/")[0] in shifts for pod in pods.values() for told, at in pod.alarms.items()
    )
    parting = _parting(pods, fleet)
    served = sum(count - (pods[name].requests or 0) for name, count in parting.items())
    pods |= {name: replace(pods[name], requests=count) for name, count in parting.items()}
    return replace(
        memory,
        requests=memory.requests + served,
        pods=tuple(pods[name] for name in sorted(pods))[:MOST_PODS],
        shifted_at=now if is_shifted else memory.shifted_at,
        blind_since=_blind_since(memory, fleet, now),
    )


def _parting(pods: Mapping[str, PodTally], fleet: Fleet) -> dict[str, int]:
    """What those have served that new requests no longer go to: at every look, for at the next one they may
    be gone."""
    return {
        pod.name: pod.telemetry.requests_finished
        for pod in _leaving(fleet)
        if pod.telemetry and (known := pods.get(pod.name)) and known.boot_id == pod.telemetry.boot_id
        if known.requests is not None and known.requests < pod.telemetry.requests_finished
    }


def _leaving(fleet: Fleet) -> Iterator[Pod]:
    for revision in fleet.retired:
        yield from revision.pods
    for pod in fleet.routed.pods if fleet.routed else ():
        if not pod.ready and pod.telemetry and pod.telemetry.draining:
            yield pod


def _blind_since(memory: ReassessmentStatus, fleet: Fleet, now: datetime) -> datetime | None:
    """Pods serve, and none that was ever heard tells anything. One that was never heard has just begun."""
    if fleet.telemetry or not fleet.ready_pods or not memory.pods:
        return None
    return memory.blind_since or now


def _seen(
    known: PodTally | None, name: str, telemetry: Telemetry, memory: ReassessmentStatus, now: datetime
) -> PodTally:
    count = telemetry.requests_finished
    if known is None or known.boot_id != telemetry.boot_id or (known.requests or 0) > count:
        known = PodTally(name, telemetry.boot_id)
    begun = count if known.triggered_at_request is None else known.triggered_at_request
    return replace(
        known,
        requests=count if known.requests is None else known.requests,
        triggered_at_request=None if memory.trigger is None else begun,
        alarms={
            label(alarm): known.alarms.get(label(alarm)) or _first_heard(alarm, memory, now)
            for alarm in telemetry.alarms
            if alarm.kind in _KINDS
        },
    )


def _first_heard(alarm: Alarm, memory: ReassessmentStatus, now: datetime) -> datetime:
    """Now; but a status that remembers no boot (an older operator's, or an older CRD's) tells by the pod's
    clock alone what was weighed."""
    is_older = not memory.pods and memory.last_time is not None and alarm.time <= memory.last_time
    return alarm.time if is_older else now


def label(alarm: Alarm) -> str:
    return f"{alarm.kind}/{alarm.direction}/{alarm.at_request}/{alarm.since_request}"


# -- what is news --------------------------------------------------------------------------------------------


def fresh(memory: ReassessmentStatus, fleet: Fleet) -> int:
    """Requests that finished since the last reassessment that counted, in the pods that were reached."""
    return sum(
        max(0, telemetry.requests_finished - pod.requests)
        for pod, telemetry in _reached(memory, fleet)
        if pod.requests is not None
    )


def total(memory: ReassessmentStatus, fleet: Fleet) -> int:
    """Requests counted so far, over all pods that ever served."""
    return memory.requests + fresh(memory, fleet)


def heard(memory: ReassessmentStatus, fleet: Fleet, kinds: frozenset[str]) -> list[Heard]:
    """The newest first: by when they were heard, then by how many requests ago they were raised."""
    found = [
        Heard(telemetry, alarm, pod.alarms[label(alarm)])
        for pod, telemetry in _reached(memory, fleet)
        for alarm in telemetry.alarms
        if alarm.kind in kinds and label(alarm) in pod.alarms
    ]
    return sorted(
        found, key=lambda each: (each.at, -each.requests_ago, each.alarm.since_request), reverse=True
    )


def pending(memory: ReassessmentStatus, fleet: Fleet, kinds: frozenset[str]) -> list[Heard]:
    """Those that no reassessment has weighed, newest first."""
    return [each for each in heard(memory, fleet, kinds) if each.at > (memory.last_time or NEVER)]


def is_silent(memory: ReassessmentStatus, fleet: Fleet) -> bool:
    """A pod that told an alarm which nobody weighed is in service and was not reached."""
    silent = {pod.name for pod in fleet.unreached}
    return any(pod.name in silent and _unweighed(pod, memory) for pod in memory.pods)


def since_trigger(memory: ReassessmentStatus, fleet: Fleet) -> dict[str, int]:
    """By boot: its first request after the reassessment under way began."""
    return {
        pod.boot_id: pod.triggered_at_request + 1
        for pod, _ in _reached(memory, fleet)
        if pod.triggered_at_request is not None
    }


# -- what was weighed ----------------------------------------------------------------------------------------


def opened(memory: ReassessmentStatus, fleet: Fleet) -> ReassessmentStatus:
    """A reassessment begins here, in every boot."""
    begun = {pod.name: telemetry.requests_finished for pod, telemetry in _reached(memory, fleet)}
    pods = tuple(replace(pod, triggered_at_request=begun.get(pod.name)) for pod in memory.pods)
    return replace(memory, pods=pods, triggered_at_request=total(memory, fleet))


def counted(memory: ReassessmentStatus, fleet: Fleet) -> ReassessmentStatus:
    """All that the pods served so far is weighed. Of a pod that was not reached nobody knows where its count
    stands: it counts again from where it is next seen."""
    reached = {pod.name: telemetry.requests_finished for pod, telemetry in _reached(memory, fleet)}
    leaving = {pod.name for pod in _leaving(fleet)}
    pods = tuple(
        pod if pod.name in leaving else replace(pod, requests=reached.get(pod.name)) for pod in memory.pods
    )
    return replace(memory, requests=total(memory, fleet), pods=pods)


def concluded(memory: ReassessmentStatus, fleet: Fleet, now: datetime) -> ReassessmentStatus:
    """Every alarm of a pod that was reached is weighed; what another one told is forgotten, to be heard
    again."""
    reached = {pod.name for pod, _ in _reached(memory, fleet)}
    pods = tuple(
        replace(
            pod,
            triggered_at_request=None,
            alarms=pod.alarms if pod.name in reached else _weighed(pod, memory),
        )
        for pod in memory.pods
    )
    return replace(memory, last_time=now, pods=pods)


def _reached(memory: ReassessmentStatus, fleet: Fleet) -> Iterator[tuple[PodTally, Telemetry]]:
    """The same boot as remembered."""
    known = {pod.name: pod for pod in memory.pods}
    for pod in fleet.ready_pods:
        tally = known.get(pod.name)
        if tally and pod.telemetry and pod.telemetry.boot_id == tally.boot_id:
            yield tally, pod.telemetry


def _weighed(pod: PodTally, memory: ReassessmentStatus) -> dict[str, datetime]:
    return {told: at for told, at in pod.alarms.items() if at <= (memory.last_time or NEVER)}


def _unweighed(pod: PodTally, memory: ReassessmentStatus) -> bool:
    return len(_weighed(pod, memory)) < len(pod.alarms)
