"""Carries a Plan out by API calls: the last third of a pass, and the only place that acts on it.

Called by `operator` with the plan and the snapshot it came from. Actions run in order and are idempotent:
names are predictable, what must be made once is created (and found to exist), what is applied is whole. It
must not weigh anything: a plan that says delete is obeyed.
"""

from __future__ import annotations

import contextlib
import json
import logging
from typing import Any

from helios_contract.limits import Limits
from helios_proto import addresses

from helios_operator.api import serialize
from helios_operator.api.types import Deployment, Model
from helios_operator.cluster import events, jobs
from helios_operator.cluster.candidates import candidates_of, missing_claims
from helios_operator.cluster.client import Client, being_cleared
from helios_operator.cluster.events import ACTION, NUMBERS, Events
from helios_operator.cluster.kinds import CONFIG_MAP, JOB, MODEL, POD, REVISION, Kind, Object
from helios_operator.cluster.mirror import Mirror, belongs_to
from helios_operator.cluster.pods import address
from helios_operator.cluster.profiles import Profiles
from helios_operator.cluster.reads import Reads
from helios_operator.cluster.status import StatusWriter, placed
from helios_operator.cluster.surroundings import Surroundings
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
from helios_operator.decide.snapshot import JobKind, JobPhase, JobSpec, Snapshot
from helios_operator.errors import ConflictError, NotFoundError
from helios_operator.passes import jobs as passes
from helios_operator.passes.actions import describe, jobs_last
from helios_operator.passes.prompts import holder
from helios_operator.render import labels, names, ports
from helios_operator.render.configmap import limits_config_map, prompts_config_map
from helios_operator.render.deployment import revision_deployment
from helios_operator.render.installation import Installation
from helios_operator.render.job import profiling_job

_log = logging.getLogger(__name__)
_QUIET = (WriteProfile, DeleteProfile, DeleteJob)
"""Bookkeeping, of which the table itself tells: no event."""


