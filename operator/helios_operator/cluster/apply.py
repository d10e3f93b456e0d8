"""What a plan asks for, as API calls: the hands of a cluster, and the only place that acts on a plan.

Made by `operator` for each pass, moved by `passes.hands`. Every method is idempotent: names are predictable,
what must be made once is created (and found to exist), what is applied is whole. It must not weigh anything,
and it tells no pod: pods are told when the pass settles.
"""

from __future__ import annotations

import contextlib
import json
import logging
from dataclasses import dataclass
from typing import Any

from helios_contract.limits import Limits
from helios_proto import addresses

from helios_operator.api import serialize
from helios_operator.api.types import DeploymentStatus, Model
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
    Event,
    Route,
    ScaleRevision,
    StartJob,
    WriteLimits,
    WriteProfile,
)
from helios_operator.decide.snapshot import JobKind, JobPhase, JobSpec, Snapshot
from helios_operator.errors import ConflictError, NotFoundError, StateError
from helios_operator.passes import jobs as passes
from helios_operator.passes.actions import describe
from helios_operator.passes.prompts import holder
from helios_operator.render import labels, names, ports
from helios_operator.render.configmap import limits_config_map, limits_of, prompts_config_map
from helios_operator.render.deployment import revision_deployment
from helios_operator.render.installation import Installation
from helios_operator.render.job import profiling_job

_log = logging.getLogger(__name__)
_QUIET = (WriteProfile, DeleteProfile, DeleteJob)
"""Bookkeeping, of which the table itself tells: no event."""


@dataclass(frozen=True)
class Tools:
    """What all hands of an operator work with."""

    client: Client
    mirror: Mirror
    reads: Reads
    by: Installation
    surroundings: Surroundings
    profiles: Profiles
    status: StatusWriter
    events: Events


