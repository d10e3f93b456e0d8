"""What a plan asks for, as records of this machine: the hands of the local runtime.

Made by the runtime for each pass, moved by `passes.hands`. Every method writes to the store or to a site's
records, and may do so twice; processes start, are told and end when the pass settles. What an action's reason
says goes to the log. It must not weigh anything.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from datetime import datetime

from helios_operator.api import parse, serialize
from helios_operator.api.models import Model
from helios_operator.api.rows import Row
from helios_operator.api.types import DeploymentStatus, Owner
from helios_operator.decide.plan import (
    Action,
    CreateRevision,
    DeleteJob,
    DeleteProfile,
    DeleteRevision,
    DrainRevision,
    Event,
    Route,
    ScaleRevision,
    StartJob,
    WriteLimits,
    WriteProfile,
)
from helios_operator.decide.snapshot import Snapshot
from helios_operator.errors import ObjectNotFoundError
from helios_operator.local.observe import Observer
from helios_operator.local.site import Site
from helios_operator.local.store import DEPLOYMENT, MODEL, PROFILE, Store
from helios_operator.passes import owners, prompts
from helios_operator.passes.actions import describe


class LocalHands:
    """Of one pass over one site: they act on what its snapshot was of."""

    def __init__(
        self, store: Store, observer: Observer, site: Site, snapshot: Snapshot, now: datetime
    ) -> None:
        self._store = store
        self._observer = observer
        self._site = site
        self._snapshot = snapshot
        self._deployment = snapshot.deployment
        self._now = now

    # -- revisions ------------------------------------------------------------------------------------------

    async def create_revision(self, action: CreateRevision) -> None:
        self._site.refuse_missing_secrets(self._deployment)
        tasks = self._observer.given_tasks(self._deployment)
        self._site.revisions.create(action.number, action.limits, action.replicas, self._now, tasks)

    async def scale_revision(self, action: ScaleRevision) -> None:
        self._site.revisions.scale(action.number, action.replicas)

    async def write_limits(self, action: WriteLimits) -> None:
        tasks = self._observer.given_tasks(self._deployment)
        self._site.revisions.write_limits(action.revision, action.limits, tasks)

    async def route(self, action: Route) -> None:
        self._site.revisions.route(action.revision)

    async def drain_revision(self, action: DrainRevision) -> None:
        self._site.revisions.drain(action.number, action.timeout_seconds)

    async def delete_revision(self, action: DeleteRevision) -> None:
        self._site.revisions.delete(action.number)

    # -- Jobs -----------------------------------------------------------------------------------------------

    async def start_job(self, action: StartJob) -> None:
        job, snapshot = action.job, self._snapshot
        is_given = prompts.are_given(job.prompts_digest, snapshot)
        given = self._observer.given_prompts(self._deployment) if is_given else ()
        tasks = self._observer.given_tasks(self._deployment) if job.tasks_digest else ""
        name = None if given else prompts.holder(job.prompts_digest, snapshot)
        pod = self._site.revisions.control_address(name)
        self._site.jobs.start(job, self._deployment, given, pod, tasks)

    async def delete_job(self, action: DeleteJob) -> None:
        self._site.jobs.delete(action.name)

    # -- what is remembered ---------------------------------------------------------------------------------

    async def write_profile(self, action: WriteProfile) -> None:
        """Created with this deployment as an owner, or completed, and owned by it too."""
        existing = self._store.find(PROFILE, action.row.name)
        self._write_row(action.row, owners.with_user(existing, self._deployment, self._there))
        status = serialize.profile(action.row).get("status", {})
        self._store.write_status(PROFILE, action.row.name, status)

    async def delete_profile(self, action: DeleteProfile) -> None:
        """Deleted when no other deployment uses it, or for all of them."""
        existing = self._store.find(PROFILE, action.name)
        if existing is None:
            return
        others = owners.others(existing, self._deployment, self._there)
        if others and not action.for_all:
            self._write_row(parse.profile_row(existing), others)
        else:
            self._store.delete(PROFILE, action.name)

    async def adopt_rows(self, status: DeploymentStatus) -> None:
        for name in owners.used(status):
            existing = self._store.find(PROFILE, name)
            if existing is not None and owners.lacks(existing, self._deployment):
                wanted = owners.with_user(existing, self._deployment, self._there)
                self._write_row(parse.profile_row(existing), wanted)

    async def write_status(self, status: DeploymentStatus) -> bool:
        before = self._store.version(DEPLOYMENT, self._site.name)
        document = serialize.status(replace(status, endpoint=self._site.front.address))
        self._store.write_status(DEPLOYMENT, self._site.name, document)
        return self._store.version(DEPLOYMENT, self._site.name) != before

    async def write_model(self, model: Model) -> bool:
        """One that was deleted meanwhile stays deleted."""
        with contextlib.suppress(ObjectNotFoundError):
            self._store.write_status(MODEL, model.name, serialize.model_status(model.status))
        return True

    def _write_row(self, row: Row, its_owners: tuple[Owner, ...]) -> None:
        self._store.apply(serialize.profile(row, namespace=self._deployment.namespace, owners=its_owners))

    @property
    def _there(self) -> set[str]:
        """Uids of the HeliosDeployments that may own a row."""
        return {obj["metadata"]["uid"] for obj in self._store.objects(DEPLOYMENT)}

    # -- what is said ---------------------------------------------------------------------------------------

    async def tell_of(self, action: Action) -> None:
        why = action.why
        kind = "Normal" if why.ok else "Warning"
        self._site.log.add(
            "decision", describe(action), why.reason, why.message, type=kind, numbers=dict(why.numbers)
        )

    async def tell(self, event: Event) -> None:
        self._site.log.add("event", self._site.name, event.reason, event.message, type=event.type)
