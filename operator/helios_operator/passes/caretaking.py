"""A HeliosDeployment about which nothing can be decided: its spec breaks a rule, its status is of another
release, its passes fail. What serves goes on being looked after, and the object says what is wrong.

Called by every runtime in place of `decide`. It works on the status as it stands in the API, so that what
cannot be read is not lost either: it changes what it names and keeps every other word. It starts nothing and
moves no traffic; an old revision whose successor serves ends its streams.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from helios_operator.api import parse
from helios_operator.api.codec import Malformed, decode, encode
from helios_operator.api.conditions import ConditionType
from helios_operator.api.event_reasons import EventReason
from helios_operator.api.reasons import Reason
from helios_operator.api.types import Condition, Deployment, DeploymentSpec, DeploymentStatus, Rollout
from helios_operator.decide.facts.fleet import ANALYSING, Fleet, is_empty, trouble
from helios_operator.decide.plan import Action, DeleteRevision, DrainRevision, Verdict
from helios_operator.decide.snapshot import Hardware, Revision, Snapshot

Json = dict[str, Any]
_WATCHED = ("RollingOut", ANALYSING)
"""Phases of a rollout in which the revision before is still needed."""
_NOWHERE = Hardware(None, 0, 0, "", 0, "")


def stub(obj: Mapping[str, Any]) -> Deployment:
    """As much of an object as can be read: enough to speak of it, and of its revisions."""
    metadata = obj["metadata"]
    spec = obj.get("spec")
    rollout = _readable(spec.get("rollout") if isinstance(spec, Mapping) else None)
    return Deployment(
        name=metadata["name"],
        namespace=metadata.get("namespace", "default"),
        uid=metadata.get("uid", ""),
        generation=metadata.get("generation", 0),
        spec=DeploymentSpec(model_name=metadata["name"], rollout=rollout),
        status=readable_status(obj) or DeploymentStatus(),
    )


def readable_status(obj: Mapping[str, Any]) -> DeploymentStatus | None:
    """None: it is of another release."""
    try:
        return parse.deployment_status(obj.get("status") or {})
    except Malformed:
        return None


def snapshot(hd: Deployment, revisions: Sequence[Revision]) -> Snapshot:
    """Of what serves, and of nothing else: nothing can be decided with it."""
    return Snapshot(hd, _NOWHERE, 0, 0, revisions=tuple(revisions))


def drains(obj: Mapping[str, Any], revisions: Sequence[Revision], now: datetime) -> Iterator[Action]:
    """Old revisions end their streams and go, where it is known that nobody needs them any more."""
    status, hd = readable_status(obj), stub(obj)
    if status is None or (status.rollout is not None and status.rollout.phase in _WATCHED):
        return
    fleet = _fleet(hd, revisions)
    since = status.active.since if status.active else None
    delay = timedelta(seconds=hd.spec.rollout.scale_down_delay_seconds)
    if fleet.routed is None or not fleet.ready_pods or since is None or now < since + delay:
        return
    for revision in fleet.retired:
        if not revision.draining:
            why = Verdict(True, Reason.WAITING_FOR_DRAIN, "its successor serves")
            seconds = hd.spec.rollout.drain.timeout_seconds
            yield DrainRevision(number=revision.number, timeout_seconds=seconds, why=why)
        elif is_empty(revision) and revision.number not in fleet.kept:
            gone = Verdict(True, EventReason.REVISION_DELETED, "its last stream has ended")
            yield DeleteRevision(number=revision.number, why=gone)


def seen(obj: Mapping[str, Any], revisions: Sequence[Revision], now: datetime) -> Json:
    """The status with what the pods are by now."""
    fleet = _fleet(stub(obj), revisions)
    newest = fleet.pending or fleet.routed
    counts = {
        "replicas": sum(len(revision.pods) for revision in revisions),
        "readyReplicas": len(fleet.ready_pods),
        "updatedReplicas": sum(pod.ready for pod in newest.pods) if newest else 0,
    }
    status = dict(obj.get("status") or {}) | counts
    return _with(status, obj, ConditionType.AVAILABLE, _available(fleet), now)


def unready(
    obj: Mapping[str, Any], status: Mapping[str, Any], reason: Reason, problem: str, now: datetime
) -> Json:
    """The status with Ready=False: what is wrong, where the object is looked at first."""
    told = _with(status, obj, ConditionType.READY, Verdict(False, reason, problem), now)
    if reason is Reason.INVALID_SPEC:
        return told | {"phase": "Invalid", "observedGeneration": obj["metadata"].get("generation", 0)}
    return told | ({"phase": "Degraded"} if told.get("phase") == "Serving" else {})


def _available(fleet: Fleet) -> Verdict:
    if fleet.routed and fleet.ready_pods:
        count = f"{len(fleet.ready_pods)}/{fleet.routed.replicas} pods serve {fleet.routed.limits.candidate}"
        return Verdict(True, Reason.MINIMUM_REPLICAS_SERVING, count)
    if fleet.routed and fleet.routed.replicas == 0:
        return Verdict(False, Reason.SCALED_TO_ZERO, "spec.replicas is 0")
    words = trouble(fleet.routed) if fleet.routed else ""
    return Verdict(False, Reason.NO_REPLICA_SERVING, words or "no pod is ready")


def _with(
    status: Mapping[str, Any], obj: Mapping[str, Any], kind: ConditionType, verdict: Verdict, now: datetime
) -> Json:
    """In its place, with its old time while it says the same."""
    found = [c for c in status.get("conditions") or () if isinstance(c, Mapping)]
    old = next((c for c in found if c.get("type") == kind), None)
    generation = obj["metadata"].get("generation", 0)
    said = "True" if verdict.ok else "False"
    new: Json = encode(Condition(kind.value, said, str(verdict.reason), verdict.message, now, generation))
    if old is not None and old.get("status") == said and "lastTransitionTime" in old:
        new["lastTransitionTime"] = old["lastTransitionTime"]
    conditions = [new if c is old else c for c in found] if old is not None else [*found, new]
    return {**status, "conditions": conditions}


def _fleet(hd: Deployment, revisions: Sequence[Revision]) -> Fleet:
    return Fleet.of(snapshot(hd, revisions))


def _readable(document: Any) -> Rollout:
    """Field by field: one that breaks a rule has its default."""
    found = Rollout()
    for name, value in document.items() if isinstance(document, Mapping) else ():
        try:
            read = decode(Rollout, {name: value})
        except Malformed:
            continue
        changed = {key: item for key, item in vars(read).items() if item != getattr(Rollout(), key)}
        found = replace(found, **changed)
    return found