class ClusterHands:
    """Of one pass: they act on what its snapshot was of."""

    def __init__(self, tools: Tools, snapshot: Snapshot) -> None:
        self._client = tools.client
        self._mirror = tools.mirror
        self._reads = tools.reads
        self._by = tools.by
        self._surroundings = tools.surroundings
        self._profiles = tools.profiles
        self._status = tools.status
        self._events = tools.events
        self._snapshot = snapshot
        self._hd = snapshot.deployment

    # -- revisions ------------------------------------------------------------------------------------------

    async def create_revision(self, action: CreateRevision) -> None:
        """The document first: a pod that starts finds it. One with a missing claim would never start."""
        hd, seen = self._hd, self._snapshot
        every = candidates_of(hd, seen.models)
        candidates = [c for c in every if not await missing_claims(c, hd.namespace, self._reads)]
        wanted = revision_deployment(
            hd, action.number, action.limits, action.replicas, candidates, seen.hardware, self._by
        )
        await self._reads.get(CONFIG_MAP, hd.namespace, names.revision(hd.name, action.number))
        await self._write_limits(action.number, action.limits)
        await self._create(REVISION, wanted)

    async def scale_revision(self, action: ScaleRevision) -> None:
        await self._change_revision(action.number, {"spec": {"replicas": action.replicas}})

    async def write_limits(self, action: WriteLimits) -> None:
        """Pods that run are told when the pass settles, one that starts reads it."""
        await self._write_limits(action.revision, action.limits)

    async def restore_limits(self) -> None:
        """A document that somebody deleted or damaged, as its pods remember it: without it none could
        restart."""
        for revision in self._snapshot.revisions:
            name = names.revision(self._hd.name, revision.number)
            if not _says_limits(await self._reads.get(CONFIG_MAP, self._hd.namespace, name)):
                _log.warning("%s/%s: configmap %s is written anew", self._hd.namespace, self._hd.name, name)
                await self._write_limits(revision.number, revision.limits)

    async def route(self, action: Route) -> None:
        await self._surroundings.route(self._hd, action.revision)

    async def drain_revision(self, action: DrainRevision) -> None:
        drained = {"metadata": {"annotations": {labels.DRAINING: "true"}}, "spec": {"replicas": 0}}
        await self._change_revision(action.number, drained)

    async def delete_revision(self, action: DeleteRevision) -> None:
        name = names.revision(self._hd.name, action.number)
        await self._delete(REVISION, name)
        await self._client.delete(CONFIG_MAP, self._hd.namespace, name)
        self._reads.forget(CONFIG_MAP, self._hd.namespace, name)

    async def _write_limits(self, number: int, limits: Limits) -> None:
        """Over the document that this pass saw, or where it saw none: ConflictError when another operator
        wrote one since, of the same generation perhaps. The next pass sees that one."""
        wanted, namespace = limits_config_map(self._hd, number, limits), self._hd.namespace
        name = wanted["metadata"]["name"]
        seen = self._reads.known(CONFIG_MAP, namespace, name)
        try:
            if seen is None:
                answer = await self._client.create(CONFIG_MAP, wanted)
            else:
                version = {"resourceVersion": seen["metadata"]["resourceVersion"]}
                over = wanted | {"metadata": wanted["metadata"] | version}
                answer = await self._client.apply(CONFIG_MAP, over)
        except ConflictError:
            self._reads.forget(CONFIG_MAP, namespace, name)
            raise
        self._reads.put(CONFIG_MAP, answer)

    async def _change_revision(self, number: int, changes: dict[str, Any]) -> None:
        name = names.revision(self._hd.name, number)
        self._mirror.put(REVISION, await self._client.merge(REVISION, self._hd.namespace, name, changes))

    # -- Jobs -----------------------------------------------------------------------------------------------

    async def start_job(self, action: StartJob) -> None:
        """A Job that failed makes room for its next attempt; one that runs or succeeded is left as it is."""
        hd, asked, seen = self._hd, action.job, self._snapshot
        before = next((job for job in seen.jobs if job.spec.name == asked.name), None)
        if before is not None:
            if before.phase is not JobPhase.FAILED:
                return
            await self._delete(JOB, names.fitted(asked.name))
        told = passes.pinned(asked, hd, seen.jobs)
        source = await self._prompts_from(asked)
        await self._create(JOB, profiling_job(hd, told, seen.hardware, self._by, source))

    async def delete_job(self, action: DeleteJob) -> None:
        """Not one that another deployment started and still wants."""
        job = self._mirror.get(JOB, self._hd.namespace, names.fitted(action.name))
        if job is not None and jobs.is_own(self._hd, job):
            await self._delete(JOB, names.fitted(action.name))

    async def _prompts_from(self, asked: JobSpec) -> str | None:
        """host:port of the Control port with the live prompts; None for given ones, which are made ready."""
        hd, seen = self._hd, self._snapshot
        if asked.kind is not JobKind.QUALITY:
            return None
        if seen.prompts is None:
            name = holder(asked.prompts_digest, seen)
            pod = self._mirror.get(POD, hd.namespace, name) if name else None
            host = address(pod) if pod else None
            return addresses.join(host, ports.CONTROL) if host else None
        if hd.spec.profiling.prompts.config_map_ref is None:
            await self._client.apply(CONFIG_MAP, prompts_config_map(hd))
        return None

    # -- what is remembered ---------------------------------------------------------------------------------

    async def write_profile(self, action: WriteProfile) -> None:
        await self._profiles.write(action.row, self._hd)

    async def delete_profile(self, action: DeleteProfile) -> None:
        await self._profiles.release(action.name, self._hd)

    async def adopt_rows(self, status: DeploymentStatus) -> None:
        await self._profiles.adopt(status, self._hd)

    async def write_status(self, status: DeploymentStatus) -> bool:
        return await self._status.write(self._hd, placed(self._hd, status))

    async def write_model(self, model: Model) -> None:
        """One that was deleted meanwhile stays deleted."""
        wanted = {
            "apiVersion": MODEL.api_version,
            "kind": MODEL.name,
            "metadata": {"name": model.name, "namespace": model.namespace},
            "status": serialize.model_status(model.status),
        }
        with contextlib.suppress(NotFoundError):
            self._mirror.put(MODEL, await self._client.apply(MODEL, wanted, "status"))

    # -- what is said ---------------------------------------------------------------------------------------

    async def tell_of(self, action: Action) -> None:
        hd, why = self._hd, action.why
        if isinstance(action, _QUIET):
            _log.info("%s/%s %s: %s: %s", hd.namespace, hd.name, why.reason, describe(action), why.message)
            return
        about = {ACTION: describe(action)}
        if why.numbers:
            about[NUMBERS] = json.dumps(dict(why.numbers))
        type = events.NORMAL if why.ok else events.WARNING
        await self._events.say(hd, type, why.reason, f"{describe(action)}: {why.message}", about)

    async def tell(self, event: Event) -> None:
        await self._events.say(self._hd, event.type, event.reason, event.message)

    # -- how ------------------------------------------------------------------------------------------------

    async def _create(self, kind: Kind, wanted: Object) -> None:
        """Once: what exists is what an earlier pass made (or, a Job, another deployment), and stays."""
        try:
            answer = await self._client.create(kind, wanted)
        except ConflictError:
            metadata = wanted["metadata"]
            found = await self._client.get(kind, metadata["namespace"], metadata["name"])
            if found is None:
                return  # it went in this moment; the next pass sees that
            if kind is REVISION and not belongs_to(found, self._hd.uid):
                raise being_cleared(kind, found) from None
            answer = found
        self._mirror.put(kind, answer)

    async def _delete(self, kind: Kind, name: str) -> None:
        await self._client.delete(kind, self._hd.namespace, name)
        if known := self._mirror.get(kind, self._hd.namespace, name):
            self._mirror.forget(kind, known)


def _says_limits(config_map: Object | None) -> bool:
    try:
        return config_map is not None and bool(limits_of(config_map))
    except StateError:
        return False