class Applier:
    def __init__(
        self,
        client: Client,
        mirror: Mirror,
        reads: Reads,
        by: Installation,
        surroundings: Surroundings,
        status: StatusWriter,
        said: Events,
    ) -> None:
        self._client = client
        self._mirror = mirror
        self._reads = reads
        self._by = by
        self._surroundings = surroundings
        self._profiles = Profiles(client, mirror)
        self._status = status
        self._events = said

    async def apply(self, plan: Plan, snapshot: Snapshot) -> bool:
        """The actions, then the status, then the events: an end in between leaves a state that the next pass
        reads. True when something was written."""
        hd = snapshot.deployment
        await self._restore_limits(snapshot)
        for action in jobs_last(plan.actions):
            await self._act(action, snapshot)
            await self._say(action, hd)
        written = await self._status.write(hd, placed(hd, plan.status))
        await self._profiles.adopt(plan.status, hd)
        for model in plan.models:
            await self._write_model(model)
        for event in plan.events:
            await self._events.say(hd, event.type, event.reason, event.message)
        return written or bool(plan.actions or plan.models)

    async def _act(self, action: Action, snapshot: Snapshot) -> None:
        hd = snapshot.deployment
        match action:
            case StartJob(job=job):
                await self._start_job(job, snapshot)
            case DeleteJob(name=name):
                await self._delete_job(name, hd)
            case WriteProfile(row=row):
                await self._profiles.write(row, hd)
            case DeleteProfile(name=name):
                await self._profiles.release(name, hd)
            case CreateRevision(number=number, limits=limits, replicas=replicas):
                await self._create_revision(number, limits, replicas, snapshot)
            case ScaleRevision(number=number, replicas=replicas):
                await self._change_revision(hd, number, {"spec": {"replicas": replicas}})
            case WriteLimits(revision=number, limits=limits):
                await self._write_limits(hd, number, limits)
            case Route(revision=number):
                await self._surroundings.route(hd, number)
            case DrainRevision(number=number):
                drained = {labels.DRAINING: "true"}
                await self._change_revision(
                    hd, number, {"metadata": {"annotations": drained}, "spec": {"replicas": 0}}
                )
            case DeleteRevision(number=number):
                await self._delete_revision(hd, number)
            case _:
                raise TypeError(f"no way to carry out {type(action).__name__}")

    # -- revisions ------------------------------------------------------------------------------------------

    async def _create_revision(self, number: int, limits: Limits, replicas: int, snapshot: Snapshot) -> None:
        """The document first: a pod that starts finds it. One with a missing claim would never start."""
        hd = snapshot.deployment
        every = candidates_of(hd, snapshot.models)
        candidates = [c for c in every if not await missing_claims(c, hd.namespace, self._reads)]
        wanted = revision_deployment(hd, number, limits, replicas, candidates, snapshot.hardware, self._by)
        await self._write_limits(hd, number, limits)
        await self._create(REVISION, wanted, hd.uid)

    async def _write_limits(self, hd: Deployment, number: int, limits: Limits) -> None:
        """Pods that run are told at the next look, one that starts reads it."""
        answer = await self._client.apply(CONFIG_MAP, limits_config_map(hd, number, limits))
        self._reads.put(CONFIG_MAP, answer)

    async def _restore_limits(self, snapshot: Snapshot) -> None:
        """A document that somebody deleted, as its pods remember it: without it none could restart."""
        hd = snapshot.deployment
        for revision in snapshot.revisions:
            name = names.revision(hd.name, revision.number)
            if await self._reads.get(CONFIG_MAP, hd.namespace, name) is None:
                await self._write_limits(hd, revision.number, revision.limits)

    async def _change_revision(self, hd: Deployment, number: int, changes: dict[str, Any]) -> None:
        name = names.revision(hd.name, number)
        self._mirror.put(REVISION, await self._client.merge(REVISION, hd.namespace, name, changes))

    async def _delete_revision(self, hd: Deployment, number: int) -> None:
        name = names.revision(hd.name, number)
        await self._delete(REVISION, hd, name)
        await self._client.delete(CONFIG_MAP, hd.namespace, name)
        self._reads.forget(CONFIG_MAP, hd.namespace, name)

    # -- Jobs -----------------------------------------------------------------------------------------------

    async def _start_job(self, asked: JobSpec, snapshot: Snapshot) -> None:
        """A Job that failed makes room for its next attempt; one that runs or succeeded is left as it is."""
        hd = snapshot.deployment
        seen = next((job for job in snapshot.jobs if job.spec.name == asked.name), None)
        if seen is not None:
            if seen.phase is not JobPhase.FAILED:
                return
            await self._delete(JOB, hd, names.fitted(asked.name))
        told = passes.pinned(asked, hd, snapshot.jobs)
        source = await self._prompts_from(asked, snapshot)
        wanted = profiling_job(hd, told, snapshot.hardware, self._by, source)
        await self._create(JOB, wanted, hd.uid)

    async def _prompts_from(self, asked: JobSpec, snapshot: Snapshot) -> str | None:
        """host:port of the Control port with the live prompts; None for given ones, which are made ready."""
        hd = snapshot.deployment
        if asked.kind is not JobKind.QUALITY:
            return None
        if snapshot.prompts is None:
            name = holder(asked.prompts_digest, snapshot)
            pod = self._mirror.get(POD, hd.namespace, name) if name else None
            host = address(pod) if pod else None
            return addresses.join(host, ports.CONTROL) if host else None
        if hd.spec.profiling.prompts.config_map_ref is None:
            await self._client.apply(CONFIG_MAP, prompts_config_map(hd))
        return None

    async def _delete_job(self, name: str, hd: Deployment) -> None:
        """Not one that another deployment started and still wants."""
        job = self._mirror.get(JOB, hd.namespace, names.fitted(name))
        if job is not None and jobs.is_own(hd, job):
            await self._delete(JOB, hd, names.fitted(name))

    # -- the catalogue --------------------------------------------------------------------------------------

    async def _write_model(self, model: Model) -> None:
        """One that was deleted meanwhile stays deleted."""
        wanted = {
            "apiVersion": MODEL.api_version,
            "kind": MODEL.name,
            "metadata": {"name": model.name, "namespace": model.namespace},
            "status": serialize.model_status(model.status),
        }
        with contextlib.suppress(NotFoundError):
            self._mirror.put(MODEL, await self._client.apply(MODEL, wanted, "status"))

    # -- how ------------------------------------------------------------------------------------------------

    async def _create(self, kind: Kind, wanted: Object, uid: str) -> None:
        """Once: what exists is what an earlier pass made (or, a Job, another deployment), and stays."""
        try:
            answer = await self._client.create(kind, wanted)
        except ConflictError:
            metadata = wanted["metadata"]
            found = await self._client.get(kind, metadata["namespace"], metadata["name"])
            if found is None:
                return  # it went in this moment; the next pass sees that
            if kind is REVISION and not belongs_to(found, uid):
                raise being_cleared(kind, found) from None
            answer = found
        self._mirror.put(kind, answer)

    async def _delete(self, kind: Kind, hd: Deployment, name: str) -> None:
        await self._client.delete(kind, hd.namespace, name)
        if known := self._mirror.get(kind, hd.namespace, name):
            self._mirror.forget(kind, known)

    async def _say(self, action: Action, hd: Deployment) -> None:
        why = action.why
        if isinstance(action, _QUIET):
            _log.info("%s/%s %s: %s: %s", hd.namespace, hd.name, why.reason, describe(action), why.message)
            return
        about = {ACTION: describe(action)}
        if why.numbers:
            about[NUMBERS] = json.dumps(dict(why.numbers))
        type = events.NORMAL if why.ok else events.WARNING
        await self._events.say(hd, type, why.reason, f"{describe(action)}: {why.message}", about)
