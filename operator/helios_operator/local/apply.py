"""Carries a Plan out on this machine: the last third of a pass, and the only place that acts.

Called by the runtime with the plan and the snapshot it came from. Actions run in order and are idempotent;
what an action's reason says goes to the log. It must not weigh anything: a plan that says delete is obeyed.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any

from helios_operator.api import parse, serialize
from helios_operator.api.rows import QualityRow, TimingRow
from helios_operator.api.types import Deployment, DeploymentStatus, Owner
from helios_operator.decide.plan import (
    Action,
    CreateRevision,
    DeleteJob,
    DeleteProfile,
    DeleteRevision,
    DrainRevision,
    Plan,
    Route,
    ScaleRevision,
    StartJob,
    WriteLimits,
    WriteProfile,
)
from helios_operator.decide.snapshot import JobSpec, Snapshot
from helios_operator.local.observe import Observer
from helios_operator.local.site import Site
from helios_operator.local.store import DEPLOYMENT, MODEL, PROFILE, Store
from helios_operator.passes import prompts
from helios_operator.passes.actions import describe


class Applier:
    """Writes to one site and to the store."""

    def __init__(self, store: Store, observer: Observer) -> None:
        self._store = store
        self._observer = observer

    def apply(self, plan: Plan, site: Site, snapshot: Snapshot, now: datetime) -> None:
        """The actions, then the status, then the events: a kill in between leaves a state that the next
        pass reads."""
        for action in plan.actions:
            self._act(action, site, snapshot, now)
            self._log_action(action, site)
        self._write_status(plan.status, site)
        self._own_what_is_used(plan.status, snapshot.deployment)
        for model in plan.models:
            self._store.write_status(MODEL, model.name, serialize.model_status(model.status))
        for event in plan.events:
            site.log.add("event", site.name, event.reason, event.message, type=event.type)

    def _act(self, action: Action, site: Site, snapshot: Snapshot, now: datetime) -> None:
        revisions = site.revisions
        match action:
            case StartJob(job=job):
                self._start_job(job, site, snapshot)
            case DeleteJob(name=name):
                site.jobs.delete(name)
            case WriteProfile(row=row):
                self._write_profile(row, snapshot.deployment)
            case DeleteProfile(name=name):
                self._release_profile(name, snapshot.deployment)
            case CreateRevision(number=number, limits=limits, replicas=replicas):
                revisions.create(number, limits, replicas, now)
            case ScaleRevision(number=number, replicas=replicas):
                revisions.scale(number, replicas)
            case WriteLimits(revision=number, limits=limits):
                revisions.write_limits(number, limits)
            case Route(revision=number):
                revisions.route(number)
            case DrainRevision(number=number, timeout_seconds=seconds):
                revisions.drain(number, seconds)
            case DeleteRevision(number=number):
                revisions.delete(number)
            case _:
                raise TypeError(f"no way to carry out {type(action).__name__}")

    def _start_job(self, job: JobSpec, site: Site, snapshot: Snapshot) -> None:
        given = self._observer.given_prompts(snapshot.deployment) if job.prompts_digest else ()
        pod = None if given else site.revisions.control_address(prompts.holder(job.prompts_digest, snapshot))
        site.jobs.start(job, snapshot.deployment, given, pod)

    def _write_profile(self, row: TimingRow | QualityRow, deployment: Deployment) -> None:
        """Created with this deployment as an owner, or completed, and owned by it too."""
        owners = {*_owners(self._store.find(PROFILE, row.name)), _owner(deployment)}
        obj = _profile(row, owners, deployment.namespace)
        self._store.apply(obj)
        self._store.write_status(PROFILE, row.name, obj.get("status", {}))

    def _release_profile(self, name: str, deployment: Deployment) -> None:
        """Deleted when no other deployment uses it."""
        owners = _owners(self._store.find(PROFILE, name)) - {_owner(deployment)}
        if owners:
            self._store.apply(_profile(self._row(name), owners, deployment.namespace))
        else:
            self._store.delete(PROFILE, name)

    def _own_what_is_used(self, status: DeploymentStatus, deployment: Deployment) -> None:
        """A row that another deployment had measured is this one's too, and stays when the other goes."""
        for name in {row for c in status.candidates for row in (c.timing, c.quality) if row}:
            owners = _owners(self._store.find(PROFILE, name))
            if owners and _owner(deployment) not in owners:
                owners |= {_owner(deployment)}
                self._store.apply(_profile(self._row(name), owners, deployment.namespace))

    def _row(self, name: str) -> TimingRow | QualityRow:
        return parse.profile_row(self._store.get(PROFILE, name))

    def _write_status(self, status: DeploymentStatus, site: Site) -> None:
        document = serialize.status(replace(status, endpoint=site.front.address))
        self._store.write_status(DEPLOYMENT, site.name, document)

    def _log_action(self, action: Action, site: Site) -> None:
        why = action.why
        kind = "Normal" if why.ok else "Warning"
        site.log.add(
            "decision", describe(action), why.reason, why.message, type=kind, numbers=dict(why.numbers)
        )


def _owner(deployment: Deployment) -> Owner:
    return Owner(deployment.name, deployment.uid)


def _owners(profile: dict[str, Any] | None) -> set[Owner]:
    references = (profile or {}).get("metadata", {}).get("ownerReferences", [])
    return {Owner(reference["name"], reference["uid"]) for reference in references}


def _profile(row: TimingRow | QualityRow, owners: set[Owner], namespace: str) -> dict[str, Any]:
    in_order = sorted(owners, key=lambda owner: (owner.name, owner.uid))
    return serialize.profile(row, namespace=namespace, owners=in_order)
