"""What a plan asks for, as API calls: the hands of a cluster, and the only place that acts on a plan.

Made by `operator` for each pass, moved by `passes.hands`. Every method is idempotent: names are predictable,
what must be made once is created (and found to exist), what is applied is whole. It must not weigh anything,
and it tells no pod: pods are told when the pass settles.
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial, wraps
from typing import Any, TypeVar, cast

from helios_contract.limits import Limits
from helios_proto import addresses

from helios_operator.api import ports, serialize
from helios_operator.api.conditions import ConditionType
from helios_operator.api.models import Model
from helios_operator.api.types import DeploymentStatus
from helios_operator.cluster import events
from helios_operator.cluster.belongings import Belongings
from helios_operator.cluster.candidates import candidates_of, missing_claims
from helios_operator.cluster.events import ACTION, NUMBERS, Events
from helios_operator.cluster.kinds import CONFIG_MAP, JOB, MODEL, POD, REVISION, Object, version_of
from helios_operator.cluster.mirror import Mirror
from helios_operator.cluster.observe import tasks_in_config_map
from helios_operator.cluster.ownership import check, is_own
from helios_operator.cluster.pods import address
from helios_operator.cluster.profiles import Profiles
from helios_operator.cluster.reads import Reads
from helios_operator.cluster.refusals import Refusals
from helios_operator.cluster.secrets import check_secrets
from helios_operator.cluster.status import StatusWriter, placed, refused, unchanged
from helios_operator.cluster.statuses import Statuses
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
from helios_operator.errors import NotFoundError, StateError
from helios_operator.passes import jobs as passes
from helios_operator.passes.actions import describe
from helios_operator.passes.hands import RefusedError
from helios_operator.passes.prompts import are_given, holder
from helios_operator.passes.tasks import text_of
from helios_operator.render import labels, names
from helios_operator.render.configmap import (
    limits_config_map,
    limits_of,
    prompts_config_map,
    tasks_config_map,
)
from helios_operator.render.deployment import revision_deployment
from helios_operator.render.installation import Installation
from helios_operator.render.job import profiling_job

_log = logging.getLogger(__name__)
_QUIET = (WriteProfile, DeleteProfile, DeleteJob)
"""Bookkeeping, of which the table itself tells: no event."""
_CHANGES = (CreateRevision, ScaleRevision, WriteLimits, Route, DrainRevision, DeleteRevision)
_Method = TypeVar("_Method", bound=Callable[..., Awaitable[None]])


def _patiently(concerns: ConditionType) -> Callable[[_Method], _Method]:
    """What the server refuses is no failed pass: it is kept for the condition that waits for it."""

    def wrapped(method: _Method) -> _Method:
        @wraps(method)
        async def attempt(hands: ClusterHands, action: Action) -> None:
            await hands.attempt(action, partial(method, hands, action), concerns)

        return cast(_Method, attempt)

    return wrapped


@dataclass(frozen=True)
class Tools:
    """What all hands of an operator work with."""

    belongings: Belongings
    refusals: Refusals
    mirror: Mirror
    reads: Reads
    by: Installation
    surroundings: Surroundings
    profiles: Profiles
    statuses: Statuses
    status: StatusWriter
    events: Events


class ClusterHands:
    """Of one pass: they act on what its snapshot was of."""

    def __init__(self, tools: Tools, snapshot: Snapshot) -> None:
        self._belongings = tools.belongings
        self._refusals = tools.refusals
        self._mirror = tools.mirror
        self._reads = tools.reads
        self._by = tools.by
        self._surroundings = tools.surroundings
        self._profiles = tools.profiles
        self._statuses = tools.statuses
        self._status = tools.status
        self._events = tools.events
        self._snapshot = snapshot
        self._hd = snapshot.deployment

    # -- revisions ------------------------------------------------------------------------------------------

    @_patiently(ConditionType.AVAILABLE)
    async def create_revision(self, action: CreateRevision) -> None:
        """The document first: a pod that starts finds it. One with a missing claim would never start, and one
        with another's Secret must not."""
        hd, seen = self._hd, self._snapshot
        await check_secrets(hd, self._reads)
        every = candidates_of(hd, seen.models)
        candidates = [c for c in every if not await missing_claims(c, hd.namespace, self._reads)]
        wanted = revision_deployment(
            hd, action.number, action.limits, action.replicas, candidates, seen.hardware, self._by
        )
        await self._reads.get(CONFIG_MAP, hd.namespace, names.revision(hd.name, action.number))
        await self._surroundings.token(hd)
        await self._write_limits(action.number, action.limits)
        check(hd, REVISION, await self._belongings.make_once(hd, REVISION, wanted))

    @_patiently(ConditionType.AVAILABLE)
    async def scale_revision(self, action: ScaleRevision) -> None:
        await self._change_revision(action.number, {"spec": {"replicas": action.replicas}})

    @_patiently(ConditionType.AVAILABLE)
    async def write_limits(self, action: WriteLimits) -> None:
        """Pods that run are told when the pass settles, one that starts reads it."""
        await self._write_limits(action.revision, action.limits)

    async def restore_limits(self) -> None:
        """A document that somebody deleted or damaged, as its pods remember it: without it none could
        restart."""
        for revision in self._snapshot.revisions:
            name = names.revision(self._hd.name, revision.number)
            found = await self._reads.get(CONFIG_MAP, self._hd.namespace, name)
            if found is None or not is_own(self._hd, found) or not _says_limits(found):
                _log.warning("%s/%s: configmap %s is written again", self._hd.namespace, self._hd.name, name)
                restore = partial(self._write_limits, revision.number, revision.limits)
                what = f"ConfigMap {name}"
                await self._refusals.attempt(self._hd, what, restore, ConditionType.AVAILABLE)

    @_patiently(ConditionType.AVAILABLE)
    async def route(self, action: Route) -> None:
        await self._surroundings.route(self._hd, action.revision)

    @_patiently(ConditionType.AVAILABLE)
    async def drain_revision(self, action: DrainRevision) -> None:
        drained = {"metadata": {"annotations": {labels.DRAINING: "true"}}, "spec": {"replicas": 0}}
        await self._change_revision(action.number, drained)

    @_patiently(ConditionType.AVAILABLE)
    async def delete_revision(self, action: DeleteRevision) -> None:
        name = names.revision(self._hd.name, action.number)
        for kind in (REVISION, CONFIG_MAP):
            await self._belongings.remove(self._hd, kind, name)

    async def _write_limits(self, number: int, limits: Limits) -> None:
        """Over the document that this pass saw, or where it saw none: ConflictError when another operator
        wrote one since, of the same generation perhaps. The next pass sees that one."""
        source = self._hd.spec.profiling.tasks
        text = text_of(source, await tasks_in_config_map(self._hd, self._reads)) if source else ""
        wanted = limits_config_map(self._hd, number, limits, text)
        await self._belongings.keep(self._hd, CONFIG_MAP, wanted, as_seen=True)

    async def _change_revision(self, number: int, changes: dict[str, Any]) -> None:
        name = names.revision(self._hd.name, number)
        await self._belongings.change(self._hd, REVISION, name, changes)

    # -- Jobs -----------------------------------------------------------------------------------------------

    @_patiently(ConditionType.PROFILED)
    async def start_job(self, action: StartJob) -> None:
        """A Job that failed makes room for its next attempt; one that runs or succeeded is left as it is."""
        hd, asked, seen = self._hd, action.job, self._snapshot
        before = next((job for job in seen.jobs if job.spec.name == asked.name), None)
        if before is not None:
            if before.phase is not JobPhase.FAILED:
                return
            await self._belongings.remove(hd, JOB, names.fitted(asked.name))
        told = passes.pinned(asked, hd, seen.jobs)
        if (given := hd.spec.profiling.tasks) and asked.kind is JobKind.TASKS and given.inline:
            await self._belongings.keep(hd, CONFIG_MAP, tasks_config_map(hd))
        source = await self._prompts_from(asked)
        wanted = profiling_job(hd, told, seen.hardware, self._by, source)
        made = await self._belongings.make_once(hd, JOB, wanted)
        if labels.JOB_SPEC not in (made["metadata"].get("annotations") or {}):
            check(hd, JOB, made)

    @_patiently(ConditionType.PROFILED)
    async def delete_job(self, action: DeleteJob) -> None:
        """Not one that another deployment started and still wants."""
        await self._belongings.remove(self._hd, JOB, names.fitted(action.name))

    async def _prompts_from(self, asked: JobSpec) -> str | None:
        """host:port of the Control port with the live prompts; None for given ones, which are made ready."""
        hd, seen = self._hd, self._snapshot
        if asked.kind is not JobKind.QUALITY:
            return None
        if not are_given(asked.prompts_digest, seen):
            name = holder(asked.prompts_digest, seen)
            pod = self._mirror.get(POD, hd.namespace, name) if name else None
            host = address(pod) if pod else None
            return addresses.join(host, ports.CONTROL) if host else None
        if hd.spec.profiling.prompts.config_map_ref is None:
            await self._belongings.keep(hd, CONFIG_MAP, prompts_config_map(hd))
        return None

    # -- what is remembered ---------------------------------------------------------------------------------

    @_patiently(ConditionType.PROFILED)
    async def write_profile(self, action: WriteProfile) -> None:
        await self._profiles.write(action.row, self._hd)

    @_patiently(ConditionType.PROFILED)
    async def delete_profile(self, action: DeleteProfile) -> None:
        await self._profiles.release(action.name, self._hd, for_all=action.for_all)

    async def adopt_rows(self, status: DeploymentStatus) -> None:
        await self._profiles.adopt(status, self._hd)

    async def write_status(self, status: DeploymentStatus) -> bool:
        """A change that could not be begun, or go on, is not remembered: the next pass decides it anew."""
        hd = self._hd
        if self._refusals.any(hd, *_CHANGES):
            status = unchanged(hd, status)
        status = refused(hd, placed(hd, status), self._refusals.of(hd), datetime.now(UTC))
        return await self._status.write(hd, status)

    async def write_model(self, model: Model) -> bool:
        """One that was deleted meanwhile stays deleted; what was said already is not said again."""
        before = self._mirror.get(MODEL, model.namespace, model.name)
        document = serialize.model_status(model.status)
        if before is not None and self._statuses.standing(before) == document:
            return False
        with contextlib.suppress(NotFoundError):
            answer = await self._statuses.apply(MODEL, model.namespace, model.name, document)
            self._mirror.put(MODEL, answer)
            return before is None or version_of(answer) != version_of(before)
        return False

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

    async def attempt(
        self, action: Action, work: Callable[[], Awaitable[None]], concerns: ConditionType
    ) -> None:
        """Under a name that stays: a revision's number changes while it cannot be made, a Job's does not."""
        job = action.job.name if isinstance(action, StartJob) else ""
        what = f"{type(action).__name__} {job}".strip()
        if not await self._refusals.attempt(self._hd, what, work, concerns):
            raise RefusedError


def _says_limits(config_map: Object) -> bool:
    try:
        return bool(limits_of(config_map))
    except StateError:
        return False
