"""The mirror, a few objects read by name and the pods' telemetry, as one Snapshot: what a pass sees.

Called by `operator`. Waits for pods are bounded; a pod that does not answer is seen without telemetry. It
reads and changes nothing, and computes nothing that a decision could compute.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime

from helios_server.planning import PERFORMANCE_VERSION

from helios_operator.api import identity
from helios_operator.api.rows import QualityRow, TasksRow, TimingRow
from helios_operator.api.types import Deployment
from helios_operator.cluster import jobs, nodes
from helios_operator.cluster.candidates import candidates_of, unreachable
from helios_operator.cluster.kinds import CONFIG_MAP, JOB, MODEL, PROFILE, Kind
from helios_operator.cluster.mirror import Mirror, source
from helios_operator.cluster.reads import Reads
from helios_operator.cluster.revisions import Revisions
from helios_operator.decide.snapshot import PromptSource, Snapshot
from helios_operator.passes import tasks
from helios_operator.passes.prompts import texts
from helios_operator.passes.unread import Reader, Sight, Source, not_served


class Observer:
    def __init__(self, mirror: Mirror, reads: Reads, revisions: Revisions) -> None:
        self._mirror = mirror
        self._reads = reads
        self._revisions = revisions
        self._load = nodes.Load(mirror)
        self._reader = Reader()

    async def observe(self, hd: Deployment, token: str, now: datetime) -> Sight:
        """StateError: something that serves cannot be read; nothing must be decided without it."""
        hd = _with_memory(hd)
        hardware = nodes.hardware(hd, self._mirror)
        revisions = await self._revisions.see(hd, token)
        pod_mib = hd.spec.limits.memory_mib or hardware.memory_mib
        room = nodes.room(hd, self._mirror, self._load, pod_mib)
        rows, unread = self._reader.rows(self._sources(PROFILE, hd.namespace))
        models, unknown = self._reader.models(self._sources(MODEL, hd.namespace))
        not_served(hd, models, unknown)
        lost = await unreachable(hd, models, self._reads, now)
        candidates = candidates_of(hd, models)
        seen, strange = jobs.see(hd, candidates, self._mirror, self._reader, hardware, now)
        snapshot = Snapshot(
            deployment=hd,
            hardware=hardware,
            free_memory_mib=room.pods * pod_mib if room.pods else min(room.free_mib, pod_mib - 1),
            performance_version=PERFORMANCE_VERSION,
            models=tuple(models),
            timings=tuple(row for row in rows if isinstance(row, TimingRow)),
            qualities=tuple(row for row in rows if isinstance(row, QualityRow)),
            task_rows=tuple(row for row in rows if isinstance(row, TasksRow)),
            jobs=lost + seen,
            revisions=revisions,
            prompts=await self._prompt_source(hd),
            tasks=tasks.seen(hd.spec.profiling.tasks, await tasks_in_config_map(hd, self._reads)),
            accelerators_free=room.pods if hardware.accelerators else None,
        )
        return Sight(snapshot, (*unread, *unknown, *strange))

    async def _prompt_source(self, hd: Deployment) -> PromptSource | None:
        given = await self._given_prompts(hd)
        return PromptSource(identity.prompts_digest(given), len(given)) if given else None

    async def _given_prompts(self, hd: Deployment) -> tuple[str, ...]:
        """Inline or by a ConfigMap; none for live ones."""
        prompts = hd.spec.profiling.prompts
        if prompts.config_map_ref is None:
            return prompts.inline
        found = await self._reads.get(CONFIG_MAP, hd.namespace, prompts.config_map_ref.name)
        data = (found or {}).get("data") or {}
        return texts(str(data.get(prompts.config_map_ref.key, "")))

    def _sources(self, kind: Kind, namespace: str) -> Iterator[Source]:
        return (source(kind, obj) for obj in self._mirror.all(kind, namespace))

    def drop_stale(self) -> None:
        """What was read of objects that are gone; called at every resync."""
        kinds = (PROFILE, MODEL, JOB)
        self._reader.keep_only({obj["metadata"]["uid"] for kind in kinds for obj in self._mirror.all(kind)})


def _with_memory(hd: Deployment) -> Deployment:
    """`limits.memoryMiB` is the pod's own memory limit where the spec leaves it open."""
    limit = nodes.memory_limit_mib(hd)
    if hd.spec.limits.memory_mib is not None or limit is None:
        return hd
    return replace(hd, spec=replace(hd.spec, limits=replace(hd.spec.limits, memory_mib=limit)))


async def tasks_in_config_map(hd: Deployment, reads: Reads) -> str | None:
    """The text of the user's tasks; None where the spec names no ConfigMap, or it is not there."""
    ref = hd.spec.profiling.tasks.config_map_ref if hd.spec.profiling.tasks else None
    if ref is None:
        return None
    data = (await reads.get(CONFIG_MAP, hd.namespace, ref.name) or {}).get("data") or {}
    return str(data[ref.key]) if ref.key in data else None
